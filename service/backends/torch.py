"""PyTorch, compiled: networks from their architecture and the weights in the model's graph.

There are two forms. `torch/f32` and `torch/bf16` load libraries that `squint models compile` made, one for each named
level and batch size, so that nothing is compiled while the service starts or serves. `torch/jit/f32` and
`torch/jit/bf16` compile in this process when a model is loaded, which takes minutes. A level without a name runs as it
is, uncompiled: slower, but at once.

A level's schedule is part of what is compiled: no shape depends on data, and nothing waits for the device between
layers. On a GPU every compiled network is recorded as a CUDA graph.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from models.ahead import AtLevel, CompileError, Library, compile_ahead, compiled_here, sources
from models.levels import FULL, Plan, plan
from models.manifest import Manifest
from models.precision import convert
from models.restored import RestoreError, restored
from service import log
from service.backends import cache
from service.backends.base import Artefact, Backend, BackendError, Images, Inputs, Outputs
from service.backends.failure import error_from_library
from service.backends.store import FOLDER, Store, StoreError

BUCKETS = {"cpu": (1,), "cuda": (1, 2, 4, 8, 16, 32, 64)}
"""Batch sizes that are compiled. On a CPU, whose batches are small, images run one by one; a GPU's are filled up."""
JIT = "jit/"
RECORDED = ("network", "source", "built", "timm")
"""What a manifest's record of training says about which network it is."""

Schedule = tuple[tuple[str, tuple[int, ...]], ...]
"""What a level feeds the network, as something to look up."""


class Step(Protocol):
    """A network at one level and batch size: uint8 images [B, H, W, 3] on the device to its outputs."""

    outputs: tuple[str, ...]

    def __call__(self, images: torch.Tensor) -> Sequence[torch.Tensor]: ...


def load(artefact: Artefact, precision: str) -> Backend:
    """The factory; `precision` is f32 or bf16, after `jit/` where this process is to compile."""
    network = Network(artefact, precision.removeprefix(JIT))
    make = network.compiled_here if precision.startswith(JIT) else network.compiled_ahead
    steps: dict[Schedule, dict[int, Step]] = {}
    try:
        for level in named_levels(artefact.manifest):
            steps[schedule(level.inputs)] = {size: network.recorded(make(level, size), size) for size in network.sizes}
    except BackendError:
        raise
    except Exception as error:  # PyTorch's own derive from Exception only
        raise error_from_library(error) from error
    return Torch(f"torch/{precision}", network, steps)


def build(artefact: Artefact, precision: str, progress: Callable[[str], None]) -> None:
    """Make the libraries that `load` needs and that are not there; `progress` is told of each one before.

    Raises BackendError.
    """
    network = Network(artefact, precision)
    for level in named_levels(artefact.manifest):
        for size in network.sizes:
            progress(f"{level.level}, batch of {size}")
            try:
                network.store.get(network.key(level, size), network.builder(level, size))
            except (CompileError, StoreError) as error:
                raise BackendError("batch", str(error)) from None


def named_levels(described: Manifest) -> list[Plan]:
    """The levels with a name worked out, each once."""
    if described.trunk is None:
        return [Plan(FULL, {}, 0, 0.0)]
    found = [plan(level.explicit, described.trunk) for level in described.levels]
    return list({level.level: level for level in found}.values())


def schedule(inputs: Mapping[str, Sequence[int]]) -> Schedule:
    """A level's integers as one value."""
    return tuple((name, tuple(int(value) for value in inputs[name])) for name in sorted(inputs))


def pieces(count: int, sizes: Sequence[int]) -> Iterator[tuple[slice, int]]:
    """A batch of `count` images in parts, each with the compiled batch size it runs at: as few as can be."""
    begin = 0
    while begin < count:
        size = min((size for size in sizes if size >= count - begin), default=max(sizes))
        yield slice(begin, min(begin + size, count)), size
        begin += size


class Network:
    """A model's network in one precision on its device, and the ways to have it compiled. Raises BackendError."""

    def __init__(self, artefact: Artefact, precision: str) -> None:
        torch.set_num_threads(1)
        self.manifest = artefact.manifest
        self.device = torch.device(artefact.device)
        self.be_there()
        self._artefact = artefact
        self._precision = precision
        self._lock = threading.Lock()
        self.sizes = BUCKETS[self.device.type]
        self.store = Store(Path(artefact.cache_dir) / FOLDER, report=self._report)
        if self.device.type == "cuda" and precision == "f32":
            torch.backends.cudnn.allow_tf32 = False

    def be_there(self) -> None:
        """Have this thread's work go to the device. Raises BackendError."""
        if self.device.type == "cuda":
            try:
                torch.cuda.set_device(self.device)
            except Exception as error:  # no driver, no such device, a build for CPUs
                raise BackendError("batch", f"PyTorch cannot use {self.device}") from error

    @cached_property
    def _restored(self) -> torch.nn.Module:
        try:
            network = restored(self.manifest, self._artefact.graph)
        except RestoreError as error:
            raise BackendError("batch", str(error)) from None
        except Exception as error:  # of the library that reads graphs
            raise error_from_library(error) from None
        convert(network, self._precision)
        return network.to(self.device)

    @property
    def is_restored(self) -> bool:
        """Whether it is in memory, as levels without a name need it."""
        return "_restored" in self.__dict__

    def at(self, level: Plan) -> AtLevel:
        """The network at a level, not compiled. Raises BackendError."""
        with self._lock:
            return AtLevel(self._restored, level)

    def images(self, size: int) -> torch.Tensor:
        """A batch of black images on the device."""
        transform = self.manifest.transform
        return torch.zeros(size, transform.height, transform.width, 3, dtype=torch.uint8, device=self.device)

    def key(self, level: Plan, size: int) -> dict[str, str]:
        """All that a library depends on."""
        described = self.manifest
        return {
            "backend": f"torch/{self._precision}",
            "graph": described.files[described.graph].sha256,
            "network": repr([described.task, described.trunk, *(described.training.get(name) for name in RECORDED)]),
            "level": repr(schedule(level.inputs)),
            "batch": str(size),
            "code": sources(),
            "torch": f"{torch.__version__} {metadata.version('torch')}",
            "hardware": hardware(self.device),
        }

    def builder(self, level: Plan, size: int) -> Callable[[Path], None]:
        """What makes a library in a directory."""
        return lambda directory: compile_ahead(self.at(level), self.images(size), directory)

    def compiled_ahead(self, level: Plan, size: int) -> Step:
        """A library from the store. Raises BackendError where it is not there."""
        found = self.store.find(self.key(level, size)) if self._artefact.cache_dir else None
        if found is None:
            raise BackendError(
                "batch", f"not compiled for this machine; squint models compile {self.manifest.name} does that"
            )
        return Library(found, self._artefact.engines, self.device)

    def compiled_here(self, level: Plan, size: int) -> Step:
        """Compiled in this process, by its first run."""
        folder = Path(self._artefact.cache_dir) / "inductor" if self._artefact.cache_dir else None
        return compiled_here(self.at(level), self.images(size), folder)

    def recorded(self, step: Step, size: int) -> Step:
        """On a GPU the same as a CUDA graph."""
        return Recorded(step, self.images(size)) if self.device.type == "cuda" else step

    def _report(self, line: str) -> None:
        log.event("artefact_refused", severity="warning", model=self.manifest.name, reason=line)


