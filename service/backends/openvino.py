"""OpenVINO on the CPU, computing in float32 or, where the CPU has it, in bfloat16.

One stream and one infer request per engine thread, so that each run computes on one CPU. What the compiler made of a
graph is kept in the cache directory under a name that depends on the graph, the library and the CPU, and mapped from
there: that skips the ONNX reader, and weights of which the library has made packed copies take no memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import queue
import sys
from typing import Any

import numpy as np

from service.backends import cache
from service.backends.base import Artefact, Backend, Images, Inputs, Outputs
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
    try:
        compiled, blob = _compile(openvino, artefact, properties)
    except Exception as error:  # the library raises RuntimeError and its own classes
        raise error_from_library(error) from error
    return OpenVino(f"openvino/{precision}", artefact, compiled, blob)


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


def _compile(openvino: Any, artefact: Artefact, properties: dict[str, Any]) -> tuple[Any, cache.Mapped | None]:
    """The compiled model, and the file it reads weights from, if there is one."""
    core = openvino.Core()
    model, flags = cache.cpu()
    parts = (artefact.graph, openvino.get_version(), repr(sorted(properties.items())), model, " ".join(sorted(flags)))
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
    compiled = core.compile_model(core.read_model(artefact.graph, b""), "CPU", properties)
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


class OpenVino(Backend):
    """A compiled model with one infer request per engine."""

    def __init__(self, name: str, artefact: Artefact, compiled: Any, blob: cache.Mapped | None) -> None:
        super().__init__(name, artefact.manifest)
        self._compiled = compiled
        self._blob = blob
        self._names = [output.get_any_name() for output in compiled.outputs]
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(artefact.engines):
            self._requests.put(compiled.create_infer_request())

    def _run(self, images: Images, inputs: Inputs) -> Outputs:
        request = self._requests.get()
        try:
            request.infer({"images": images, **inputs}, share_inputs=True)
            # The request's own memory is written again by its next run, so the outputs are copied.
            return {name: np.array(request.get_output_tensor(i).data) for i, name in enumerate(self._names)}
        except Exception as error:
            raise error_from_library(error) from error
        finally:
            self._requests.put(request)

    def settle(self) -> None:
        """Let the file's pages go."""
        if self._blob is not None:
            self._blob.forget()

    def _close(self) -> None:
        while not self._requests.empty():
            self._requests.get()
        self._compiled = self._blob = None
