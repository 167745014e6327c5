"""OpenVINO on the CPU, computing in float32 or, where the CPU has it, in bfloat16.

One stream and one infer request per engine thread, so that each run computes on one CPU. What the compiler made of a
graph is kept in the cache directory under a name that depends on the graph, the library and the CPU; reading it back
skips the ONNX reader.
"""

from __future__ import annotations

import io
import queue
import sys
from typing import Any

import numpy as np

from service.backends import cache
from service.backends.base import Artefact, Backend, Images, Outputs, error_from_library


def load(artefact: Artefact, precision: str) -> Backend:
    """The factory; imports the library."""
    openvino = _import()
    properties = {
        "INFERENCE_PRECISION_HINT": precision,
        "NUM_STREAMS": artefact.engines,
        "INFERENCE_NUM_THREADS": artefact.engines,
        "ENABLE_CPU_PINNING": False,  # the decoders and the gateway run on these CPUs too
        "ENABLE_HYPER_THREADING": True,  # how many CPUs to use is the operator's choice
    }
    try:
        compiled = _compile(openvino, artefact, properties)
    except Exception as error:  # the library raises RuntimeError and its own classes
        raise error_from_library(error) from error
    return OpenVino(f"openvino/{precision}", artefact, compiled)


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


def _compile(openvino: Any, artefact: Artefact, properties: dict[str, Any]) -> Any:
    core = openvino.Core()
    model, flags = cache.cpu()
    parts = (artefact.graph, openvino.get_version(), repr(sorted(properties.items())), model, " ".join(sorted(flags)))
    name = f"openvino-{cache.key(*parts)}.blob"
    blob = cache.read(artefact.cache_dir, name)
    if blob is not None:
        try:
            return core.import_model(blob, "CPU", properties)
        except Exception:  # a blob that this build refuses is compiled anew
            blob = None
    compiled = core.compile_model(core.read_model(artefact.graph, b""), "CPU", properties)
    if artefact.cache_dir:
        exported = compiled.export_model()
        cache.write(artefact.cache_dir, name, exported.getvalue() if isinstance(exported, io.BytesIO) else exported)
    return compiled


class OpenVino(Backend):
    """A compiled model with one infer request per engine."""

    def __init__(self, name: str, artefact: Artefact, compiled: Any) -> None:
        super().__init__(name, artefact.manifest)
        self._compiled = compiled
        self._names = [output.get_any_name() for output in compiled.outputs]
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(artefact.engines):
            self._requests.put(compiled.create_infer_request())

    def _run(self, images: Images, level: str) -> Outputs:
        request = self._requests.get()
        try:
            request.infer({"images": images}, share_inputs=True)
            # The request's own memory is written again by its next run, so the outputs are copied.
            return {name: np.array(request.get_output_tensor(i).data) for i, name in enumerate(self._names)}
        except Exception as error:
            raise error_from_library(error) from error
        finally:
            self._requests.put(request)

    def _close(self) -> None:
        while not self._requests.empty():
            self._requests.get()
        self._compiled = None
