"""ONNX Runtime on a device: fixed buffers, captured graphs, and nothing left to the CPU.

Each named level and batch size is a session of its own, on the model's graph with the level written into it
(`graph.py`) and the batch fixed: then no branch is left and no arithmetic on shapes, so that all of it can be captured.
CUDA captures a graph for each place of the pipeline, with buffers that stay where they are; a replay is one call. The
price is memory: each session holds the weights. Other levels run on the graph that takes any, uncaptured, and slower.

With the device `cpu` the same is done with ONNX Runtime's CPU provider. Nobody would serve that: it is how all this is
tested where there is no GPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.backends import graph, nvidia, placement
from service.backends.base import Artefact, Backend, BackendError, Images, Inputs, Outputs
from service.backends.failure import error_from_library
from service.backends.pipeline import BUCKETS, Device, Pipeline

SKIP = -1
"""The number of a run that captures nothing and replays nothing."""
_CAPTURED_AFTER = 3
"""Runs after which a graph has been captured: the library lets memory settle first."""

Provider = tuple[str, dict[str, str]]


@dataclass(frozen=True, slots=True)
class Place:
    """Buffers on the device for one batch, and the run that reads and writes them."""

    session: Any
    binding: Any
    images: Any
    outputs: dict[str, Any]
    options: Any


class Sessions:
    """Makes sessions of one model on one provider; `kind` and `index` name the device (`cuda`, 0). A subclass says
    where compiled forms are kept."""

    def __init__(self, library: Any, artefact: Artefact, provider: Provider) -> None:
        self.library = library
        self.artefact = artefact
        self.provider = provider
        self.kind, self.index = place_of(artefact.device)

    def open(self, inputs: Inputs, size: int) -> Any:
        """A session for one level and batch size, none of whose nodes runs on the CPU. Raises BackendError."""
        options = self.options()
        try:
            contents = graph.with_level(self.artefact.graph, inputs)
            for name in graph.free_dimensions(contents):
                options.add_free_dimension_override_by_name(name, size)
        except graph.GraphError as error:
            raise BackendError("batch", str(error)) from None
        session = self.start(contents, options, size)
        problem = placement.fallen_back(nodes(session)) if self.kind != "cpu" else ""
        if problem:
            raise BackendError("batch", problem)
        return session

    def start(self, contents: bytes, options: Any, size: int) -> Any:
        """Give a graph to the library."""
        return self.session(contents, options, self.provider)

    def any_level(self) -> Any:
        """A session for the graph that takes its level as an input. Raises BackendError."""
        name, given = self.provider
        plain = {key: value for key, value in given.items() if key != "enable_cuda_graph"}
        return self.session(self.artefact.graph, self.options(), (name, plain))

    def session(self, contents: bytes | str, options: Any, provider: Provider) -> Any:
        """A session for a graph, or for the file that holds it, on this provider. Raises BackendError."""
        try:
            session = self.library.InferenceSession(contents, options, providers=[provider])
        except Exception as error:  # the library's own classes derive from Exception only
            raise error_from_library(error) from error
        wanted = provider[0]
        if session.get_providers()[0] != wanted:
            # It would go on with the CPU, and say so to stdout alone.
            raise BackendError("batch", f"ONNX Runtime could not start its {wanted}")
        session.disable_fallback()
        return session

    def options(self) -> Any:
        """Those that every session has."""
        options = self.library.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = self.kind != "cpu"
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        return options


def nodes(session: Any) -> list[placement.Node]:
    """Which provider runs which node of a session that recorded it."""
    return [
        placement.Node(part.ep_name, node.op_type, node.name)
        for part in session.get_provider_graph_assignment_info()
        for node in part.get_nodes()
    ]


def place_of(device: str) -> tuple[str, int]:
    """`cuda:1` as (cuda, 1)."""
    kind, _, number = device.partition(":")
    return kind, int(number or 0)


class Bound(Device[Place]):
    """A device as ONNX Runtime drives it."""

    def __init__(self, sessions: Sessions, shape: tuple[int, int, int]) -> None:
        self._sessions = sessions
        self._shape = shape
        self._opened: dict[str, Any] = {}
        self._number = 0

    def place(self, inputs: Inputs, size: int) -> Place:
        """Buffers for a batch of `size`, and everything captured."""
        try:
            return self._made(inputs, size)
        except BackendError:
            raise
        except Exception as error:
            raise error_from_library(error) from error

    def _made(self, inputs: Inputs, size: int) -> Place:
        session = self._session(inputs, size)
        library, kind, index = self._sessions.library, self._sessions.kind, self._sessions.index
        value = library.OrtValue.ortvalue_from_shape_and_type
        images = value([size, *self._shape], np.uint8, kind, index)
        images.update_inplace(np.zeros((size, *self._shape), np.uint8))
        names = [output.name for output in session.get_outputs()]
        # What shapes the outputs have is known once they are there.
        first = session.io_binding()
        first.bind_ortvalue_input("images", images)
        for name in names:
            first.bind_output(name, kind, index)
        session.run_with_iobinding(first, self._run_options(SKIP))
        found = dict(zip(names, first.get_outputs(), strict=True))
        outputs = {name: value(one.shape(), one.element_type(), kind, index) for name, one in found.items()}
        binding = session.io_binding()
        binding.bind_ortvalue_input("images", images)
        for name, one in outputs.items():
            binding.bind_ortvalue_output(name, one)
        self._number += 1
        place = Place(session, binding, images, outputs, self._run_options(self._number))
        for _ in range(_CAPTURED_AFTER if kind != "cpu" else 1):
            self.compute(place)
        return place

    def _session(self, inputs: Inputs, size: int) -> Any:
        """The one for this level and size, which all its places share."""
        key = f"{size} {sorted((name, value.tolist()) for name, value in inputs.items())}"
        if key not in self._opened:
            self._opened[key] = self._sessions.open(inputs, size)
        return self._opened[key]

    def _run_options(self, number: int) -> Any:
        options = self._sessions.library.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(number))
        return options

    def upload(self, place: Place, images: Images) -> None:
        """Into the place's own buffer: what is captured reads it there."""
        try:
            place.images.update_inplace(images)
        except Exception as error:
            raise error_from_library(error) from error

    def compute(self, place: Place) -> None:
        """Replay; returns when the outputs are there."""
        try:
            place.session.run_with_iobinding(place.binding, place.options)
        except Exception as error:
            raise error_from_library(error) from error

    def download(self, place: Place, items: int) -> Outputs:
        """Copies: the buffers are written again by the next batch."""
        try:
            return {name: np.array(one.numpy()[:items]) for name, one in place.outputs.items()}
        except Exception as error:
            raise error_from_library(error) from error

    def pin(self, memory: Images) -> None:
        """Where the driver will not, uploads are slower and otherwise the same."""
        driver = nvidia.driver() if self._sessions.kind == "cuda" else None
        if driver is not None:
            with contextlib.suppress(OSError):
                driver.pin(self._sessions.index, memory)

    def close(self) -> None:
        """Drop the sessions, and with them what was captured."""
        self._opened.clear()


