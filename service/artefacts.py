"""Model directories as the service finds them: which versions there are, and whether one is whole and fits.

The supervisor asks before a start, the gateway whenever the repository may have changed.
"""

from __future__ import annotations

import os
from pathlib import Path

from models import manifest
from models.levels import FULL, LevelError, grammar, plan
from models.manifest import Manifest, ManifestError
from service.config import Config, ModelConfig
from service.core import versions
from service.core.levels import AUTO, unknown
from service.core.versions import Policy
from service.errors import ConfigError
from service.wire.messages.control import Unit

Signature = tuple[tuple[str, int, int, int], ...]


def found(config: Config) -> dict[str, dict[str, Path]]:
    """Model name -> version -> directory, over all configured directories. Raises ManifestError."""
    return manifest.versions([Path(root) for root in config.models])


def policy(config: Config, name: str) -> Policy:
    """What the configuration wants served of a model."""
    operator = config.model.get(name) or ModelConfig()
    return versions.policy(operator.versions, operator.canary)


def described(name: str, directory: Path) -> Manifest:
    """The manifest of a version, which says of itself what its folders say. Raises ManifestError."""
    loaded = manifest.load(directory)
    if loaded.name != name:
        raise ManifestError(f"{directory}: the manifest says {loaded.name!r}, the folder {name!r}")
    if loaded.version != directory.name:
        raise ManifestError(f"{directory}: the manifest says version {loaded.version!r}, the folder {directory.name!r}")
    return loaded


def check(config: Config, directory: Path, loaded: Manifest) -> None:
    """Verify every file of a version, and that it has the levels which the operator names for the model. Raises
    ManifestError, ConfigError."""
    for file in loaded.files:
        manifest.check_file(directory, loaded, file)
    _check_levels(config, loaded)


def image_bytes(loaded: Manifest) -> int:
    """What one input of its network takes in a pixel slot."""
    return loaded.transform.height * loaded.transform.width * 3


def unit(loaded: Manifest, directory: Path, *, resting: bool = False) -> Unit:
    """What processes call this version. Other bytes under the same number are another unit."""
    key = f"{loaded.name}@{loaded.version}:{loaded.digest[:8]}"
    return Unit(key, loaded.name, str(directory), loaded.digest, resting)


def signature(directory: Path) -> Signature:
    """Changes when a file of a version does; empty when the directory has gone."""
    try:
        with os.scandir(directory) as entries:
            stats = sorted((entry.name, entry.stat(follow_symlinks=False)) for entry in entries)
    except OSError:
        return ()
    return tuple((name, status.st_size, status.st_mtime_ns, status.st_ino) for name, status in stats)


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
