"""TensorRT, as a provider of ONNX Runtime.

An engine is built for each level and batch size, which takes minutes, so it is kept in the store of artefacts under all
that it depends on: the graph with its level, the size, both libraries, the driver and the GPU. Beside the engine that
is the graph in which it takes the place of its nodes: that one is loaded, and nothing of TensorRT's parser or builder
is needed for it. The times of kernels that were tried are kept for the next engine, in a file that TensorRT checks.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service import log
from service.backends import nvidia
from service.backends.base import Artefact, Backend, BackendError
from service.backends.cuda import OnDevice, Provider, Sessions, place_of
from service.backends.onnxruntime import library
from service.backends.store import Store, StoreError

PROVIDER = "TensorrtExecutionProvider"
CONTEXT = "context.onnx"
LIBRARIES = ("libnvinfer.so.11", "libnvinfer.so.10")
"""Whatever version of ONNX Runtime is installed wants one of these; which one it says itself, when it is not there."""


def load(artefact: Artefact, precision: str) -> Backend:
    """The factory; imports ONNX Runtime. `precision` is `f32`: TensorRT takes it from the graph."""
    onnxruntime = library()
    problem = unusable(onnxruntime.get_available_providers(), artefact.device)
    if problem:
        raise BackendError("batch", problem)
    with contextlib.suppress(Exception):  # what is missing still is said when the session starts
        onnxruntime.preload_dlls()
    return OnDevice(f"tensorrt/{precision}", artefact, Engines(onnxruntime, artefact))


def unusable(providers: list[str], device: str, there: Callable[[str], bool] | None = None) -> str:
    """Why TensorRT cannot be used, in a line that says what to do about it; empty when it can."""
    if PROVIDER not in providers:
        return "TensorRT needs ONNX Runtime's GPU build; this is the one for CPUs (requirements/serve-gpu.lock has it)"
    if place_of(device)[0] != "cuda":
        return "TensorRT needs a GPU: --devices cuda:0"
    if not any((there or _loads)(name) for name in LIBRARIES):
        return (
            f"TensorRT's libraries are missing ({' or '.join(LIBRARIES)}): install the extra `tensorrt`, or put the "
            "directory that has them into LD_LIBRARY_PATH"
        )
    return ""


def _loads(name: str) -> bool:
    with contextlib.suppress(OSError):
        ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
        return True
    with contextlib.suppress(ImportError):
        # The wheel that holds them loads them when it is imported.
        import tensorrt

        return bool(tensorrt.__version__)
    return False


class Engines(Sessions):
    """Sessions of TensorRT, one for each level and batch size, from engines that are kept."""

    def __init__(self, onnxruntime: Any, artefact: Artefact) -> None:
        _, index = place_of(artefact.device)
        plain: Provider = (PROVIDER, {"device_id": str(index)})
        super().__init__(onnxruntime, artefact, plain)
        root = Path(artefact.cache_dir) / "artefacts" if artefact.cache_dir else None
        self._store = Store(root, report=_report) if root else None
        self._device = next((one for one in nvidia.devices() if one.index == index), None)

    def start(self, contents: bytes, options: Any, size: int) -> Any:
        """From the engine that is kept, or by building it."""
        if self._store is None:
            return self.session(contents, options, self._with(trt_cuda_graph_enable="1"))
        try:
            kept = self._store.get(self.key(contents, size), lambda path: self._build(contents, options, size, path))
        except StoreError as error:
            raise BackendError("batch", str(error)) from None
        given = self._with(trt_cuda_graph_enable="1", trt_engine_cache_enable="1", trt_engine_cache_path=str(kept))
        return self.session(str(kept / CONTEXT), self.options(), given)

    def key(self, contents: bytes, size: int) -> dict[str, str]:
        """All that an engine depends on."""
        device = self._device
        return {
            "kind": "tensorrt engine",
            "graph": hashlib.sha256(contents).hexdigest(),
            "batch": str(size),
            "onnxruntime": str(self.library.__version__),
            "tensorrt": _version(),
            "driver": device.driver if device else "",
            "gpu": f"{device.name}, compute {device.capability}" if device else "",
        }

    def _build(self, contents: bytes, options: Any, size: int, path: Path) -> None:
        log.event("engine_building", model=self.artefact.manifest.name, batch=size)
        timing = Path(self.artefact.cache_dir) / "tensorrt-timing"
        timing.mkdir(mode=0o700, exist_ok=True)
        given = self._with(
            trt_engine_cache_enable="1",
            trt_engine_cache_path=str(path),
            trt_timing_cache_enable="1",
            trt_timing_cache_path=str(timing),
            trt_dump_ep_context_model="1",
            trt_ep_context_file_path=str(path / CONTEXT),
            trt_ep_context_embed_mode="0",
        )
        self.session(contents, options, given)
        if not (path / CONTEXT).is_file():
            raise BackendError("batch", "TensorRT left no engine behind")

    def _with(self, **given: str) -> Provider:
        name, plain = self.provider
        return name, {**plain, **given}


def _version() -> str:
    """TensorRT's version, as its own library says it."""
    for name in LIBRARIES:
        with contextlib.suppress(OSError, AttributeError):
            return str(ctypes.CDLL(name).getInferLibVersion())
    return ""


def _report(line: str) -> None:
    log.event("artefact_refused", severity="warning", reason=line)
