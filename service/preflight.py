"""What is checked before anything starts: every model's files, and the levels and versions that the operator names."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import NamedTuple

from models.manifest import ManifestError
from service import artefacts
from service.config import Config, ModelConfig
from service.core import versions
from service.errors import ConfigError, StartError
from service.wire.messages.control import Unit


class Checked(NamedTuple):
    """What a start needs to know: the bytes of the largest network input, and what is served."""

    image_bytes: int
    units: list[Unit]


def check_models(config: Config) -> Checked:
    """Verify every file of every version that is to be served. Raises StartError, ConfigError."""
    largest, left = 0, config.model_memory_bytes
    units: list[Unit] = []
    try:
        for name, there in artefacts.found(config).items():
            plan = _plan(config, name, there)
            for version in plan.loaded:
                loaded = artefacts.described(name, there[version])
                artefacts.check(config, there[version], loaded)
                largest = max(largest, artefacts.image_bytes(loaded))
                # What it takes in memory is measured once it is loaded; its graph is the least.
                needed = loaded.files[loaded.graph].bytes
                resting = config.model_memory_bytes > 0 and left < needed
                left -= 0 if resting else needed
                units.append(artefacts.unit(loaded, there[version], resting=resting))
    except ManifestError as error:
        raise StartError(str(error)) from None
    if not largest:
        raise StartError(f"models: no model found in {', '.join(config.models)}")
    return Checked(largest, units)


def check_extras(config: Config) -> None:
    """What the configuration asks for is installed. Raises StartError."""
    if config.otlp_endpoint and not _installed("opentelemetry.proto"):
        raise StartError(
            "--otlp-endpoint: traces need the extra `otel`: .venv/bin/pip install -e '.[otel]', in the checkout"
        )


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _plan(config: Config, name: str, there: dict[str, Path]) -> versions.Plan:
    """What is served of a model; whoever names versions must have them."""
    policy = artefacts.policy(config, name)
    plan = versions.plan(policy, there)
    missing = [version for version in policy.versions if version not in there]
    if plan is None or missing:
        given = (config.model.get(name) or ModelConfig()).versions
        raise ConfigError(f"[model.{name}] versions = {given!r}: expected some of {', '.join(sorted(there, key=int))}")
    return plan
