"""What a model answers for a JPEG, in the scene's own pixels: straight from a backend, or from a running service."""

from __future__ import annotations

import http.client
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

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
from service.wire.messages import Fitting, Geometry, Options

Corners = tuple[float, float, float, float]


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
    """Where answers come from. `ask` may be called from several threads."""

    @abstractmethod
    def ask(self, jpeg: bytes, level: str) -> Answer: ...


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


class Service(Source):
    """A running service, asked over HTTP as any client would."""

    def __init__(self, url: str, name: str, task: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"{url!r}: expected http://HOST:PORT")
        self.host, self.port = parts.hostname, parts.port or 80
        self.task = task
        options: dict[str, Any] = {"model": name, "timeout_ms": 60_000}
        if task == "detect":
            options |= {"threshold": 0, "max_detections": 100}
        self.path = f"{parts.path.rstrip('/')}/{task}?{urlencode(options)}"

    def ask(self, jpeg: bytes, level: str) -> Answer:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=70)
        try:
            connection.request("POST", self.path, jpeg, {"Content-Type": "image/jpeg", "X-Squint-Level": level})
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise RuntimeError(f"the service answered {response.status}: {body[:200].decode(errors='replace')}")
        return read_answer(self.task, json.loads(body))


def read_answer(task: str, answer: dict[str, Any]) -> Answer:
    """A REST answer as an Answer."""
    if task == "classify":
        return Top(int(answer["predictions"][0]["index"]))
    if task == "detect":
        return [Found(int(p["index"]), float(p["score"]), tuple(p["box"])) for p in answer["predictions"]]
    height, width = answer["size"]
    classes = np.zeros((height, width), dtype=np.uint8)
    for part in answer["segments"]:
        ends = np.cumsum(run_lengths(part["counts"]))
        inside = np.zeros(height * width, dtype=bool)
        for start, end in zip(ends[0::2], ends[1::2], strict=False):
            inside[start:end] = True
        classes[inside.reshape(width, height).T] = part["index"]
    return Mask(classes)


def run_lengths(text: str) -> list[int]:
    """COCO's compressed run lengths: six bits a character from '0' on, of which one says that more follow; signed,
    and from the fourth on as the difference to the one two before."""
    counts: list[int] = []
    value, shift = 0, 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value, shift = 0, 0
    return counts