def hardware(device: torch.device) -> str:
    """What a library was compiled for: it uses all that this CPU or GPU has."""
    model, flags = cache.cpu()
    if device.type == "cpu":
        return f"{model} {' '.join(sorted(flags))}"
    properties = torch.cuda.get_device_properties(device)
    return f"{properties.name} {properties.major}.{properties.minor} CUDA {torch.version.cuda}"


class Recorded:
    """A step as a CUDA graph, with places of its own for images and outputs: one run at a time."""

    def __init__(self, step: Step, images: torch.Tensor) -> None:
        self.outputs = step.outputs
        self._step, self._images = step, images
        self._lock = threading.Lock()
        self.own = threading.local()
        """`seconds` of the calling thread's last run, without waiting for others."""
        self._graph = torch.cuda.CUDAGraph()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.no_grad(), torch.cuda.stream(side):
            for _ in range(2):  # what is set up in a first run must not be recorded
                step(images)
        torch.cuda.current_stream().wait_stream(side)
        with torch.no_grad(), torch.cuda.graph(self._graph):
            self._answers = list(step(images))

    def __call__(self, images: torch.Tensor) -> Sequence[torch.Tensor]:
        with self._lock:
            begin = time.monotonic()
            self._images.copy_(images)
            self._graph.replay()
            answers = [answer.cpu() for answer in self._answers]
            self.own.seconds = time.monotonic() - begin
        return answers


class Torch(Backend):
    """A network with its compiled steps."""

    def __init__(self, name: str, network: Network, steps: dict[Schedule, dict[int, Step]]) -> None:
        super().__init__(name, network.manifest)
        self.pipelined = network.device.type == "cuda"
        self._network = network
        self._steps = steps
        self._thread = threading.local()

    def seconds(self, wall: float) -> float:
        """On a GPU, which runs share, those that this one had it to itself."""
        return getattr(self._thread, "seconds", 0.0) or wall

    def _run(self, images: Images, inputs: Inputs, wide: bool) -> Outputs:
        self._thread.seconds = 0.0
        if not hasattr(self._thread, "alone"):
            torch.set_num_threads(1)  # OpenMP keeps that for each thread
            self._network.be_there()
            self._thread.alone = True
        level = schedule({name: values.tolist() for name, values in inputs.items()})
        steps = self._steps.get(level)
        try:
            with torch.no_grad():
                if steps is None:
                    steps = {len(images): self._network.at(Plan("", dict(level), 0, 0.0))}
                return self._through(steps, images)
        except BackendError:
            raise
        except Exception as error:
            raise error_from_library(error) from error

    def _through(self, steps: Mapping[int, Step], images: Images) -> Outputs:
        """Images in parts of the sizes that there are steps for; outputs are copies, as steps may share constants."""
        found: list[Outputs] = []
        for part, size in pieces(len(images), list(steps)):
            step, chosen = steps[size], images[part]
            values = step(self._batch(chosen, size))
            if isinstance(step, Recorded):
                self._thread.seconds += step.own.seconds
            found.append(
                {name: value.cpu().numpy()[: len(chosen)] for name, value in zip(step.outputs, values, strict=True)}
            )
        return {name: np.concatenate([one[name] for one in found]) for name in found[0]}

    def prepared(self, level: str) -> bool:
        """Whether the level is compiled, or the network is at hand to run it as it is."""
        inputs = {name: values.tolist() for name, values in self._inputs(level).items()}
        return schedule(inputs) in self._steps or self._network.is_restored

    def _batch(self, images: Images, size: int) -> torch.Tensor:
        """Images on the device, as many as `size`; those that are too few are followed by black ones."""
        batch = torch.zeros((size, *self._shape), dtype=torch.uint8)
        batch.numpy()[: len(images)] = images
        return batch.to(self._network.device, non_blocking=True)

    def _close(self) -> None:
        for steps in self._steps.values():
            for step in steps.values():
                if isinstance(step, Library):
                    step.close()
        self._steps.clear()
