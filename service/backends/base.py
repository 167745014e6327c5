"""The interface of all backends: how one model runs on one runtime library.

A backend is made by a factory of `service.backends.registry`, is called by as many threads at once as its artefact
names engines, and raises nothing but BackendError.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.levels import LevelError, plan
from models.manifest import Manifest

Images = NDArray[np.uint8]
Outputs = dict[str, NDArray[Any]]
Inputs = dict[str, NDArray[np.int64]]
Kind = Literal["item", "batch", "oom", "fatal"]


class BackendError(Exception):
    """A run failed. `kind` says what may still work: with `item` all but the images at the indices `items`, with
    `batch` perhaps parts of it, with `oom` perhaps a smaller batch, with `fatal` nothing, the process has to end.
    """

    def __init__(self, kind: Kind, message: str, items: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.kind: Kind = kind
        self.items = tuple(items)


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """What a backend is made from: a model's manifest and the bytes of its graph, verified against it.

    `engines` threads will call `run` at once, each computing on one CPU, or all on `device` (`cuda:0`). `cache_dir` is
    where compiled forms may be kept, empty for nowhere. `wide`: a batch may be run on the CPUs of idle engines, too,
    where the backend knows how. `fake_cost_ms` is for `fake` alone: milliseconds per batch and per item that it sleeps.
    """

    manifest: Manifest
    graph: bytes
    engines: int = 1
    cache_dir: str = ""
    device: str = "cpu"
    wide: bool = False
    fake_cost_ms: tuple[float, float] = (0.0, 0.0)


class Backend(ABC):
    """One loaded model. `name` is the backend with its precision, such as `openvino/bf16`.

    With `pipelined`, several callers do not compute side by side but follow one another closely on one device, in
    batches of `sizes`, smallest first: one that has fewer images is filled up to the next.
    """

    pipelined = False
    sizes: Sequence[int] = ()

    def __init__(self, name: str, manifest: Manifest) -> None:
        self.name = name
        self._shape = (manifest.transform.height, manifest.transform.width, 3)
        self._named = {level.name: level.explicit for level in manifest.levels}
        self._trunk = manifest.trunk
        self._inputs = lru_cache(256)(self._worked_out)
        self._closed = False

    def run(self, images: Images, level: str, *, wide: bool = False) -> Outputs:
        """Run uint8 images [B, H, W, 3], B >= 1, at a level of the manifest or an explicit one: outputs by name.

        Safe to call from several threads. The outputs are the caller's own. A `wide` run uses the CPUs of idle engines
        as well, if the backend was made for that.
        """
        if self._closed:
            raise BackendError("fatal", "the backend is closed")
        inputs = self._inputs(level)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != self._shape or not len(images):
            raise BackendError("batch", f"expected uint8 [B, {', '.join(map(str, self._shape))}]")
        return self._run(np.ascontiguousarray(images), inputs, wide)

    def _worked_out(self, level: str) -> Inputs:
        """The graph's integer inputs for a level; none for a model without levels."""
        if self._trunk is None and level in self._named:
            return {}
        try:
            found = plan(self._named.get(level, level), self._trunk)
        except LevelError:
            raise BackendError("batch", f"unknown level {level!r}; this model has {', '.join(self._named)}") from None
        return {name: np.array(values, np.int64) for name, values in found.inputs.items()}

    def staging(self, items: int) -> Images:
        """Where the calling thread best puts a batch [items, H, W, 3] together before it runs it. It may be what the
        thread was given before."""
        return np.empty((items, *self._shape), np.uint8)

    def seconds(self, wall: float) -> float:
        """Of the calling thread's last run, which took `wall` seconds, those without waiting for other runs."""
        return wall

    def prepared(self, level: str) -> bool:
        """Whether a run at this level, which the model has, can begin at once; otherwise the first one compiles."""
        return True

    def settle(self) -> None:  # noqa: B027 - most have nothing to do
        """Give back what only loading and first runs needed."""

    def close(self) -> None:
        """Give up the model; no thread may be running. A second call does nothing."""
        if not self._closed:
            self._closed = True
            self._close()

    @abstractmethod
    def _run(self, images: Images, inputs: Inputs, wide: bool) -> Outputs: ...

    @abstractmethod
    def _close(self) -> None: ...
