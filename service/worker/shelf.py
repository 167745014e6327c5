"""The models that a worker has loaded. Engine threads use them while others come and go."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from service.worker.load import Model


class Shelf:
    """Models by the key of their unit."""

    def __init__(self, models: Mapping[str, Model] | None = None) -> None:
        self._models = dict(models or {})
        self._users: Counter[str] = Counter()
        self._left = threading.Condition()

    def all(self) -> list[Model]:
        """Those that are there now."""
        with self._left:
            return list(self._models.values())

    def get(self, key: str) -> Model | None:
        """One of them, or None."""
        return self._models.get(key)

    def put(self, model: Model) -> None:
        """One more."""
        with self._left:
            self._models[model.key] = model

    @contextmanager
    def use(self, key: str) -> Iterator[Model | None]:
        """A model that is not given up before the block ends; None when it is not there."""
        with self._left:
            model = self._models.get(key)
            self._users[key] += 1
        try:
            yield model
        finally:
            with self._left:
                self._users[key] -= 1
                if not self._users[key]:
                    del self._users[key]
                    self._left.notify_all()

    def take_off(self, key: str) -> Model | None:
        """Remove a model and wait until nobody uses it; None when it is not there."""
        with self._left:
            model = self._models.pop(key, None)
            self._left.wait_for(lambda: not self._users[key])
            del self._users[key]
            return model
