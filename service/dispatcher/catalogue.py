"""The models a request may name, as their manifests describe them, and the levels it may ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from models import manifest
from models.levels import LevelError, Plan, grammar, plan
from models.manifest import Manifest, ManifestError
from service import artefacts, log
from service.config import Config, ModelConfig
from service.core import levels, versions
from service.core.levels import AUTO, CUSTOM, Choice, Level
from service.core.queue import LaneKey
from service.core.versions import Policy, Split
from service.errors import Refusal
from service.wire.messages.control import Unit
from service.wire.messages.decoder import Fitting
from service.wire.messages.worker import Loaded


class Entry:
    """One version of a model: its manifest, its transform in the form decoders take, the operator's default level, and
    its levels.

    `offered` are the named levels that can be asked for, highest first: those that some worker offers, or all of the
    manifest until a worker has said which.
    """

    def __init__(
        self, described: Manifest, default_level: str, min_level: str | None = None, unit: Unit | None = None
    ) -> None:
        transform = described.transform
        self.manifest = described
        self.unit = unit or Unit(described.name, described.name, "")
        self.key = self.unit.key
        self.resting = self.unit.resting
        """Not in the workers' memory until somebody asks for it."""
        self.loaded: Loaded | None = None
        """What a worker said of it."""
        self.users = 0
        """Requests that chose it and have not ended."""
        self.answered = self.refused = 0
        """How its requests ended."""
        self.used = 0
        """Grows with every request for any model; of this one, what it was at its last."""
        self.default_level = default_level
        self.min_level = min_level
        self.fitting = Fitting(**msgspec.structs.asdict(transform))
        self._named = {level.name: _named(level) for level in described.levels}
        self._announced: set[str] = set()
        self.offered = [*self._named.values()]
        # Spellings that feed the graph the same integers are the same level, and share a lane.
        self._by_inputs: dict[str, Level] = {}
        self.merging: set[str] = set()
        """Names of the levels that merge tokens."""
        if described.trunk is not None:
            for level in described.levels:
                worked_out = plan(level.explicit, described.trunk)
                self._by_inputs[_inputs(worked_out)] = self._named[level.name]
                if any(worked_out.inputs.get("merge", ())):
                    self.merging.add(level.name)

    @property
    def highest(self) -> Level:
        """The highest level, which every worker that has the model offers."""
        return self.offered[0]

    @property
    def backend(self) -> str:
        """The backend it runs on, without its precision; empty while it is loading."""
        return self.loaded.backend.partition("/")[0] if self.loaded else ""

    @property
    def explains(self) -> bool:
        """Its graph tells which group each patch ended in."""
        return self.manifest.trunk is not None and self.manifest.trunk.merge

    @property
    def grammar(self) -> str:
        """The explicit levels it takes, in words; empty when it takes none."""
        return grammar(self.manifest.trunk) if self.manifest.trunk else ""

    def announce(self, names: Iterable[str]) -> None:
        """A worker offers these named levels."""
        self._announced |= set(names)
        self.offered = [level for name, level in self._named.items() if name in self._announced]
        if self.default_level in self._named.keys() - self._announced:
            log.event(
                "default_level_not_offered",
                severity="warning",
                model=self.manifest.name,
                level=self.default_level,
                instead=self.level(None, None).spelled,
            )

    def share(self, level: Level) -> float:
        """What a level costs of what the highest one does, by GMACs."""
        highest = self.highest.gmacs
        return min(level.gmacs / highest, 1.0) if highest else 1.0

    def served(self, wanted: Level | Choice, lane: LaneKey) -> Level:
        """The level at which a request is served in a lane."""
        return wanted if isinstance(wanted, Level) else self._named[lane.level]

    def lane(self, level: Level) -> LaneKey:
        """Where items of a level queue."""
        return LaneKey(self.key, level.lane)

    def level(self, asked: str | None, floor: str | None) -> Level | Choice:
        """The level of a request with these options; raises Refusal."""
        if floor == AUTO:
            raise Refusal("bad_option", f"min_level is a named or an explicit level, not {AUTO}")
        least = self._find(floor) if floor else None
        if (asked or self.default_level) == AUTO:
            if least is None and self.min_level is not None:
                # The operator's floor holds by its cost, whether or not it is offered on this hardware.
                least = self._named.get(self.min_level) or self._find(self.min_level)
            return levels.resolve(None, least, self.offered)
        return levels.resolve(self._find(asked) if asked else self._default(), least, self.offered)

    def asked_label(self, asked: str | None) -> str:
        """For metrics: what was asked for, from a closed set."""
        if asked is None:
            return "default"
        return asked if asked == AUTO or asked in self._named else CUSTOM

    def _default(self) -> Level:
        """The operator's choice. A named level that is not offered is stood in for by the least one above it, which
        is no slower here."""
        wanted = self._named.get(self.default_level)
        if wanted is None:
            return self._find(self.default_level)
        above = [level for level in self.offered if level.gmacs >= wanted.gmacs]
        return min(above, key=lambda level: level.gmacs, default=self.highest)

    def _find(self, text: str) -> Level:
        """A level by its name or in an explicit spelling; raises Refusal that says which there are."""
        named = self._named.get(text)
        if named in self.offered:
            return named
        if named is not None:
            raise self._unknown(f"level {text} is not offered, since it is not faster here than the next higher one")
        try:
            found = plan(text, self.manifest.trunk)
        except LevelError as error:
            telling = self.manifest.trunk is not None and text.isascii() and text.isprintable()
            raise self._unknown(str(error) if telling else "unknown level") from None
        same = self._by_inputs.get(_inputs(found))
        if same in self.offered:
            return msgspec.structs.replace(same, spelled=found.level)
        return Level(found.level, found.level, CUSTOM, found.gmacs, found.tokens)

    def _unknown(self, reason: str) -> Refusal:
        return Refusal("unknown_level", levels.unknown(reason, (level.spelled for level in self.offered), self.grammar))


