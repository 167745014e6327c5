"""PyTorch's side of `streamed.py`: the streams of a GPU, networks recorded as CUDA graphs, and places for batches.

With a CPU as the device everything is done at once, by the same code: so it is tested where there is no GPU.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from service.backends import nvidia
from service.backends.base import BackendError, Images, Inputs
from service.backends.streamed import Card, Place, Stream


class Step(Protocol):
    """A network at one level and batch size: uint8 images [B, H, W, 3] on the device to its outputs."""

    outputs: tuple[str, ...]

    def __call__(self, images: torch.Tensor) -> Sequence[torch.Tensor]: ...


def be_on(device: torch.device) -> None:
    """Have this thread's work go to the device. Raises BackendError."""
    if device.type == "cuda":
        try:
            torch.cuda.set_device(device)
        except Exception as error:  # no driver, no such device, a build for CPUs
            raise BackendError("batch", f"PyTorch cannot use {device}") from error


class Recorded:
    """A step as a CUDA graph, for one thread and one run at a time. Outputs are good until the next run of any graph of
    the same `pool`: their memory is the same."""

    def __init__(self, step: Step, images: torch.Tensor, pool: Any) -> None:
        self.outputs = step.outputs
        self._step, self._images = step, images
        self._graph = torch.cuda.CUDAGraph()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):  # what is set up in a first run must not be recorded
                step(images)
        torch.cuda.current_stream().wait_stream(side)
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self._answers = list(step(images))

    def __call__(self, images: torch.Tensor) -> Sequence[torch.Tensor]:
        self._images.copy_(images, non_blocking=True)
        self._graph.replay()
        return self._answers


class Reached:
    """A point on a stream of a GPU."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self.event = torch.cuda.Event(enable_timing=True, blocking=True)
        self.event.record(stream)

    def wait(self) -> None:
        """Sleeps: the CPUs are for decoding."""
        self.event.synchronize()

    def since(self, earlier: Reached) -> float:
        return float(earlier.event.elapsed_time(self.event)) / 1000


class OnGpu:
    """A stream of a GPU."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)

    def put(self, step: Callable[[], None]) -> None:
        with torch.cuda.stream(self._stream), torch.no_grad():
            step()

    def mark(self) -> Reached:
        return Reached(self._stream)

    def after(self, mark: Reached) -> None:
        self._stream.wait_event(mark.event)


class Moment:
    """A point on a stream of a CPU: when it was passed."""

    def __init__(self) -> None:
        self._seconds = time.monotonic()

    def wait(self) -> None: ...

    def since(self, earlier: Moment) -> float:
        return self._seconds - earlier._seconds


class AtOnce:
    """A stream of a CPU, on which everything is done as it is put there: for tests."""

    def put(self, step: Callable[[], None]) -> None:
        with torch.no_grad():
            step()

    def mark(self) -> Moment:
        return Moment()

    def after(self, mark: Moment) -> None: ...


class NetworkCard(Card):
    """A model's compiled steps on its device; on a GPU each recorded, with one memory for what they work with.

    `images(size)` makes a batch of black images there; `step(inputs, size)` says what computes a level at a size.
    """

    def __init__(
        self, device: torch.device, images: Callable[[int], torch.Tensor], step: Callable[[Inputs, int], Step]
    ) -> None:
        self._device, self._images, self._step = device, images, step
        self._gpu = device.type == "cuda"
        self._pool: Any = None
        self._recorded: dict[Step, Recorded] = {}

    def stream(self) -> Stream:
        """One of the device's."""
        return OnGpu(self._device) if self._gpu else AtOnce()

    def begin(self) -> None:
        """As be_on."""
        be_on(self._device)

    def place(self, inputs: Inputs, size: int) -> Place:
        """What is read or written while the batch of another place computes is this one's own."""
        with torch.no_grad():
            step, images = self._ready(self._step(inputs, size), size), self._images(size)
            there = [torch.empty_like(value) for value in step(images)]
            host = [torch.empty(value.shape, dtype=value.dtype, pin_memory=self._gpu) for value in there]
        if self._gpu:
            torch.cuda.synchronize(self._device)

        def bring(given: Images) -> None:
            images.copy_(torch.from_numpy(given), non_blocking=True)

        def compute() -> None:
            for kept, value in zip(there, step(images), strict=True):
                kept.copy_(value, non_blocking=True)

        def fetch() -> None:
            for arrived, kept in zip(host, there, strict=True):
                arrived.copy_(kept, non_blocking=True)

        return Place(
            {name: value.numpy() for name, value in zip(step.outputs, host, strict=True)}, bring, compute, fetch
        )

    def _ready(self, step: Step, size: int) -> Step:
        """The step as it is run: one recording for all its places, since they compute one after the other."""
        if not self._gpu:
            return step
        if step not in self._recorded:
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            self._recorded[step] = Recorded(step, self._images(size), self._pool)
        return self._recorded[step]

    def pin(self, memory: Images) -> None:
        """Where the driver will not, uploads are slower and otherwise the same."""
        driver = nvidia.driver() if self._gpu else None
        if driver is not None:
            with contextlib.suppress(OSError):
                driver.pin(self._device.index or 0, memory)

    def close(self) -> None:
        """Drop what was recorded; the steps are the caller's."""
        self._recorded.clear()
