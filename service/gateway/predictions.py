"""`/predictions/NAME`, where TorchServe's clients send an image: by name of the model, answered as by its task."""

from __future__ import annotations

import functools
import re

from service.dispatcher.catalogue import Entry
from service.gateway.door import Opening
from service.gateway.exchange import Exchange
from service.gateway.handler import Call
from service.gateway.kserve import infer
from service.gateway.serving import NO_TASK, Gateway

PATHS = ("/predictions/{model}", "/predictions/{model}/{version}")
METHODS = ("POST", "PUT")
"""curl -T sends a file with PUT."""
_PATH = re.compile(r"/predictions/([^/]+)(?:/([^/]+))?")


def find(gateway: Gateway, method: bytes, path: str) -> Opening | None:
    """Who serves this path, if it is one of these."""
    found = _PATH.fullmatch(path) if method.decode("latin-1") in METHODS else None
    if found is None:
        return None
    return functools.partial(Prediction, gateway, model=found[1], version=found[2] or "")


class Prediction(Call):
    """A request whose model is named by its path, and its task by its model."""

    __slots__ = ("_model", "_version")

    def __init__(self, gateway: Gateway, exchange: Exchange, model: str, version: str) -> None:
        super().__init__(gateway, exchange, NO_TASK)
        self._model = model
        self._version = version

    def _entry(self) -> Entry:
        return infer.choose(self._gateway, self._serving, self._model, self._version)
