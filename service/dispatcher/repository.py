"""The models on disk and those that are served: what an operator asks of them, and what happens by itself.

How a version comes in and goes out is in turnover.py.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec

from models.manifest import ManifestError
from service import artefacts, log
from service.artefacts import Signature
from service.config import Config
from service.core.versions import Policy
from service.dispatcher.catalogue import Catalogue, Entry
from service.dispatcher.engine import Engine
from service.dispatcher.turnover import REASONS, Turnover
from service.errors import Refusal
from service.metrics import Metrics, Version

State = Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]

UNLOADED = "unloaded by the operator"
UNWANTED = "not among the versions to be served"
ASLEEP = "loaded when somebody asks for it"


class Row(msgspec.Struct, frozen=True):
    """One version in the index. `share` is its part of the requests that name no version."""

    name: str
    version: str
    state: State
    reason: str = ""
    share: float = 0.0
    rejected: bool = False
    """It is wanted and cannot be served."""


def may_change(config: Config) -> None:
    """Raises Refusal where calls may change nothing."""
    if config.model_control != "explicit":
        raise Refusal("bad_request", "changing models is off; it takes --model-control explicit")


class Repository:
    """See the module."""

    def __init__(
        self, config: Config, catalogue: Catalogue, engine: Engine, metrics: Metrics, turnover: Turnover
    ) -> None:
        self._config = config
        self._catalogue = catalogue
        self._engine = engine
        self._turnover = turnover
        self._seen: dict[str, dict[str, Path]] = {}
        """What was on disk when it was last looked at."""
        metrics.watch_versions(self._versions)
        catalogue.wake = turnover.wake
        engine.holdings.missed = self._missed
        engine.holdings.greeted = self._greeted

    def begin(self) -> None:
        """Look at the disk, and go on looking where that is wanted. The end of the service does not wait for that."""
        self._turnover.spawn(self._follow())

    def look_again(self) -> None:
        """`reload`, for who does not wait."""
        self._turnover.spawn(self._reloaded())

    # -- what operators ask ------------------------------------------------------------------------------------

    def permit(self) -> None:
        """Raises Refusal where calls may change nothing."""
        may_change(self._config)

    async def reload(self) -> list[Row]:
        """Look at the disk again and serve what is wanted of it; what came of it, as `index` tells."""
        notes = self._turnover.notes
        async with self._turnover.one_at_a_time:
            found = await self._look()
            for name in sorted({*found, *self._catalogue.entries} - notes.unloaded):
                notes.rejected.pop(name, None)
                await self._turnover.bring(name, found.get(name, {}))
        return self._index()

    async def load(self, name: str) -> None:
        """Have this model served as it is on disk now. Raises Refusal."""
        self.permit()
        notes = self._turnover.notes
        async with self._turnover.one_at_a_time:
            found = await self._look()
            if name not in found:
                raise Refusal("unknown_model", "no model of that name in the repository")
            notes.unloaded.discard(name)
            notes.rejected.pop(name, None)
            await self._turnover.bring(name, found[name])
            if rejected := notes.rejected.get(name):
                raise self._rejection(name, max(rejected, key=int))

    async def unload(self, name: str) -> None:
        """Serve this model no more; requests under way are answered. Raises Refusal."""
        self.permit()
        async with self._turnover.one_at_a_time:
            if name not in self._catalogue.entries:
                raise Refusal("unknown_model", "no model of that name is loaded")
            self._turnover.notes.unloaded.add(name)
            self._turnover.serve(name, [])
        await self._turnover.gone(name)

    async def choose(self, name: str, policy: Policy) -> None:
        """Serve other versions of a model, or share its requests among them differently. Raises Refusal."""
        self.permit()
        notes = self._turnover.notes
        async with self._turnover.one_at_a_time:
            there = (await self._look()).get(name, {})
            if name not in self._catalogue.entries:
                raise Refusal("unknown_model", "no model of that name is served")
            wanted = {*policy.versions, policy.canary} - {""}
            if missing := sorted(wanted - there.keys(), key=int):
                raise Refusal("unknown_version", f"no version {', '.join(missing)} of this model in the repository")
            before = notes.policies.get(name)
            notes.policies[name] = policy
            for version in wanted:
                notes.rejected.get(name, {}).pop(version, None)
            await self._turnover.bring(name, there)
            if failed := sorted(wanted & notes.rejected.get(name, {}).keys(), key=int):
                del notes.policies[name]
                if before is not None:
                    notes.policies[name] = before
                await self._turnover.bring(name, there)
                raise self._rejection(name, failed[0])

    def _rejection(self, name: str, version: str) -> Refusal:
        return Refusal("model_rejected", f"version {version}: {self._why_not(name, version)}")

    async def policy(self, name: str) -> Policy:
        """What is to be served of a model."""
        return self._turnover.policy(name)

    async def index(self) -> list[Row]:
        """Every version that is served, on its way in or out, or on disk."""
        return self._index()

    def _index(self) -> list[Row]:
        rows: dict[tuple[str, str], Row] = {}
        for name, there in self._seen.items():
            for version in there:
                rejected = version in self._turnover.notes.rejected.get(name, {})
                rows[name, version] = Row(name, version, "UNAVAILABLE", self._why_not(name, version), rejected=rejected)
        for entry in self._turnover.retiring():
            key = (entry.manifest.name, entry.manifest.version)
            rows[key] = Row(*key, "UNLOADING")
        for name, served in self._catalogue.models.items():
            for version, entry in served.versions.items():
                state: State = "READY" if entry.loaded and not entry.resting else "UNAVAILABLE"
                reason = ASLEEP if entry.resting else ""
                rows[name, version] = Row(name, version, state, reason, served.share(entry))
        for key in self._turnover.loading:
            rows[key] = Row(*key, "LOADING")
        return sorted(rows.values(), key=lambda row: (row.name, int(row.version)))

    # -- what happens by itself --------------------------------------------------------------------------------

    async def _reloaded(self) -> None:
        await self.reload()

    async def _follow(self) -> None:
        """Look at the disk once, and every so often where that is wanted. What has changed is taken in once it has
        stopped changing."""
        with contextlib.suppress(Refusal):
            await self._look()
        seconds = self._config.watch_seconds
        if not seconds:
            return
        known = before = dict[tuple[str, str], Signature]()
        while True:
            await asyncio.sleep(seconds)
            now = await asyncio.to_thread(self._signatures)
            if now != known and now == before:
                with contextlib.suppress(Refusal):
                    await self._take_in(
                        {name for name, version in now if now[name, version] != known.get((name, version))}
                    )
                known = now
            before = now

    async def _take_in(self, changed: Iterable[str]) -> None:
        """Bring in models that have changed on disk. None is taken away: a directory that has gone may be on its way
        back."""
        async with self._turnover.one_at_a_time:
            found = await self._look()
            for name in sorted(set(changed) & found.keys() - self._turnover.notes.unloaded):
                await self._turnover.bring(name, found[name])

    def _missed(self, key: str) -> None:
        """A worker came back without a unit that served, and no worker has it: serve another version."""
        entry = self._catalogue.of(key)
        if entry is not None and self._catalogue.serves(entry):
            name, version = entry.manifest.name, entry.manifest.version
            self._turnover.reject(name, version, "load", "a worker that was started again cannot load it", ())
            entry.loaded = None  # the service is not ready while there is nothing in its place
            self._engine.forget(key)
            self._turnover.spawn(self._stood_in_for(entry))

    async def _stood_in_for(self, entry: Entry) -> None:
        name = entry.manifest.name
        if others := self._catalogue.others(entry):
            self._turnover.serve(name, others)
        await self._take_in([name])
        if self._catalogue.serves(entry):
            self._turnover.serve(name, self._catalogue.others(entry))

    def _greeted(self) -> None:
        """A worker has said what its models take."""
        if self._config.model_memory_bytes and not self._turnover.one_at_a_time.locked():
            self._turnover.keep_within_budget(None)

    # -- inside ------------------------------------------------------------------------------------------------

    def _versions(self) -> list[Version]:
        return [
            Version(
                entry.manifest.name,
                entry.manifest.version,
                served.share(entry),
                entry.loaded.resident if entry.loaded and not entry.resting else 0,
                entry.answered,
                entry.refused,
            )
            for served in self._catalogue.models.values()
            for entry in served.versions.values()
        ]

    def _why_not(self, name: str, version: str) -> str:
        rejection = self._turnover.notes.rejected.get(name, {}).get(version)
        if rejection is not None:
            return REASONS[rejection.outcome]
        return UNLOADED if name in self._turnover.notes.unloaded else UNWANTED

    async def _look(self) -> dict[str, dict[str, Path]]:
        """What is on disk. Raises Refusal when that cannot be told."""
        try:
            self._seen = await asyncio.to_thread(artefacts.found, self._config)
        except (ManifestError, OSError) as error:
            log.event("models_unreadable", severity="error", reason=str(error))
            raise Refusal("unavailable", "a directory of models cannot be read") from None
        return self._seen

    def _signatures(self) -> dict[tuple[str, str], Signature]:
        try:
            found = artefacts.found(self._config)
        except (ManifestError, OSError):
            return {}
        return {
            (name, version): artefacts.signature(directory)
            for name, there in found.items()
            for version, directory in there.items()
        }