def _named(level: manifest.Level) -> Level:
    return Level(level.name, level.name, level.name, level.gmacs, level.tokens)


def _inputs(worked_out: Plan) -> str:
    return repr(sorted(worked_out.inputs.items()))


class Served:
    """One model by its name: the versions of it that can be asked for, and which of them a request gets that names
    none."""

    def __init__(self, stable: Entry, canary: Entry | None, share: float, entries: Iterable[Entry]) -> None:
        self.stable = stable
        self.canary = canary
        self.split = Split(share)
        self.versions = {entry.manifest.version: entry for entry in entries}

    def take(self, version: str | None) -> Entry:
        """The version that a request gets. Raises Refusal."""
        if version is not None:
            entry = self.versions.get(version)
            if entry is None:
                raise Refusal("unknown_version", f"no such version is served; there is {', '.join(self.versions)}")
            return entry
        if self.canary is not None and self.split.turn():
            return self.canary
        return self.stable

    def share(self, entry: Entry) -> float:
        """Its part of the requests that name no version."""
        canary = self.split.share if self.canary is not None else 0.0
        if entry is self.stable:
            return 1.0 - canary
        return canary if entry is self.canary else 0.0


class Catalogue:
    """Model name -> the versions of it that are served, and what workers say of them.

    What is served of a model changes at once: a request gets either what was served before or what is served after.
    """

    def __init__(self, config: Config, units: Iterable[Unit], policies: Mapping[str, Policy] | None = None) -> None:
        """`policies` are those that an operator has set since the start."""
        self._config = config
        self._models: dict[str, Served] = {}
        self._entries: dict[str, Entry] = {}
        """The stable version of every model."""
        self._by_key: dict[str, Entry] = {}
        self._uses = 0
        self.wake: Callable[[Entry], float] = lambda entry: 1.0
        """Told of every request for a version that rests; the seconds after which it may be loaded."""
        there: dict[str, list[Entry]] = {}
        for unit in units:
            try:
                described = manifest.load(Path(unit.directory))
            except ManifestError as error:
                # It was changed or taken away while it served; only a process that has to start again misses it.
                log.event("model_lost", severity="error", model=unit.model, reason=str(error))
                continue
            there.setdefault(unit.model, []).append(self.add(described, unit))
        for name, entries in there.items():
            self.arrange(name, (policies or {}).get(name) or artefacts.policy(config, name), entries)

    # -- what requests ask -------------------------------------------------------------------------------------

    @property
    def entries(self) -> Mapping[str, Entry]:
        """The version of every model that a request gets as a rule, by the model's name."""
        return self._entries

    def of(self, key: str) -> Entry | None:
        """The version of a unit, whether it is served or not."""
        return self._by_key.get(key)

    def serves(self, entry: Entry) -> bool:
        """Requests may get this version."""
        served = self._models.get(entry.manifest.name)
        return served is not None and served.versions.get(entry.manifest.version) is entry

    def others(self, entry: Entry) -> list[Entry]:
        """The other versions of its model that are served."""
        served = self._models.get(entry.manifest.name)
        return [one for one in served.versions.values() if one is not entry] if served else []

    def all_entries(self) -> list[Entry]:
        """All versions of all models that are served."""
        return [entry for served in self._models.values() for entry in served.versions.values()]

    def known(self) -> list[Entry]:
        """All versions that are served or on their way in or out."""
        return [*self._by_key.values()]

    @property
    def units(self) -> list[Unit]:
        """All versions that are served."""
        return [entry.unit for entry in self.all_entries()]

    @property
    def models(self) -> Mapping[str, Served]:
        """All models with all their versions."""
        return self._models

    def pick(self, name: str | None, task: str, version: str | None = None) -> Entry:
        """The model a request for `task` means; without a name, the only one of that task. Raises Refusal."""
        if name is not None:
            served = self._models.get(name)
            if served is None:
                raise Refusal("unknown_model", "no model of that name; see /v1/models")
            if served.stable.manifest.task != task:
                raise Refusal("bad_option", f"this model does {served.stable.manifest.task}, not {task}")
        else:
            fitting = [served for served in self._models.values() if served.stable.manifest.task == task]
            if not fitting:
                raise Refusal("unknown_model", f"no model for {task} is served here")
            if len(fitting) > 1:
                names = ", ".join(served.stable.manifest.name for served in fitting)
                raise Refusal("bad_option", f"several models do {task}, choose one with model=: {names}")
            served = fitting[0]
        return served.take(version)

    def use(self, entry: Entry) -> None:
        """A request is about to use this version. Raises Refusal when it rests; it is then being loaded."""
        self.touch(entry)
        if entry.resting:
            seconds = self.wake(entry)
            raise Refusal("model_loading", "the model is being loaded, since it was asked for", retry_after=seconds)

    def touch(self, entry: Entry) -> None:
        """A request is for this version: of all, it was asked for last."""
        self._uses += 1
        entry.used = self._uses

    def complete(self) -> bool:
        """Every version that is to be loaded has been, by some worker."""
        return all(entry.loaded is not None or entry.resting for entry in self.all_entries())

    # -- what the repository changes ---------------------------------------------------------------------------

    def add(self, described: Manifest, unit: Unit) -> Entry:
        """Know a version, so that workers can tell about it; no request gets it yet."""
        operator = self._config.model.get(unit.model) or ModelConfig()
        entry = Entry(described, operator.default_level, operator.min_level, unit)
        self._by_key[unit.key] = entry
        return entry

    def arrange(self, name: str, policy: Policy, entries: Sequence[Entry]) -> None:
        """Serve these versions of a model from now on, by this policy; none takes the model away."""
        there = {entry.manifest.version: entry for entry in entries}
        found = versions.plan(policy, there)
        if found is None:
            self._models.pop(name, None)
            self._entries.pop(name, None)
            return
        stable = there[found.stable]
        loaded = [there[version] for version in found.loaded]
        self._models[name] = Served(stable, there.get(found.canary), policy.share, loaded)
        self._entries[name] = stable

    def drop(self, entry: Entry) -> None:
        """Forget a version that no worker has any more."""
        if self._by_key.get(entry.key) is entry:
            del self._by_key[entry.key]

    def name_of(self, key: str) -> str:
        """The model that a unit is a version of."""
        entry = self._by_key.get(key)
        return entry.manifest.name if entry else "none"

    def note_loaded(self, loaded: Loaded) -> None:
        """A worker serves this unit."""
        entry = self._by_key.get(loaded.key)
        if entry is not None:
            entry.loaded = loaded
            entry.announce(timing.level for timing in loaded.timings)
