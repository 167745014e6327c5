"""OpenVINO on the CPU, computing in float32 or, where the CPU has it, in bfloat16.

One stream and one infer request per engine thread, so that each run computes on one CPU. Runs are never wide: that
takes a stream of another kind, which is the graph compiled once more, and was measured to take two thirds more memory.

What the compiler made of a graph is kept in the cache directory under a name that depends on the graph, the library and
the CPU, and mapped from there: that skips the ONNX reader, and weights of which the library has made packed copies take
no memory.

Every step that a level may leave out costs memory and time even when it is left out. So the graph is compiled with
only those steps open in which the named levels differ; a graph with all of them is compiled when an explicit level
first needs it.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import queue
import sys
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from service.backends import cache
from service.backends.base import Artefact, Backend, BackendError, Images, Inputs, Outputs
from service.backends.failure import error_from_library


def load(artefact: Artefact, precision: str) -> Backend:
    """The factory; imports the library."""
    openvino = _import()
    # The binding makes its tables of types when they are first used; two threads that do so at once block each other
    # for ever.
    np.array(openvino.Tensor(np.zeros(1, np.uint8)).data)
    properties = {
        "INFERENCE_PRECISION_HINT": precision,
        "NUM_STREAMS": artefact.engines,
        "INFERENCE_NUM_THREADS": artefact.engines,
        "ENABLE_CPU_PINNING": False,  # the decoders and the gateway run on these CPUs too
        "ENABLE_HYPER_THREADING": True,  # how many CPUs to use is the operator's choice
        # Kernels of fused small operations took 4 MB per stream and model, and gained at most 2 % of the time.
        "SNIPPETS_MODE": "DISABLE",
    }
    return OpenVino(f"openvino/{precision}", artefact, openvino, properties)


def _import() -> Any:
    """The library without its model converter, which takes longer to import than all the rest and brings telemetry
    with it. The library allows for its absence."""
    converter = "openvino.tools.ovc"
    absent = converter not in sys.modules
    if absent:
        sys.modules[converter] = None  # type: ignore[assignment]
    try:
        import openvino
    finally:
        if absent:
            del sys.modules[converter]
    return openvino


Fixed = dict[str, dict[int, int]]
"""By level input: the values that are constants in a compiled graph, by position."""


def fixed(levels: Sequence[Inputs]) -> Fixed:
    """The values that all these levels, at least one, share."""
    first = levels[0]
    return {
        name: {place: int(value) for place, value in enumerate(values) if all(x[name][place] == value for x in levels)}
        for name, values in first.items()
    }


def _fix(openvino: Any, model: Any, values: Fixed) -> None:
    """Put constants in the place of level inputs; the library then folds the branches away that they decide."""
    for parameter in model.get_parameters():
        known = values.get(parameter.get_friendly_name(), {})
        for reader in [port.get_node() for port in parameter.output(0).get_target_inputs()] if known else ():
            # Each step reads its own element: a slice from a constant place.
            place = int(reader.input_value(1).get_node().get_data()[0])
            if place in known:
                constant = openvino.op.Constant(np.array([known[place]], np.int64))
                reader.output(0).replace(constant.output(0))


def _compile(
    openvino: Any, artefact: Artefact, properties: dict[str, Any], values: Fixed
) -> tuple[Any, cache.Mapped | None]:
    """The compiled model, and the file it reads weights from, if there is one."""
    core = openvino.Core()
    model, flags = cache.cpu()
    parts = (
        artefact.graph,
        openvino.get_version(),
        repr(sorted(properties.items())),
        repr(values),
        model,
        " ".join(sorted(flags)),
    )
    name = f"openvino-{cache.key(*parts)}.blob"

    def kept() -> tuple[Any, cache.Mapped] | None:
        blob = cache.mapped(artefact.cache_dir, name)
        if blob is not None:
            with contextlib.suppress(Exception):  # a blob that this build refuses is compiled anew
                return core.import_model(_tensor(openvino, blob), "CPU", properties), blob
        return None

    found = kept()
    if found is not None:
        return found
    graph = core.read_model(artefact.graph, b"")
    _fix(openvino, graph, values)
    compiled = core.compile_model(graph, "CPU", properties)
    if artefact.cache_dir:
        exported = compiled.export_model()
        cache.write(artefact.cache_dir, name, exported.getvalue() if isinstance(exported, io.BytesIO) else exported)
    # What was compiled holds weights of its own.
    return kept() or (compiled, None)


def _tensor(openvino: Any, blob: cache.Mapped) -> Any:
    """The library's view of a blob, made from its address, since it takes no array that cannot be written."""
    address = np.frombuffer(blob.contents, np.uint8).ctypes.data
    array = np.ctypeslib.as_array((ctypes.c_uint8 * blob.contents.nbytes).from_address(address))
    return openvino.Tensor(array, shared_memory=True)


