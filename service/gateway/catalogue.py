"""The models a request may name, as their manifests describe them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from models import manifest
from models.manifest import Manifest
from service.config import Config
from service.core import levels
from service.core.queue import LaneKey
from service.errors import Refusal
from service.wire.messages import Fitting, Loaded


@dataclass(frozen=True, slots=True)
class Entry:
    """One model: its manifest, the operator's default level, and its transform in the form decoders take."""

    manifest: Manifest
    default_level: str
    fitting: Fitting

    @property
    def level_names(self) -> list[str]:
        """Levels on offer, highest first."""
        return [level.name for level in self.manifest.levels]

    def lane(self, asked: str | None, floor: str | None) -> LaneKey:
        """The lane of a request with these options; raises Refusal."""
        level = levels.resolve(asked, floor, self.default_level, self.level_names)
        return LaneKey(self.manifest.name, level)


class Catalogue:
    """Model name -> entry, and which backend serves it once a worker has said so."""

    def __init__(self, config: Config) -> None:
        self._entries: dict[str, Entry] = {}
        self._loaded: dict[str, Loaded] = {}
        for name, directory in manifest.find([Path(root) for root in config.models]).items():
            loaded = manifest.load(directory)
            operator = config.model.get(name)
            transform = loaded.transform
            self._entries[name] = Entry(
                manifest=loaded,
                default_level=operator.default_level if operator else "full",
                fitting=Fitting(transform.fit, transform.height, transform.width, transform.fill),
            )

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
