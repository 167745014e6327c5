"""Batches on a device, one behind the other: the next is uploaded and the last downloaded while one computes.

A batch takes three steps. Its caller's thread uploads it and, in the end, downloads it; in between one thread of the
device's computes, batch after batch, for a runtime keeps what it captured by thread. With three callers all three steps
are busy. A batch is padded to the next of a few sizes, so that a device sees the same shapes again and again.

What is kept per place of the pipeline (buffers, captured graphs) is prepared while nothing is copied: a copy by another
thread would spoil a capture.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

import numpy as np

from service.backends.base import Images, Inputs, Outputs

BUCKETS = (1, 2, 4, 8, 16, 32, 64)
"""Batch sizes that a device runs."""
DEPTH = 3
"""Batches in the pipeline: one uploaded, one computed, one downloaded."""

Place = TypeVar("Place")
_Key = tuple[bytes, int]


def bucket(items: int, sizes: Sequence[int] = BUCKETS) -> int:
    """The size of these, smallest first, that a batch of `items`, at most the largest, is padded to."""
    return next(size for size in sizes if size >= items)


class Device(ABC, Generic[Place]):
    """What computes. A *place* is what one batch of one size and level needs there: buffers, and what was captured.

    `upload` and `compute` may return before they are done, if what follows them waits for that on the device; the
    images given stay as they are until the download. All raise BackendError.
    """

    @abstractmethod
    def place(self, inputs: Inputs, size: int) -> Place:
        """Make one, ready to compute; on the computing thread, while nothing is copied."""

    @abstractmethod
    def upload(self, place: Place, images: Images) -> None:
        """Bring images [size, H, W, 3] to the place."""

    @abstractmethod
    def compute(self, place: Place) -> None:
        """From the images there to outputs there; on the computing thread."""

    @abstractmethod
    def download(self, place: Place, items: int) -> Outputs:
        """The outputs of the first `items`, the caller's own."""

    def seconds(self, place: Place) -> float | None:
        """How long the batch that was downloaded last computed; None where `compute` waits until it is done."""
        return None

    def pin(self, memory: Images) -> None:
        """Let the device read this memory, whole pages [bytes], by itself for as long as the array lives."""

    def close(self) -> None:
        """Give up everything, on the computing thread."""


class Gate:
    """Who uses a device passes together with others, who prepares something there alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._users = 0
        self._alone = False

    @contextlib.contextmanager
    def using(self) -> Iterator[None]:
        """Copy or compute."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._users += 1
        try:
            yield
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Capture, register memory."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._alone = True
            self._changed.wait_for(lambda: not self._users)
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()


_gate = Gate()
"""One for the process: models that come later share the device with those that serve."""


def in_use() -> contextlib.AbstractContextManager[None]:
    """For others of the process who copy to a device or compute there: nothing is captured or registered meanwhile."""
    return _gate.using()


class Pipeline(Generic[Place]):
    """One model's way through a device, in batches of these sizes, smallest first. Several threads may call it."""

    def __init__(self, device: Device[Place], shape: tuple[int, int, int], sizes: Sequence[int] = BUCKETS) -> None:
        self._device = device
        self._shape = shape
        self._sizes = sizes
        self._own = threading.local()
        self._places: dict[_Key, queue.SimpleQueue[Place]] = {}
        self._making = threading.Lock()
        self._steps: queue.SimpleQueue[tuple[Future[None], Callable[[], None]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._compute, name="device", daemon=True)
        self._thread.start()

    def staging(self, items: int) -> Images:
        """Memory of the calling thread's for a batch of `items`, at most the largest size, that is quick to upload. It
        holds what it held; the thread's next batch is put there as well."""
        size = bucket(items, self._sizes)
        held: Images | None = getattr(self._own, "staging", None)
        if held is None or len(held) < size:
            pages = np.frombuffer(mmap.mmap(-1, size * math.prod(self._shape)), np.uint8)
            with _gate.alone():
                self._device.pin(pages)
                held = self._own.staging = pages.reshape(size, *self._shape)
        return held[:items]

    def run(self, images: Images, inputs: Inputs) -> Outputs:
        """Run uint8 images [B, H, W, 3] at a level: outputs by name. More than fit the largest size run in parts."""
        largest = self._sizes[-1]
        self.begin()
        parts = [self._batch(images[at : at + largest], inputs) for at in range(0, len(images), largest)]
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def begin(self) -> None:
        """The calling thread begins another run."""
        self._own.seconds = 0.0

    def seconds(self) -> float:
        """How long the device computed for the calling thread's last run."""
        taken: float = getattr(self._own, "seconds", 0.0)
        return taken

    def prepared(self, inputs: Inputs) -> bool:
        """Whether the smallest batch at this level can begin at once."""
        return (_spelled(inputs), self._sizes[0]) in self._places

    def prepare(self, inputs: Inputs, size: int) -> None:
        """Have every place for batches of this size made."""
        self._free(inputs, size)

    def close(self) -> None:
        """No thread may be running a batch."""
        self._places.clear()
        self._on_thread(self._device.close)
        self._steps.put(None)
        self._thread.join()

    def _batch(self, images: Images, inputs: Inputs) -> Outputs:
        size = bucket(len(images), self._sizes)
        staged = self.staging(len(images))
        if not np.may_share_memory(staged, images):
            staged[:] = images
        whole = self._own.staging[:size]
        free = self._free(inputs, size)
        place = free.get()
        try:
            with _gate.using():
                self._device.upload(place, whole)
            waited = self._used(lambda: self._device.compute(place))
            with _gate.using():
                outputs = self._device.download(place, len(images))
                computed = self._device.seconds(place)
            self._own.seconds = self.seconds() + (waited if computed is None else computed)
            return outputs
        finally:
            free.put(place)

    def on_thread(self, step: Callable[[], None]) -> None:
        """Have something else done between two batches, as a use of the device that ends when `step` does."""
        self._own.seconds = self.seconds() + self._used(step)

    def _used(self, step: Callable[[], None]) -> float:
        """Seconds that a use of the device took on its thread."""
        began: list[float] = []

        def used() -> None:
            with _gate.using():
                began.append(time.monotonic())
                step()
                began.append(time.monotonic())

        self._on_thread(used)
        return began[1] - began[0]

    def _free(self, inputs: Inputs, size: int) -> queue.SimpleQueue[Place]:
        """The places for this level and size that no batch is in."""
        key = (_spelled(inputs), size)
        with self._making:
            if key not in self._places:
                free: queue.SimpleQueue[Place] = queue.SimpleQueue()
                self._on_thread(lambda: self._make(inputs, size, free))
                self._places[key] = free
            return self._places[key]

    def _make(self, inputs: Inputs, size: int, free: queue.SimpleQueue[Place]) -> None:
        with _gate.alone():
            for _ in range(DEPTH):
                free.put(self._device.place(inputs, size))

    def _on_thread(self, step: Callable[[], None]) -> None:
        done: Future[None] = Future()
        self._steps.put((done, step))
        done.result()

    def _compute(self) -> None:
        while (found := self._steps.get()) is not None:
            done, step = found
            try:
                step()
            except BaseException as error:  # raised again in the thread that waits
                done.set_exception(error)
            else:
                done.set_result(None)


def _spelled(inputs: Inputs) -> bytes:
    """A key for a level's integers."""
    return b";".join(name.encode() + b"=" + value.tobytes() for name, value in sorted(inputs.items()))
