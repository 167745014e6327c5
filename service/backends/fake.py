"""A backend for tests: it needs no graph, tells by its answer which image it saw, and fails on command.

A command is an image whose centre pixel has one of the colours below. A lossless image of one such colour, of any
size, carries it through decoding and resizing unchanged. What a model does while it is loaded is told by its manifest:
`training = {"fake": command}` with one of the commands below.
"""

from __future__ import annotations

import ctypes
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.levels import Trunk, trace
from models.manifest import Manifest
from service.backends.base import Artefact, Backend, BackendError, Images, Inputs, Outputs

Colour = tuple[int, int, int]

FAIL_ITEM: Colour = (254, 1, 1)
"""BackendError `item`, naming the images of this colour."""
FAIL_BATCH: Colour = (254, 1, 2)
"""BackendError `batch`."""
NO_MEMORY: Colour = (254, 1, 3)
"""BackendError `oom` when the batch is larger than MEMORY_LIMIT."""
HANG_PYTHON: Colour = (254, 1, 4)
"""Loop in Python for ever; other threads go on."""
HANG_C: Colour = (254, 1, 5)
"""Sleep in C for ever without the interpreter lock; other threads go on."""
HANG_LOCKED: Colour = (254, 1, 6)
"""Sleep in C for ever holding the interpreter lock: the whole process stands still."""
SEGFAULT: Colour = (254, 1, 7)
"""Read address 0."""
FATAL: Colour = (254, 1, 8)
"""BackendError `fatal`."""
LEAK: Colour = (254, 1, 9)
"""Keep LEAK_BYTES for ever."""
STRAY: Colour = (254, 1, 10)
"""Answer with values that are no numbers (not with a mask), so that the task fails for this item alone."""
BREAK: Colour = (254, 1, 11)
"""From here on every run is a BackendError `batch`, as when a device has failed."""
QUIT: Colour = (254, 1, 12)
"""End the thread that runs the batch."""
LOSE_DEVICE_RED_GREEN = (254, 3)
"""(254, 3, n): where the device is number n it fails, also for those who come later, while the file `lost-DEVICE` is in
the cache directory; elsewhere nothing."""
SLEEP_RED_GREEN = (254, 2)
"""(254, 2, n): sleep n times SLEEP_STEP."""

SLEEP_STEP = 0.01
"""Seconds."""
MEMORY_LIMIT = 8
LEAK_BYTES = 1 << 20
_FOREVER = 1_000_000_000

LOAD_FAILS, LOAD_CRASHES, LOAD_SLOW, LOAD_HEAVY = "load-fails", "load-crashes", "load-slow", "load-heavy"
WARM_FAILS = "warm-fails"
LOAD_SECONDS = 1.0
"""What LOAD_SLOW takes, each time."""
LOAD_BYTES = 40 << 20
"""What LOAD_HEAVY keeps until it is unloaded."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds that a batch of n takes: a + b * n."""

    a: float = 0.0
    b: float = 0.0


def load(artefact: Artefact, precision: str) -> Backend:
    """The factory; `precision` means nothing here."""
    command = artefact.manifest.training.get("fake")
    if command == LOAD_FAILS:
        raise BackendError("batch", "told to fail")
    if command == LOAD_CRASHES:
        ctypes.string_at(0)
    if command == LOAD_SLOW:
        time.sleep(LOAD_SECONDS)
    a, b = artefact.fake_cost_ms
    lost = Path(artefact.cache_dir) / f"lost-{artefact.device}"
    if artefact.device != "cpu" and lost.exists():
        raise BackendError("fatal", "told that the device is gone")
    return Fake(artefact.manifest, Cost(a / 1000, b / 1000), lost)


def solid(colour: Colour, height: int, width: int) -> NDArray[np.uint8]:
    """An image [height, width, 3] of one colour."""
    return np.full((height, width, 3), colour, np.uint8)


def checksum(image: NDArray[np.uint8]) -> int:
    """What the answers are made from: the crc32 of an image's pixels [H, W, 3]."""
    return zlib.crc32(np.ascontiguousarray(image).data)


