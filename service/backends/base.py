"""The interface of all backends: how one model runs on one runtime library.

A backend is made by a factory of `service.backends.registry`, is called by as many threads at once as its artefact
names engines, and raises nothing but BackendError.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.manifest import Manifest

Images = NDArray[np.uint8]
Outputs = dict[str, NDArray[Any]]
Kind = Literal["item", "batch", "oom", "fatal"]


class BackendError(Exception):
    """A run failed. `kind` says what may still work:

    `item`: all but the images at the indices `items`; `batch`: perhaps parts of the batch; `oom`: perhaps a smaller
    batch; `fatal`: nothing, the process has to end.
    """

    def __init__(self, kind: Kind, message: str, items: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.kind: Kind = kind
        self.items = tuple(items)


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """What a backend is made from: a model's manifest and the bytes of its graph, verified against it.

    `engines` is the number of threads that will call `run` at once, each computing on one CPU. `cache_dir` is where
    compiled forms may be kept, empty for nowhere. `fake_cost_ms` is for the backend `fake` alone: milliseconds per
    batch and per item that it sleeps.
    """

    manifest: Manifest
    graph: bytes
    engines: int = 1
    cache_dir: str = ""
    fake_cost_ms: tuple[float, float] = (0.0, 0.0)


class Backend(ABC):
    """One loaded model. `name` is the backend with its precision, such as `openvino/bf16`."""

    def __init__(self, name: str, manifest: Manifest) -> None:
        self.name = name
        self._shape = (manifest.transform.height, manifest.transform.width, 3)
        self._levels = {level.name for level in manifest.levels}
        self._closed = False

    def run(self, images: Images, level: str) -> Outputs:
        """Run uint8 images [B, H, W, 3], B >= 1, at one level of the manifest; the task's outputs by name.

        Safe to call from several threads. The outputs are the caller's own.
        """
        if self._closed:
            raise BackendError("fatal", "the backend is closed")
        if level not in self._levels:
            raise BackendError("batch", f"unknown level {level!r}; this model has {', '.join(sorted(self._levels))}")
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != self._shape or not len(images):
            raise BackendError("batch", f"expected uint8 [B, {', '.join(map(str, self._shape))}]")
        return self._run(np.ascontiguousarray(images), level)

    def close(self) -> None:
        """Give up the model; no thread may be running. A second call does nothing."""
        if not self._closed:
            self._closed = True
            self._close()

    @abstractmethod
    def _run(self, images: Images, level: str) -> Outputs: ...

    @abstractmethod
    def _close(self) -> None: ...


def error_from_library(error: Exception) -> BackendError:
    """A library's exception as ours: what the libraries say when memory is short is told from the rest."""
    text = str(error)
    short = ("bad_alloc", "bad allocation", "allocate memory", "out of memory", "can't allocate", "could not allocate")
    if isinstance(error, MemoryError) or any(sign in text.lower() for sign in short):
        return BackendError("oom", "out of memory")
    return BackendError("batch", text.strip().splitlines()[-1][:200] if text.strip() else type(error).__name__)
