"""The models as the dispatcher serves them, kept alike in a gateway that is a process of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from models import manifest
from models.manifest import ManifestError
from service import log
from service.core.versions import Policy
from service.dispatcher.catalogue import Catalogue, Entry
from service.wire.messages.gateway import Served, Using, Wake

_FIRST_GUESS = 5.0
"""Seconds that loading is taken to last before it was seen."""
_LOOK_SECONDS = 0.05
"""How often it is looked whether the last request for a version that is not served any more has ended."""


class Mirror:
    """`send` tells the dispatcher."""

    def __init__(self, catalogue: Catalogue, send: Callable[[Using | Wake], None]) -> None:
        self._catalogue = catalogue
        self._send = send
        self._arranged: dict[str, tuple[Policy, list[Entry]]] = {}
        self._number = 0
        self._watching = False
        catalogue.wake = self._wake

    def take(self, served: Served) -> None:
        """Serve what the dispatcher serves, and tell it which units requests may still be for."""
        self._number = served.number
        there: dict[str, list[Entry]] = {}
        for unit in served.units:
            entry = self._catalogue.of(unit.key)
            if entry is None:
                try:
                    entry = self._catalogue.add(manifest.load(Path(unit.directory)), unit)
                except ManifestError as error:
                    # It was changed or taken away meanwhile; the dispatcher will see that too.
                    log.event("model_lost", severity="error", model=unit.model, reason=str(error))
                    continue
            entry.resting = unit.resting
            there.setdefault(unit.model, []).append(entry)
        offers = {offer.key: offer for offer in served.offers}
        for entry in self._catalogue.known():
            offer = offers.get(entry.key)
            if offer is None:
                entry.loaded = None
            elif entry.loaded != offer.loaded:
                self._catalogue.note_loaded(offer.loaded)
                entry.announce(offer.levels)
        for name in [*self._catalogue.models.keys() - there.keys()]:
            self._arranged.pop(name, None)
            self._catalogue.arrange(name, Policy(), [])
        for name, entries in there.items():
            policy = Policy(*served.policies[name]) if name in served.policies else Policy()
            # Requests are shared out evenly from here on, so not anew for every other change.
            if self._arranged.get(name) != (policy, entries):
                self._arranged[name] = policy, entries
                self._catalogue.arrange(name, policy, entries)
        self._tell()

    def _tell(self) -> None:
        """Which units may be used; and watch those that are on their way out."""
        used: list[str] = []
        leaving = False
        for entry in self._catalogue.known():
            serves = self._catalogue.serves(entry)
            if (serves and not entry.resting) or entry.users:
                used.append(entry.key)
                leaving |= not serves or entry.resting
            elif not serves:
                self._catalogue.drop(entry)
        self._send(Using(self._number, used))
        if leaving and not self._watching:
            self._watching = True
            asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._watching = False
        self._tell()

    def _wake(self, entry: Entry) -> float:
        """Somebody asks for a version that rests: about how many seconds loading it takes."""
        self._send(Wake(entry.key))
        return entry.loaded.load_seconds if entry.loaded else _FIRST_GUESS
