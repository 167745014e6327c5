"""PyTorch, compiled: networks from their architecture and the weights in the model's graph.

There are two forms. `torch/f32` and `torch/bf16` load libraries that `squint models compile` made, one for each named
level and batch size, so that nothing is compiled while the service starts or serves. `torch/jit/f32` and
`torch/jit/bf16` compile in this process when a model is loaded, which takes minutes. A level without a name runs as it
is, uncompiled: slower, but at once.

A level's schedule is part of what is compiled: no shape depends on data, and nothing waits for the device between
layers. On a GPU every compiled network is recorded as a CUDA graph, and batches go through it by the pipeline and the
streams of `streamed.py`: uploads, networks and downloads of different batches at the same time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from importlib import metadata
from pathlib import Path

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
from service.backends.failure import error_from_library, in_our_words
from service.backends.pipeline import Pipeline
from service.backends.store import FOLDER, Store, StoreError
from service.backends.streamed import Streamed
from service.backends.torch_card import NetworkCard, Step, be_on

BUCKETS = {"cpu": (1,), "cuda": (1, 2, 4, 8, 16, 32, 64)}
"""Batch sizes that are compiled, smallest first. On a CPU, whose batches are small, images run one by one; a GPU's are
filled up."""
JIT = "jit/"
RECORDED = ("network", "source", "built", "timm")
"""What a manifest's record of training says about which network it is."""

Schedule = tuple[tuple[str, tuple[int, ...]], ...]
"""What a level feeds the network, as something to look up."""


def load(artefact: Artefact, precision: str) -> Backend:
    """The factory; `precision` is f32 or bf16, after `jit/` where this process is to compile."""
    network = Network(artefact, precision.removeprefix(JIT))
    name = f"torch/{precision}"
    with in_our_words():
        steps, sizes = found(network, compiles=precision.startswith(JIT))
        return OnCard(name, network, steps, sizes) if network.device.type == "cuda" else Torch(name, network, steps)


def found(network: Network, *, compiles: bool) -> tuple[Steps, tuple[int, ...]]:
    """Every named level at every batch size that all of them have, with those sizes; a network that `compiles` has all.
    Raises BackendError where there is none."""
    levels = named_levels(network.manifest)
    if compiles:
        return {
            schedule(level.inputs): {size: network.compiled_here(level, size) for size in network.sizes}
            for level in levels
        }, network.sizes
    there = [{size: network.stored(level, size) for size in network.sizes} for level in levels]
    sizes = tuple(size for size in network.sizes if all(one[size] for one in there))
    if not sizes:
        raise BackendError(
            "batch", f"not compiled for this machine; squint models compile {network.manifest.name} does that"
        )
    return {
        schedule(level.inputs): {size: network.library(path) for size, path in one.items() if path and size in sizes}
        for level, one in zip(levels, there, strict=True)
    }, sizes


def build(artefact: Artefact, precision: str, progress: Callable[[str], None], only: Collection[int] = ()) -> None:
    """Make the libraries that `load` needs and that are not there, or those for `only` these batch sizes; `progress`
    is told of each one before.

    Raises BackendError.
    """
    network = Network(artefact, precision)
    unknown = set(only) - set(network.sizes)
    if unknown:
        known = ", ".join(map(str, network.sizes))
        raise BackendError("batch", f"no batch of {min(unknown)} is run on {network.device.type}; there are {known}")
    for level in named_levels(artefact.manifest):
        for size in sorted(only or network.sizes):
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


def spelled(inputs: Inputs) -> Schedule:
    """The same of a graph's inputs."""
    return schedule({name: values.tolist() for name, values in inputs.items()})


def pieces(count: int, sizes: Sequence[int]) -> Iterator[tuple[slice, int]]:
    """A batch of `count` images in parts, each with the compiled batch size it runs at: as few as can be."""
    begin = 0
    while begin < count:
        size = min((size for size in sizes if size >= count - begin), default=max(sizes))
        yield slice(begin, min(begin + size, count)), size
        begin += size


Steps = dict[Schedule, dict[int, Step]]
"""By level and batch size."""


class Network:
    """A model's network in one precision on its device, and the ways to have it compiled. Raises BackendError."""

    def __init__(self, artefact: Artefact, precision: str) -> None:
        torch.set_num_threads(1)
        self.manifest = artefact.manifest
        self.device = torch.device(artefact.device)
        be_on(self.device)
        self._artefact = artefact
        self._precision = precision
        self._lock = threading.Lock()
        self.sizes = BUCKETS[self.device.type]
        self.store = Store(Path(artefact.cache_dir) / FOLDER, report=self._report)
        if self.device.type == "cuda" and precision == "f32":
            torch.backends.cudnn.allow_tf32 = False

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

    def stored(self, level: Plan, size: int) -> Path | None:
        """Where a library is that was compiled ahead; None where there is none."""
        return self.store.find(self.key(level, size)) if self._artefact.cache_dir else None

    def library(self, path: Path) -> Step:
        """One that is stored."""
        return Library(path, self._artefact.engines, self.device)

    def compiled_here(self, level: Plan, size: int) -> Step:
        """Compiled in this process, by its first run."""
        folder = Path(self._artefact.cache_dir) / "inductor" if self._artefact.cache_dir else None
        return compiled_here(self.at(level), self.images(size), folder)

    def _report(self, line: str) -> None:
        log.event("artefact_refused", severity="warning", model=self.manifest.name, reason=line)


