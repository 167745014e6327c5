"""ONNX Runtime: on the CPU in here, on a GPU in `cuda.py`.

One session serves all engine threads: `run` releases the interpreter lock and may be called concurrently. Each call
computes on its caller's thread alone, without a spinning pool, so that inference takes no CPU from decoding. The
memory arena is off: it keeps the largest batch's memory for ever, and was measured to gain nothing.

For wide runs the session has a pool of one thread less than there are engines. A wide run is done by its caller's
thread with the help of the pool; any other one by one thread of the pool from beginning to end. So the pool helps a
wide run for as long as its threads have no runs of their own: it gives up CPUs the moment that others come.
"""

from __future__ import annotations

import threading
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
    options.intra_op_num_threads = artefact.engines if artefact.wide else 1
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
    return OnnxRuntime(f"onnxruntime/{precision}", artefact, session, options.intra_op_num_threads - 1)


class OnnxRuntime(Backend):
    """A session of ONNX Runtime whose pool has `pool` threads."""

    def __init__(self, name: str, artefact: Artefact, session: Any, pool: int) -> None:
        super().__init__(name, artefact.manifest)
        self._session = session
        self._names = [output.name for output in session.get_outputs()]
        self._pool = threading.Semaphore(pool)
        """How many of its threads have no run of their own."""

    def _run(self, images: Images, inputs: Inputs, wide: bool) -> Outputs:
        feeds = {"images": images, **inputs}
        pooled = not wide and self._pool.acquire(blocking=False)
        try:
            values = self._by_pool(feeds) if pooled else self._session.run(self._names, feeds)
        except Exception as error:
            raise error_from_library(error) from error
        finally:
            if pooled:
                self._pool.release()
        return dict(zip(self._names, values, strict=True))

    def _by_pool(self, feeds: dict[str, Any]) -> list[Any]:
        """The run of one thread of the pool, which this one waits for."""
        done = threading.Event()
        answer: list[tuple[list[Any], str]] = []

        def finished(values: list[Any], _: object, problem: str) -> None:
            answer.append((values, problem))
            done.set()

        self._session.run_async(self._names, feeds, finished, None)
        done.wait()
        values, problem = answer[0]
        if problem:
            raise RuntimeError(problem)
        return values

    def _close(self) -> None:
        self._session = None