class Fake(Backend):
    """Answers made from the checksum of each image."""

    def __init__(self, manifest: Manifest, cost: Cost = Cost(), lost: Path = Path("lost-cpu")) -> None:
        super().__init__("fake/none", manifest)
        self._manifest = manifest
        self._cost = cost
        self._lost = lost
        self._leaked: list[bytearray] = []
        if manifest.training.get("fake") == LOAD_HEAVY:
            self._leaked.append(bytearray(b"x" * LOAD_BYTES))
        self._broken = False
        self._answers = {"classify": _classify, "detect": _detect, "segment": _segment}[manifest.task]

    def _run(self, images: Images, inputs: Inputs, wide: bool) -> Outputs:
        if self._manifest.training.get("fake") == WARM_FAILS:
            raise BackendError("batch", "told to fail")
        if self._cost.a or self._cost.b:
            time.sleep(self._cost.a + self._cost.b * len(images))
        centres = images[:, images.shape[1] // 2, images.shape[2] // 2].tolist()
        colours: list[Colour] = [tuple(centre) for centre in centres]
        for colour in colours:
            self._lose(colour)
            self._obey(colour, len(images))
        if self._broken:
            raise BackendError("batch", "told to fail for ever")
        guilty = [index for index, colour in enumerate(colours) if colour == FAIL_ITEM]
        if guilty:
            raise BackendError("item", "told to fail", guilty)
        outputs = self._answers([checksum(image) for image in images], self._manifest)
        if self._manifest.trunk is not None and "merge" in inputs:
            outputs["tokens"] = _tokens(len(images), self._manifest.trunk, inputs)
        for index, colour in enumerate(colours):
            if colour == STRAY:
                _spoil(outputs, index)
        return outputs

    def _lose(self, colour: Colour) -> None:
        if colour[:2] == LOSE_DEVICE_RED_GREEN and self._lost.name.endswith(f":{colour[2]}"):
            self._lost.parent.mkdir(parents=True, exist_ok=True)
            self._lost.touch()
            raise BackendError("fatal", "told that the device is gone")

    def _obey(self, colour: Colour, batch: int) -> None:
        if colour == FAIL_BATCH:
            raise BackendError("batch", "told to fail")
        if colour == FATAL:
            raise BackendError("fatal", "told to fail")
        if colour == NO_MEMORY and batch > MEMORY_LIMIT:
            raise BackendError("oom", "told to run out of memory")
        if colour == LEAK:
            self._leaked.append(bytearray(b"x" * LEAK_BYTES))
        if colour == BREAK:
            self._broken = True
        if colour == QUIT:
            raise SystemExit
        if colour == SEGFAULT:
            ctypes.string_at(0)
        if colour == HANG_C:
            ctypes.CDLL(None).sleep(_FOREVER)
        if colour == HANG_LOCKED:
            ctypes.PyDLL(None).sleep(_FOREVER)
        while colour == HANG_PYTHON:
            pass
        if colour[:2] == SLEEP_RED_GREEN:
            time.sleep(colour[2] * SLEEP_STEP)

    def _close(self) -> None:
        self._leaked.clear()


def _classify(sums: list[int], manifest: Manifest) -> Outputs:
    """The winning class is the checksum modulo the number of classes; all logits depend on the checksum, and the
    embedding [B, 2] holds its two halves."""
    classes = len(manifest.labels)
    factors = np.arange(1, classes + 1, dtype=np.uint64) * np.uint64(2654435761)
    mixed = (np.array(sums, np.uint64)[:, None] * factors >> np.uint64(16)) & np.uint64(0xFFFF)
    logits = mixed.astype(np.float32) / 65536
    for row, value in enumerate(sums):
        logits[row, value % classes] += 4
    halves = np.array([(value >> 16, value & 0xFFFF) for value in sums], np.float32)
    return {"logits": logits, "embedding": halves}


def _detect(sums: list[int], manifest: Manifest) -> Outputs:
    """One box of score 0.9, the rest of score 0; its upper left corner holds two bytes of the checksum."""
    kept = 8
    boxes = np.zeros((len(sums), kept, 4), np.float32)
    scores = np.zeros((len(sums), kept), np.float32)
    labels = np.zeros((len(sums), kept), np.int64)
    for row, value in enumerate(sums):
        boxes[row, 0] = ((value & 0xFF) / 512, (value >> 8 & 0xFF) / 512, 0.75, 0.75)
        scores[row, 0] = 0.9
        labels[row, 0] = value % len(manifest.labels)
    return {"boxes": boxes, "scores": scores, "labels": labels}


def _segment(sums: list[int], manifest: Manifest) -> Outputs:
    """The upper left quarter is of one class that is no background (if the model has one), the rest is background."""
    height, width = max(manifest.transform.height // 4, 2), max(manifest.transform.width // 4, 2)
    masks = np.zeros((len(sums), height, width), np.uint8)
    for row, value in enumerate(sums):
        masks[row, : height // 2, : width // 2] = 1 + value % max(len(manifest.labels) - 1, 1)
    return {"mask": masks}


def _tokens(count: int, trunk: Trunk, inputs: Inputs) -> NDArray[np.int32]:
    """As many groups as the level leaves [B, N]: each patch its own, but the last ones, which share the last group."""
    left = trace(trunk.prefix + trunk.patches, tuple(inputs["merge"].tolist()), trunk.prefix)[-1] - trunk.prefix
    return np.tile(np.minimum(np.arange(trunk.patches, dtype=np.int32), left - 1), (count, 1))


def _spoil(outputs: dict[str, Any], index: int) -> None:
    for name in ("logits", "scores"):
        if name in outputs:
            outputs[name][index] = np.nan