def hardware(device: torch.device) -> str:
    """What a library was compiled for: it uses all that this CPU or GPU has."""
    model, flags = cache.cpu()
    if device.type == "cpu":
        return f"{model} {' '.join(sorted(flags))}"
    properties = torch.cuda.get_device_properties(device)
    return f"{properties.name} {properties.major}.{properties.minor} CUDA {torch.version.cuda}"


def close(steps: Steps) -> None:
    """Give the libraries up; nobody may be calling them."""
    for sizes in steps.values():
        for step in sizes.values():
            if isinstance(step, Library):
                step.close()
    steps.clear()


class OnCard(Backend):
    """A network on a GPU: named levels through the pipeline, others one at a time."""

    pipelined = True

    def __init__(self, name: str, network: Network, steps: Steps, sizes: Sequence[int]) -> None:
        super().__init__(name, network.manifest)
        self.sizes = sizes
        self._network = network
        self._steps = steps
        self._compiled = frozenset(steps)
        card = NetworkCard(network.device, network.images, lambda inputs, size: steps[spelled(inputs)][size])
        self._pipeline = Pipeline(Streamed(card), self._shape, sizes)
        try:
            self._pipeline.prepare(self._inputs(network.manifest.levels[0].name), sizes[0])
        except Exception:
            self.close()
            raise

    def staging(self, items: int) -> Images:
        """Memory that the device reads by itself."""
        return self._pipeline.staging(items) if items <= self.sizes[-1] else super().staging(items)

    def seconds(self, wall: float) -> float:
        """What the device computed."""
        return self._pipeline.seconds()

    def prepared(self, level: str) -> bool:
        """Whether it is recorded, or the network is at hand to run it as it is."""
        inputs = self._inputs(level)
        return self._pipeline.prepared(inputs) if self._is_named(inputs) else self._network.is_restored

    def _run(self, images: Images, inputs: Inputs, wide: bool) -> Outputs:
        if self._is_named(inputs):
            return self._pipeline.run(images, inputs)
        outputs: Outputs = {}
        self._pipeline.begin()

        def step() -> None:
            with in_our_words(), torch.no_grad():
                be_on(self._network.device)
                network = self._network.at(Plan("", dict(spelled(inputs)), 0, 0.0))
                values = network(torch.from_numpy(images.copy()).to(self._network.device))
                outputs.update({name: value.cpu().numpy() for name, value in zip(network.outputs, values, strict=True)})

        self._pipeline.on_thread(step)
        return outputs

    def _is_named(self, inputs: Inputs) -> bool:
        return spelled(inputs) in self._compiled

    def _close(self) -> None:
        self._pipeline.close()
        close(self._steps)


class Torch(Backend):
    """A network with its compiled steps on a CPU, where engines run side by side."""

    def __init__(self, name: str, network: Network, steps: Steps) -> None:
        super().__init__(name, network.manifest)
        self._network = network
        self._steps = steps
        self._thread = threading.local()

    def _run(self, images: Images, inputs: Inputs, wide: bool) -> Outputs:
        if not hasattr(self._thread, "alone"):
            torch.set_num_threads(1)  # OpenMP keeps that for each thread
            self._thread.alone = True
        level = spelled(inputs)
        steps = self._steps.get(level)
        with in_our_words(), torch.no_grad():
            if steps is None:
                steps = {len(images): self._network.at(Plan("", dict(level), 0, 0.0))}
            return self._through(steps, images)

    def _through(self, steps: Mapping[int, Step], images: Images) -> Outputs:
        """Images in parts of the sizes that there are steps for; outputs are copies, as steps may share constants."""
        found: list[Outputs] = []
        for part, size in pieces(len(images), list(steps)):
            step, chosen = steps[size], images[part]
            values = step(self._batch(chosen, size))
            found.append(
                {name: value.numpy()[: len(chosen)].copy() for name, value in zip(step.outputs, values, strict=True)}
            )
        return {name: np.concatenate([one[name] for one in found]) for name in found[0]}

    def prepared(self, level: str) -> bool:
        """Whether the level is compiled, or the network is at hand to run it as it is."""
        return spelled(self._inputs(level)) in self._steps or self._network.is_restored

    def _batch(self, images: Images, size: int) -> torch.Tensor:
        """Images as many as `size`; those that are too few are followed by black ones."""
        batch = torch.zeros((size, *self._shape), dtype=torch.uint8)
        batch.numpy()[: len(images)] = images
        return batch

    def _close(self) -> None:
        close(self._steps)
