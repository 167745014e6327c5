"""ONNX Runtime: on the CPU in here, on a GPU in `cuda.py`.

One session serves all engine threads: `run` releases the interpreter lock and may be called concurrently. Each call
computes on its caller's thread alone, without a spinning pool, so that inference takes no CPU from decoding. The
memory arena is off: it keeps the largest batch's memory for ever, and was measured to gain nothing.
"""

from __future__ import annotations

from typing import Any

from service.backends import cuda
from service.backends.base import Artefact, Backend, Images, Inputs, Outputs
from service.backends.failure import error_from_library


def library() -> Any:
    """ONNX Runtime, which is imported here alone."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    onnxruntime.set_default_logger_severity(3)
    return onnxruntime


def load(artefact: Artefact, precision: str) -> Backend:
    """The factory; imports the library."""
    onnxruntime = library()
    device, _, own = precision.rpartition("-")
    if device == "cuda":
        return cuda.load(onnxruntime, artefact, own)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(artefact.graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library's own classes derive from Exception only
        raise error_from_library(error) from error
    return OnnxRuntime(f"onnxruntime/{precision}", artefact, session)


class OnnxRuntime(Backend):
    """A session of ONNX Runtime."""

    def __init__(self, name: str, artefact: Artefact, session: Any) -> None:
        super().__init__(name, artefact.manifest)
        self._session = session
        self._names = [output.name for output in session.get_outputs()]

    def _run(self, images: Images, inputs: Inputs) -> Outputs:
        try:
            values = self._session.run(self._names, {"images": images, **inputs})
        except Exception as error:
            raise error_from_library(error) from error
        return dict(zip(self._names, values, strict=True))

    def _close(self) -> None:
        self._session = None
