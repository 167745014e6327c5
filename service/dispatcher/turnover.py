"""Versions in and out while others serve: what one change of a model consists of.

A version is verified, loaded and warmed in every worker beside those that serve; only then do requests get it. One that
fails on the way never serves, and what served before goes on. A version that nobody gets any more is unloaded when the
last request that chose it has ended.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import msgspec

from models.manifest import Manifest, ManifestError
from service import artefacts, log
from service.artefacts import Signature
from service.config import Config
from service.core import versions
from service.core.versions import Policy
from service.dispatcher.catalogue import Catalogue, Entry
from service.dispatcher.engine import Engine
from service.dispatcher.holdings import LoadError
from service.dispatcher.loop import Background
from service.errors import ConfigError, Refusal, WireError
from service.metrics import Metrics
from service.wire.messages.control import Current, Unit

REASONS = {
    "verification": "it does not match its manifest, or is none of this service's models",
    "size": "its input is larger than the places for pixels; start with a larger --slot-headroom",
    "load": "no backend could load it and run it",
    "crashed": "a process that loaded it died",
    "timeout": "loading it took too long",
    "memory": "it takes more memory than --model-memory-mb",
}
"""Why a version cannot be served, for the index; the log says more."""

_TURN = 0.02
_SLACK = 5.0
_FIRST_GUESS = 5.0
"""Seconds that loading is taken to last before it was seen."""


class Rejection(msgspec.Struct, frozen=True):
    """A version that could not be served, and the files it consisted of then."""

    outcome: str
    signature: Signature = ()


class Notes(msgspec.Struct):
    """What whoever dispatches next has to know, should this process be replaced."""

    policies: dict[str, Policy] = {}
    """Of models for which an operator has set one since the start."""
    unloaded: set[str] = set()
    rejected: dict[str, dict[str, Rejection]] = {}

    @classmethod
    def read(cls, data: bytes) -> Notes:
        """What whoever dispatched before wrote down, if there was anyone."""
        return msgspec.json.decode(data, type=Notes) if data else Notes()


class Turnover:
    """`tell` passes what is served on to the supervisor. Whoever changes what is served holds `one_at_a_time`."""

    def __init__(
        self,
        config: Config,
        catalogue: Catalogue,
        engine: Engine,
        metrics: Metrics,
        slot_bytes: int,
        tell: Callable[[Current], None],
        notes: Notes,
    ) -> None:
        self._config = config
        self._catalogue = catalogue
        self._engine = engine
        self._metrics = metrics
        self._slot_bytes = slot_bytes
        self._tell = tell
        self.notes = notes
        self.one_at_a_time = asyncio.Lock()
        self.used: Callable[[Entry], bool] = lambda entry: bool(entry.users)
        """Whether requests may be for this version that have not ended."""
        self.loading: set[tuple[str, str]] = set()
        """Models and versions that are being looked at or loaded."""
        self._retiring: dict[str, tuple[Entry, asyncio.Task[None]]] = {}
        self._waking: set[str] = set()
        self._background = Background()

    def units(self) -> list[Unit]:
        """All versions that are served."""
        return [msgspec.structs.replace(entry.unit, resting=entry.resting) for entry in self._catalogue.all_entries()]

    def retiring(self) -> list[Entry]:
        """Versions that are on their way out."""
        return [entry for entry, _ in self._retiring.values()]

    def policy(self, name: str) -> Policy:
        """What is to be served of a model: what an operator said last, else the configuration."""
        return self.notes.policies.get(name) or artefacts.policy(self._config, name)

    def wake(self, entry: Entry) -> float:
        """Somebody asks for a version that rests: have it loaded; about how many seconds that takes."""
        if entry.key not in self._waking:
            self._waking.add(entry.key)
            self.spawn(self._woken(entry))
        return entry.loaded.load_seconds if entry.loaded else _FIRST_GUESS

    async def _woken(self, entry: Entry) -> None:
        try:
            async with self.one_at_a_time:
                if entry.resting and self._catalogue.serves(entry):
                    if not self._stays(entry):
                        await self._make_room(entry)
                        await self._into_workers(entry)
                    entry.resting = False
                    self.keep_within_budget(entry)
                    self._settled()
        except LoadError as error:
            self.reject(entry.manifest.name, entry.manifest.version, error.outcome, str(error), ())
            self.serve(entry.manifest.name, self._catalogue.others(entry))
        finally:
            self._waking.discard(entry.key)

    # -- one model ---------------------------------------------------------------------------------------------

    async def bring(self, name: str, there: Mapping[str, Path]) -> None:
        """Serve of a model what is wanted of the versions on disk. Where one fails, the next best is taken; and what
        serves now goes on until all that is wanted instead is loaded."""
        usable = {version for version in there if not self._still_rejected(name, version, there[version])}
        ready: dict[str, Entry] = {}
        try:
            while (plan := versions.plan(self.policy(name), usable)) is not None:
                for version in plan.loaded:
                    if version not in ready and (entry := await self._readied(name, version, there[version])):
                        ready[version] = entry
                failed = set(plan.loaded) - ready.keys()
                if not failed:
                    self.serve(name, [ready[version] for version in plan.loaded])
                    return
                usable -= failed
            if not there:
                self.serve(name, [])
        finally:
            for entry in ready.values():
                if not self._catalogue.serves(entry):
                    self._retire(entry)

    async def _readied(self, name: str, version: str, directory: Path) -> Entry | None:
        """A version, loaded in every worker; None when it cannot be served."""
        signature = await asyncio.to_thread(artefacts.signature, directory)
        self.loading.add((name, version))
        try:
            described = await asyncio.to_thread(artefacts.described, name, directory)
            unit = artefacts.unit(described, directory)
            present = self._present(unit.key)
            if present is not None:
                return present
            self._check_kind(name, described)
            await asyncio.to_thread(artefacts.check, self._config, directory, described)
            if artefacts.image_bytes(described) > self._slot_bytes:
                raise LoadError("size", f"an input takes {artefacts.image_bytes(described)} bytes")
            entry = self._catalogue.add(described, unit)
            await self._make_room(entry)
            await self._into_workers(entry)
            log.event("model_ready", model=name, version=version)
            return entry
        except (ManifestError, ConfigError) as error:
            self.reject(name, version, "verification", str(error), signature)
        except LoadError as error:
            self.reject(name, version, error.outcome, str(error), signature)
        finally:
            self.loading.discard((name, version))
        return None

    def _present(self, key: str) -> Entry | None:
        """A unit that is there already, perhaps on its way out."""
        entry = self._catalogue.of(key)
        if entry is None or self._catalogue.serves(entry) or self._stays(entry):
            return entry
        return None

    def _stays(self, entry: Entry) -> bool:
        """Whether a version on its way out was still whole, and now stays."""
        retiring = self._retiring.pop(entry.key, None)
        if retiring is None:
            return False
        retiring[1].cancel()
        return True

    def _check_kind(self, name: str, described: Manifest) -> None:
        served = self._catalogue.entries.get(name)
        if served is not None and served.manifest.task != described.task:
            raise LoadError("verification", f"it does {described.task}, the version before {served.manifest.task}")

    async def _into_workers(self, entry: Entry) -> None:
        budget, holdings = self._config.model_memory_bytes, self._engine.holdings
        try:
            await holdings.load(entry.unit, self._config.load_seconds)
            if budget and entry.loaded is not None and entry.loaded.resident > budget:
                await holdings.unload(entry.key, self._config.load_seconds)
                raise LoadError("memory", f"it takes {entry.loaded.resident} bytes")
        except LoadError:
            self._engine.forget(entry.key)
            if not self._catalogue.serves(entry):
                self._catalogue.drop(entry)
            raise
        self._metrics.reloaded("loaded")

    def serve(self, name: str, entries: list[Entry]) -> None:
        """From now on requests get these versions; the others end when nobody uses them."""
        served = self._catalogue.models.get(name)
        before = list(served.versions.values()) if served else []
        self._catalogue.arrange(name, self.policy(name), entries)
        for entry in before:
            if not self._catalogue.serves(entry):
                self._retire(entry)
        self._settled()

    def _settled(self) -> None:
        """Have the supervisor know what is served, for processes that start from here on."""
        try:
            self._tell(Current(self.units(), msgspec.json.encode(self.notes)))
        except WireError as error:  # the supervisor is gone, or it is too long; what is served is served
            log.event("not_told", severity="error", reason=str(error))

    def reject(self, name: str, version: str, outcome: str, reason: str, signature: Signature) -> None:
        """Note that a version cannot be served, until its files change or somebody asks for another try."""
        log.event("model_rejected", severity="error", model=name, version=version, outcome=outcome, reason=reason)
        self._metrics.reloaded(outcome)
        self.notes.rejected.setdefault(name, {})[version] = Rejection(outcome, signature)

    def _still_rejected(self, name: str, version: str, directory: Path) -> bool:
        """It was rejected, and is what it was then."""
        rejection = self.notes.rejected.get(name, {}).get(version)
        if rejection is None:
            return False
        if not rejection.signature or rejection.signature == artefacts.signature(directory):
            return True
        del self.notes.rejected[name][version]
        return False

    # -- on the way out ----------------------------------------------------------------------------------------

    def _retire(self, entry: Entry) -> None:
        """Unload a version once the last request that chose it has ended."""
        if entry.key in self._retiring:
            return
        if entry.resting:
            self._drop(entry)
            return
        task = self._background.spawn(self._retired(entry))
        self._retiring[entry.key] = entry, task

    async def _retired(self, entry: Entry) -> None:
        # No request lives longer; who has not said that it ended is not waited for.
        until = time.monotonic() + self._config.limits.max_timeout_ms / 1000 + _SLACK
        while (self.used(entry) and time.monotonic() < until) or not self._engine.forget(entry.key):
            await asyncio.sleep(_TURN)
        # Between giving up its lanes and telling the workers nobody else has a turn.
        leaving = self._engine.holdings.unload(entry.key, self._config.load_seconds)
        if not entry.resting:
            self._drop(entry)
        del self._retiring[entry.key]
        await leaving
        self._metrics.reloaded("unloaded")

    def _drop(self, entry: Entry) -> None:
        """Forget a version that no worker has any more, and what was counted of it."""
        self._catalogue.drop(entry)
        served = self._catalogue.models.get(entry.manifest.name)
        if served is None or entry.manifest.version not in served.versions:
            self._engine.statistics.forget(entry.manifest.name, entry.manifest.version)

    async def gone(self, name: str) -> None:
        """Until all versions of a model that were on their way out are."""
        await asyncio.gather(
            *(task for entry, task in [*self._retiring.values()] if entry.manifest.name == name),
            return_exceptions=True,
        )

    # -- memory ------------------------------------------------------------------------------------------------

    async def _make_room(self, entry: Entry) -> None:
        """Before a version is loaded: unload those asked for longest ago, if the budget has no room beside them."""
        if self._config.model_memory_bytes:
            graph = entry.manifest.files[entry.manifest.graph].bytes
            leaving = self._rest(entry, entry.loaded.resident if entry.loaded else graph)
            await asyncio.gather(*leaving, return_exceptions=True)

    def keep_within_budget(self, newest: Entry | None) -> None:
        """Now that it is known what has been loaded takes."""
        if self._config.model_memory_bytes:
            self._rest(newest, newest.loaded.resident if newest and newest.loaded else 0)

    def _rest(self, but: Entry | None, more: int) -> list[asyncio.Task[None]]:
        """Have as many versions rest as must for `more` bytes beside them; none of the model of `but`, whose bytes
        these are: what it is to replace serves until then."""
        awake = {
            entry.key: entry
            for entry in self._catalogue.all_entries()
            if entry.loaded is not None
            and not entry.resting
            and not (but is not None and entry.manifest.name == but.manifest.name)
        }
        holdings = [
            versions.Holding(key, entry.loaded.resident, entry.used) for key, entry in awake.items() if entry.loaded
        ]
        resting = versions.to_unload(holdings, self._config.model_memory_bytes, more)
        for key in resting:
            log.event("model_rests", model=awake[key].manifest.name, version=awake[key].manifest.version)
            self._retire(awake[key])
            awake[key].resting = True
        if resting:
            self._settled()
        return [self._retiring[key][1] for key in resting if key in self._retiring]

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Have it carried out; nobody waits for it."""
        self._background.spawn(_logged(work))


async def _logged(work: Coroutine[Any, Any, None]) -> None:
    """Carry out what nobody waits for."""
    try:
        await work
    except Refusal:
        pass  # told where it arose
    except Exception as error:
        log.event("bug", severity="error", trace=log.frames(error))
