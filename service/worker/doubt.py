"""Whose fault it is when batches fail: that of their images, or of a worker that can run nothing any more.

Images that fail one after another may all be bad. So when nothing has run for a while, the worker tries an image that
cannot be to blame; if that fails too, the worker has to go, and with it the state it is in.
"""

from __future__ import annotations

import time

import numpy as np

from service.backends.base import BackendError
from service.worker.guard import Guard
from service.worker.load import Model

BELIEVED = 0.5
"""Seconds for which a run that went well, or a trial, clears the worker: failing images must not cost it much."""


class Doubt:
    """One worker's. Engine threads share it; at worst two of them try at the same time."""

    def __init__(self) -> None:
        self._well: dict[str, float] = {}
        """When each model last ran well."""

    def passed(self, name: str) -> None:
        """A batch of this model has run."""
        self._well[name] = time.monotonic()

    def failed(self, name: str, model: Model, level: str, guard: Guard) -> None:
        """A batch has failed as a whole. Raises BackendError of kind `fatal` when the worker is to blame."""
        if time.monotonic() - self._well.get(name, 0.0) < BELIEVED:
            return
        transform, timing = model.manifest.transform, model.timing(level)
        if timing is not None:
            guard.run(timing, 1)
        try:
            model.backend.run(np.zeros((1, transform.height, transform.width, 3), np.uint8), level)
        except Exception as error:
            raise BackendError("fatal", f"an empty image fails too: {error}") from error
        self.passed(name)