class OnDevice(Backend):
    """A model on a device: named levels through the pipeline, others one at a time."""

    pipelined = True
    sizes = BUCKETS

    def __init__(self, name: str, artefact: Artefact, sessions: Sessions) -> None:
        super().__init__(name, artefact.manifest)
        self._sessions = sessions
        self._pipeline = Pipeline(Bound(sessions, self._shape), self._shape)
        self._known = [self._inputs(level.name) for level in artefact.manifest.levels]
        self._general: Any = None
        try:
            self._pipeline.prepare(self._known[0], BUCKETS[0])
        except Exception:
            self.close()
            raise

    def staging(self, items: int) -> Images:
        """Memory that is quick to upload."""
        return self._pipeline.staging(items) if items <= BUCKETS[-1] else super().staging(items)

    def seconds(self, wall: float) -> float:
        """What the device computed."""
        return self._pipeline.seconds()

    def prepared(self, level: str) -> bool:
        """Whether its graph has been captured."""
        inputs = self._inputs(level)
        return self._pipeline.prepared(inputs) if self._named_level(inputs) else self._general is not None

    def _run(self, images: Images, inputs: Inputs, wide: bool) -> Outputs:
        if self._named_level(inputs):
            return self._pipeline.run(images, inputs)
        return self._any_level(images, inputs)

    def _named_level(self, inputs: Inputs) -> bool:
        return any(_same(inputs, known) for known in self._known)

    def _any_level(self, images: Images, inputs: Inputs) -> Outputs:
        outputs: Outputs = {}
        self._pipeline.begin()

        def step() -> None:
            if self._general is None:
                self._general = self._sessions.any_level()
            names = [output.name for output in self._general.get_outputs()]
            try:
                values = self._general.run(names, {"images": images, **inputs})
            except Exception as error:
                raise error_from_library(error) from error
            outputs.update(zip(names, values, strict=True))

        self._pipeline.on_thread(step)
        return outputs

    def _close(self) -> None:
        self._general = None
        self._pipeline.close()


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def load(library: Any, artefact: Artefact, precision: str) -> Backend:
    """A model on ONNX Runtime's CUDA provider, or on its CPU provider for the device `cpu`.

    `precision` is `f32`, or `tf32`: products of float32 with the 10 bits of mantissa that tensor cores take.
    """
    kind, index = place_of(artefact.device)
    if kind == "cpu":
        provider: Provider = ("CPUExecutionProvider", {})
    else:
        if "CUDAExecutionProvider" not in library.get_available_providers():
            raise BackendError("batch", "this ONNX Runtime is the build for CPUs (see docs/gpu.md)")
        with contextlib.suppress(Exception):  # what is missing still is said when the session starts
            library.preload_dlls()
        provider = (
            "CUDAExecutionProvider",
            {
                "device_id": str(index),
                "enable_cuda_graph": "1",
                "use_tf32": "1" if precision == "tf32" else "0",
                "arena_extend_strategy": "kSameAsRequested",
            },
        )
    sessions = Sessions(library, artefact, provider)
    return OnDevice(f"onnxruntime/cuda-{precision}", artefact, sessions)
