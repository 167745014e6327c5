"""Models that come and go while the worker serves: one thread of its own, one after the other.

What could crash is tried in another process first; see `load`. The thread shares the interpreter with the engines, and
what it does there, reading a graph and warming it up, is short beside that trial.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from models.manifest import ManifestError
from service import log
from service.config import Config
from service.errors import ConfigError
from service.wire.messages.control import Unit
from service.wire.messages.worker import Load, LoadDone, LoadFailed, Unload, Unloaded
from service.worker.load import give_back_memory, load
from service.worker.shelf import Shelf

Told = LoadDone | LoadFailed | Unloaded


class Loader:
    """Carries out Load and Unload. `tell` says what came of it to whoever dispatches then: one that has not
    asked finds out that way what this worker has."""

    def __init__(
        self, config: Config, device: str, slot_bytes: int, shelf: Shelf, tell: Callable[[Told], None]
    ) -> None:
        self._config = config
        self._device = device
        self._slot_bytes = slot_bytes
        self._shelf = shelf
        self._tell = tell
        self._tasks: queue.SimpleQueue[Load | Unload] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="loader", daemon=True).start()

    def add(self, task: Load | Unload) -> None:
        """Have it done when what was asked before is."""
        self._tasks.put(task)

    def _work(self) -> None:
        while True:
            task = self._tasks.get()
            if isinstance(task, Load):
                self._tell(self._load(task.unit))
            else:
                self._unload(task.key)
                self._tell(Unloaded(task.key))

    def _load(self, unit: Unit) -> LoadDone | LoadFailed:
        model = self._shelf.get(unit.key)
        if model is not None:
            return LoadDone(model.loaded())
        like = next((one for one in reversed(self._shelf.all()) if one.manifest.name == unit.model), None)
        try:
            model = load(
                self._config, unit, self._slot_bytes, lambda: None, serving=True, like=like, device=self._device
            )
        except (ConfigError, ManifestError) as error:
            return LoadFailed(unit.key, str(error))
        except Exception as error:  # whatever a new model brings about, those that serve go on serving
            log.event("bug", severity="error", model=unit.model, trace=log.frames(error))
            return LoadFailed(unit.key, f"{type(error).__name__} while loading it")
        self._shelf.put(model)
        return LoadDone(model.loaded())

    def _unload(self, key: str) -> None:
        model = self._shelf.take_off(key)
        if model is None:
            return
        model.backend.close()
        log.event("model_unloaded", model=model.manifest.name, version=model.manifest.version)
        del model
        give_back_memory()
