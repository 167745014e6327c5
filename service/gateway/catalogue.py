"""The models a request may name, as their manifests describe them, and the levels it may ask for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from models import manifest
from models.levels import LevelError, Plan, grammar, plan
from models.manifest import Manifest
from service import log
from service.config import Config, ModelConfig
from service.core import levels
from service.core.levels import AUTO, CUSTOM, Choice, Level
from service.core.queue import LaneKey
from service.errors import Refusal
from service.wire.messages import Fitting, Loaded


class Entry:
    """One model: its manifest, its transform in the form decoders take, the operator's default level, and its levels.

    `offered` are the named levels that can be asked for, highest first: those that some worker offers, or all of the
    manifest until a worker has said which.
    """

    def __init__(self, described: Manifest, default_level: str, min_level: str | None = None) -> None:
        transform = described.transform
        self.manifest = described
        self.default_level = default_level
        self.min_level = min_level
        self.fitting = Fitting(**msgspec.structs.asdict(transform))
        self._named = {level.name: _named(level) for level in described.levels}
        self._announced: set[str] = set()
        self.offered = [*self._named.values()]
        # Spellings that feed the graph the same integers are the same level, and share a lane.
        self._by_inputs: dict[str, Level] = {}
        if described.trunk is not None:
            for level in described.levels:
                self._by_inputs[_inputs(plan(level.explicit, described.trunk))] = self._named[level.name]

    @property
    def highest(self) -> Level:
        """The highest level, which every worker that has the model offers."""
        return self.offered[0]

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
        return LaneKey(self.manifest.name, level.lane)

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


class Catalogue:
    """Model name -> entry, and which backend serves it once a worker has said so."""

    def __init__(self, config: Config) -> None:
        self._entries: dict[str, Entry] = {}
        self._loaded: dict[str, Loaded] = {}
        for name, directory in manifest.find([Path(root) for root in config.models]).items():
            operator = config.model.get(name) or ModelConfig()
            self._entries[name] = Entry(manifest.load(directory), operator.default_level, operator.min_level)

    @property
    def entries(self) -> Mapping[str, Entry]:
        """All models by name."""
        return self._entries

    def pick(self, name: str | None, task: str) -> Entry:
        """The model a request for `task` means; without a name, the only one of that task. Raises Refusal."""
        if name is not None:
            entry = self._entries.get(name)
            if entry is None:
                raise Refusal("unknown_model", "no model of that name; see /v1/models")
            if entry.manifest.task != task:
                raise Refusal("bad_option", f"this model does {entry.manifest.task}, not {task}")
            return entry
        fitting = [entry for entry in self._entries.values() if entry.manifest.task == task]
        if not fitting:
            raise Refusal("unknown_model", f"no model for {task} is served here")
        if len(fitting) > 1:
            names = ", ".join(entry.manifest.name for entry in fitting)
            raise Refusal("bad_option", f"several models do {task}, choose one with model=: {names}")
        return fitting[0]

    def note_loaded(self, loaded: Loaded) -> None:
        """A worker serves this model."""
        self._loaded[loaded.model] = loaded
        if loaded.model in self._entries:
            self._entries[loaded.model].announce(timing.level for timing in loaded.timings)

    def backend(self, name: str) -> str:
        """The backend a model runs on, without its precision; empty while it is loading."""
        return self.backend_detail(name).partition("/")[0]

    def backend_detail(self, name: str) -> str:
        """The backend with its precision, such as `openvino/bf16`."""
        loaded = self._loaded.get(name)
        return loaded.backend if loaded else ""

    def complete(self) -> bool:
        """Every model has been loaded by some worker."""
        return all(name in self._loaded for name in self._entries)
