"""What the network is asked to find in an image, and what was found: what the data channels of workers and gateways
share."""

from __future__ import annotations

from typing import Literal

from service.wire.messages import Message


class Options(Message, frozen=True):
    """What the client asked of the result; a task reads those it knows."""

    top_k: int = 5
    threshold: float = 0.3
    max_detections: int = 100
    mask: Literal["rle", "png", "polygons"] = "rle"
    explain: Literal["tokens"] | None = None
    raw: tuple[str, ...] = ()
    """Outputs of the network that are wanted as they are; see Loaded.outputs."""


class Prediction(Message, frozen=True):
    """One class of a classification."""

    index: int
    score: float


class Classification(Message, frozen=True):
    """Top-k classes, best first."""

    predictions: list[Prediction]


class Detection(Message, frozen=True):
    """One object; `box` is (x0, y0, x1, y1) in pixels of the displayed image."""

    index: int
    score: float
    box: tuple[float, float, float, float]


class Detections(Message, frozen=True):
    """Objects above the threshold, best first."""

    objects: list[Detection]


class Segment(Message, frozen=True):
    """One class present in a mask and its area in pixels of the displayed image."""

    index: int
    area: int
    rle: str = ""
    polygons: list[list[float]] = []


class Segmentation(Message, frozen=True):
    """Per-pixel classes at the displayed image's size (`size` is height, width).

    `format` says how: `rle` and `polygons` are held per segment (and `rle` of all that is not background here),
    `png` is one image in `png`.
    """

    size: tuple[int, int]
    format: Literal["rle", "png", "polygons"]
    segments: list[Segment]
    png: bytes = b""
    rle: str = ""


Result = Classification | Detections | Segmentation


class TokenMap(Message, frozen=True):
    """Which group each patch of an image ended in. `grid` is the patches' rows and columns; `runs` are pairs of a group
    and how many patches in a row, read row by row, are of it; `sizes` holds the number of patches of each group."""

    grid: tuple[int, int]
    runs: list[tuple[int, int]]
    sizes: list[int]


class Raw(Message, frozen=True):
    """An output of the network for one image, little-endian and row by row; `kind` is numpy's name for its numbers."""

    name: str
    kind: str
    shape: tuple[int, ...]
    data: bytes
