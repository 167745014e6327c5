"""What is checked before anything starts: every model's files, and the levels that the operator names."""

from __future__ import annotations

from pathlib import Path

from models import manifest
from models.levels import FULL, LevelError, grammar, plan
from models.manifest import Manifest, ManifestError
from service.config import Config
from service.core.levels import AUTO, unknown
from service.errors import ConfigError, StartError


def check_models(config: Config) -> int:
    """Verify every file of every model; the bytes of the largest network input. Raises StartError, ConfigError."""
    largest = 0
    try:
        for name, directory in manifest.find([Path(root) for root in config.models]).items():
            loaded = manifest.load(directory)
            if loaded.name != name:
                raise StartError(f"{directory}: the manifest says {loaded.name!r}, the folder {name!r}")
            for file in loaded.files:
                manifest.check_file(directory, loaded, file)
            _check_levels(config, loaded)
            largest = max(largest, loaded.transform.height * loaded.transform.width * 3)
    except ManifestError as error:
        raise StartError(str(error)) from None
    if not largest:
        raise StartError(f"models: no model found in {', '.join(config.models)}")
    return largest


def _check_levels(config: Config, loaded: Manifest) -> None:
    """The levels that the operator names for a model are levels of it."""
    operator = config.model.get(loaded.name)
    if operator is None:
        return
    names = [level.name for level in loaded.levels]
    for key, given in (("default_level", operator.default_level), ("min_level", operator.min_level or FULL)):
        if given in names or (given == AUTO and key == "default_level"):
            continue
        try:
            plan(given, loaded.trunk)
        except LevelError as error:
            expected = unknown(str(error), names, grammar(loaded.trunk) if loaded.trunk else "")
            raise ConfigError(f"[model.{loaded.name}] {key} = {given!r}: {expected}") from None