_Form = tuple[int, bytes]


def _form(inputs: dict[str, Any]) -> _Form:
    """What decides the sizes of everything in a run: the batch, and the level."""
    return len(inputs["images"]), b";".join(inputs[name].tobytes() for name in sorted(inputs) if name != "images")


class _Compiled:
    """A compiled model with one infer request per engine."""

    def __init__(self, openvino: Any, artefact: Artefact, properties: dict[str, Any], values: Fixed) -> None:
        try:
            self._model, self._blob = _compile(openvino, artefact, properties, values)
        except Exception as error:  # the library raises RuntimeError and its own classes
            raise error_from_library(error) from error
        # An output has the names of what was folded into it, too; the first part of this one is the graph's.
        self._names = [output.get_node().get_friendly_name().partition("/")[0] for output in self._model.outputs]
        self._requests: queue.SimpleQueue[tuple[Any, set[_Form]]] = queue.SimpleQueue()
        for _ in range(artefact.engines):
            self._requests.put((self._model.create_infer_request(), set()))

    def run(self, inputs: dict[str, Any]) -> Outputs:
        found = self._requests.get()
        request, known = found
        form = _form(inputs)
        try:
            request.infer(inputs, share_inputs=True)
            if form not in known and len(inputs) > 1:
                # Where steps may be left out, a run for which the library's memory grows may answer wrong, even what
                # is no number (seen with 2026.4.1: 26 of 192 first runs, no later ones; tests/models/test_timm_graph).
                request.infer(inputs, share_inputs=True)
                known.add(form)
            # The request's own memory is written again by its next run, so the outputs are copied.
            return {name: np.array(request.get_output_tensor(i).data) for i, name in enumerate(self._names)}
        except Exception as error:
            raise error_from_library(error) from error
        finally:
            self._requests.put(found)

    def settle(self) -> None:
        """Let the file's pages go."""
        if self._blob is not None:
            self._blob.forget()


class OpenVino(Backend):
    """A graph compiled for the named levels, and one for all others once there is a need."""

    def __init__(self, name: str, artefact: Artefact, openvino: Any, properties: dict[str, Any]) -> None:
        super().__init__(name, artefact.manifest)
        self._fixed = fixed([self._inputs(level.name) for level in artefact.manifest.levels])
        self._parts = (openvino, artefact, properties)
        self._compiled: _Compiled | None = _Compiled(*self._parts, self._fixed)
        self._open: _Compiled | None = None
        self._opening = threading.Lock()

    def _run(self, images: Images, inputs: Inputs, wide: bool) -> Outputs:
        compiled = self._compiled if self._fits(inputs) else self._with_every_step()
        if compiled is None:
            raise BackendError("fatal", "the backend is closed")
        return compiled.run({"images": images, **inputs})

    def prepared(self, level: str) -> bool:
        """Whether the graph that the level needs is compiled."""
        return self._open is not None or self._fits(self._inputs(level))

    def _fits(self, inputs: Inputs) -> bool:
        return all(
            inputs[name][place] == value for name, known in self._fixed.items() for place, value in known.items()
        )

    def _with_every_step(self) -> _Compiled:
        with self._opening:
            if self._open is None:
                self._open = _Compiled(*self._parts, {})
                self._open.settle()
            return self._open

    def settle(self) -> None:
        """Let the files' pages go."""
        if self._compiled is not None:
            self._compiled.settle()

    def _close(self) -> None:
        self._compiled = self._open = None
