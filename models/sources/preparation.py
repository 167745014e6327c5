"""The transform file: what a network from outside expects of its input, and what its outputs mean (docs/models.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from models.manifest import Filter, Fit, Task, Transform
from models.sources.artefact import SourceError

Side = Annotated[int, msgspec.Meta(ge=1, le=4096)]
Share = Annotated[float, msgspec.Meta(gt=0, le=1)]
Byte = Annotated[int, msgspec.Meta(ge=0, le=255)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
FITS: dict[Task, Fit] = {"classify": "crop", "detect": "letterbox", "segment": "stretch"}


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the tables: a key we do not know is an error."""


class Outputs(Table, frozen=True):
    """Which output of the graph is what; of detectors also which of its columns, such as `output0[4:84]`."""

    logits: str | None = None
    probabilities: str | None = None
    embedding: str | None = None
    boxes: str | None = None
    scores: str | None = None
    labels: str | None = None
    class_scores: str | None = None
    objectness: str | None = None
    mask: str | None = None


class Detect(Table, frozen=True):
    """What a detector's numbers mean, and what is left to do with them.

    `overlap` is the intersection over union above which of two boxes of a class only the better one stays; without it
    every box stays. `background` says where the class that is none stands, `columns` along which axis they lie.
    """

    form: Literal["xyxy", "xywh", "cxcywh", "yxyx"] = "xyxy"
    unit: Literal["pixels", "fraction"] = "pixels"
    activation: Literal["none", "sigmoid", "softmax"] = "none"
    background: Literal["none", "first", "last"] = "none"
    columns: Literal["last", "middle"] = "last"
    overlap: Share | None = None
    most: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100


class Preparation(Table, frozen=True):
    """The whole file. The network reads (pixel / divisor - mean) / std per channel; None is what the source says, or
    the task's custom."""

    height: Side | None = None
    width: Side | None = None
    fit: Fit | None = None
    keep: Share | None = None
    filter: Filter | None = None
    fill: tuple[Byte, Byte, Byte] | None = None
    divisor: Positive = 255.0
    mean: tuple[float, float, float] | None = None
    std: tuple[Positive, Positive, Positive] | None = None
    channels: Literal["rgb", "bgr"] = "rgb"
    layout: Literal["nchw", "nhwc"] | None = None
    input: str | None = None
    outputs: Outputs = Outputs()
    detect: Detect = Detect()
    threshold: float = 0.5

    def applied(self, transform: Transform) -> Transform:
        """The transform with what the file says in place of what it says itself."""
        fit = self.fit or transform.fit
        keep = self.keep if self.keep is not None else transform.keep if fit != "letterbox" else 1.0
        if fit == "letterbox" and keep != 1:
            raise SourceError("keep is for crop and stretch; letterbox shows the whole image")
        return Transform(
            fit=fit,
            height=self.height or transform.height,
            width=self.width or transform.width,
            fill=self.fill or transform.fill,
            keep=keep,
            filter=self.filter or transform.filter,
        )


def read_preparation(path: Path) -> Preparation:
    """Read a transform file, TOML or, with the suffix .json, JSON. Raises SourceError."""
    try:
        raw = path.read_bytes()
        decode = msgspec.json.decode if path.suffix == ".json" else msgspec.toml.decode
        return decode(raw, type=Preparation)
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise SourceError(f"{path}: {' '.join(str(error).split())}") from None
