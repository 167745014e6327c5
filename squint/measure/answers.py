"""What a model answers for a JPEG, in the scene's own pixels: straight from a backend, or from a running service."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from models import manifest
from models.manifest import Manifest
from service.backends.base import Artefact
from service.backends.registry import open_backend
from service.config import Limits
from service.decoder.image import decode
from service.tasks import detect, segment
from service.wire.messages.decoder import Fitting, Geometry
from service.wire.messages.results import Options
from squint.client import Classification, Client, Detections, Segmentation

Corners = tuple[float, float, float, float]
TIMEOUT = 60.0
"""Seconds for a scene, beyond what is usual: an explicit level that comes first is compiled."""
MAX_DETECTIONS = 100
"""As COCO counts."""


@dataclass(frozen=True)
class Top:
    """Classification: the best class."""

    index: int


@dataclass(frozen=True)
class Found:
    """Detection: one object, x0, y0, x1, y1 in pixels."""

    index: int
    score: float
    corners: Corners


@dataclass(frozen=True)
class Mask:
    """Segmentation: uint8 [H, W], 0 background, class index + 1."""

    classes: NDArray[np.uint8]


Answer = Top | list[Found] | Mask


class Source(ABC):
    """Where answers come from. `ask` may be called from several threads, `close` when none of them asks any more."""

    @abstractmethod
    def ask(self, jpeg: bytes, level: str) -> Answer: ...

    @abstractmethod
    def close(self) -> None:
        """Give up the model, or the connections."""


class Reader:
    """The service's own way from a JPEG to the network's input."""

    def __init__(self, described: Manifest) -> None:
        self.fitting = Fitting(**msgspec.structs.asdict(described.transform))
        self.limits = Limits()

    def read(self, jpeg: bytes) -> tuple[NDArray[np.uint8], Geometry]:
        """The input [1, H, W, 3] uint8, and where it lies in the picture."""
        image = np.empty((1, self.fitting.height, self.fitting.width, 3), dtype=np.uint8)
        return image, decode(jpeg, memoryview(image.data).cast("B"), self.fitting, self.limits)


def answer_in(task: str, outputs: Mapping[str, NDArray[Any]], geometry: Geometry) -> Answer:
    """One image's outputs as an Answer."""
    if task == "classify":
        return Top(int(outputs["logits"].argmax()))
    if task == "detect":
        found = detect.result(dict(outputs), geometry, Options(threshold=0.0))
        return [Found(item.index, item.score, item.box) for item in found.objects]
    return Mask(segment.pixels(dict(outputs), geometry).astype(np.uint8))


class Offline(Source):
    """The service's own decoder, backend and task code, in this process, one image at a time."""

    def __init__(self, directory: Path, backend: str) -> None:
        self.manifest: Manifest = manifest.load(directory)
        graph = manifest.read_file(directory, self.manifest, self.manifest.graph)
        self.backend = open_backend(backend, Artefact(manifest=self.manifest, graph=graph, engines=1))
        self.reader = Reader(self.manifest)

    def ask(self, jpeg: bytes, level: str) -> Answer:
        image, geometry = self.reader.read(jpeg)
        outputs = {name: values[0] for name, values in self.backend.run(image, level).items()}
        return answer_in(self.manifest.task, outputs, geometry)

    def close(self) -> None:
        self.backend.close()


class Service(Source):
    """A running service, asked over HTTP as any client would."""

    def __init__(self, url: str, name: str, task: str, api_key: str | None = None) -> None:
        self.name = name
        self.task = task
        self.client = Client(url, api_key=api_key, timeout=TIMEOUT)

    def ask(self, jpeg: bytes, level: str) -> Answer:
        if self.task == "classify":
            return answer_of(self.client.classify(jpeg, model=self.name, level=level, top_k=1))
        if self.task == "detect":
            found = self.client.detect(jpeg, model=self.name, level=level, threshold=0.0, max_detections=MAX_DETECTIONS)
            return answer_of(found)
        return answer_of(self.client.segment(jpeg, model=self.name, level=level))

    def close(self) -> None:
        self.client.close()


def answer_of(result: Classification | Detections | Segmentation) -> Answer:
    """A service's result as an Answer."""
    if isinstance(result, Classification):
        return Top(result.best.index)
    if isinstance(result, Detections):
        return [Found(item.index, item.score, item.box) for item in result.predictions]
    return Mask(result.array().astype(np.uint8))
