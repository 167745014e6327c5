"""What is checked before anything starts: every model's files, the levels and versions that the operator names, and the
files of keys and certificates; and what is no error but hardly meant."""

from __future__ import annotations

import difflib
import errno
import importlib.util
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from models.manifest import MANIFEST, ManifestError
from service import artefacts, keys, log
from service.config import Config, ModelConfig, stray_variables
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
        raise StartError(f"--models: {'; '.join(_without_models(Path(root)) for root in config.models)}")
    return Checked(largest, units)


def check_extras(config: Config) -> None:
    """What the configuration asks for is installed. Raises StartError."""
    if config.otlp_endpoint and not _installed("opentelemetry.proto"):
        raise StartError(
            "--otlp-endpoint: traces need the extra `otel`: .venv/bin/pip install -e '.[otel]', in the checkout"
        )


def check_files(config: Config) -> None:
    """The files of keys and certificates are there and can be read. Raises StartError, which names the one that is not.

    Whether certificate and key fit together is seen by whoever uses them."""
    tls = {"tls-cert": config.tls_cert, "tls-key": config.tls_key, "tls-client-ca": config.tls_client_ca}
    for name, path in tls.items():
        try:
            readable = not path or (os.stat(path) and os.access(path, os.R_OK))
        except OSError as error:
            raise StartError(f"--{name} {path}: {error.strerror}") from None
        if not readable:
            raise StartError(f"--{name} {path}: {os.strerror(errno.EACCES)}")
    if not config.key_file:
        return
    try:
        keys.read(config.key_file)
    except keys.KeyFileError as error:
        make = "; `squint keys add NAME --file FILE` makes one" if not os.path.exists(config.key_file) else ""
        raise StartError(f"--key-file {config.key_file}: {error}{make}") from None


def warn(config: Config) -> None:
    """Log what is no error and hardly meant: each line a warning."""
    for name, fields in _doubts(config):
        log.event(name, severity="warning", **fields)


def _doubts(config: Config) -> Iterator[tuple[str, dict[str, Any]]]:
    for variable, meant in stray_variables().items():
        yield "unknown_variable", {"variable": variable, "meant": meant}
    there = artefacts.found(config)
    for name in sorted(set(config.model) - set(there)):
        yield "settings_for_no_model", {"model": name, "meant": "".join(difflib.get_close_matches(name, there, 1))}
    try:
        os.makedirs(config.cache_dir, mode=0o700, exist_ok=True)
        with tempfile.TemporaryFile(dir=config.cache_dir) as file:
            file.write(bytes(_CACHED_AT_LEAST))
    except OSError as error:
        yield (
            "cache_unwritable",
            {
                "directory": config.cache_dir,
                "reason": error.strerror,
                "then": "every start measures and compiles again",
            },
        )


_CACHED_AT_LEAST = 1 << 16


def _without_models(root: Path) -> str:
    """What a directory without models is, and how one is laid out."""
    if (root / MANIFEST).is_file():
        words = f"{root} is one version of a model; name the directory two levels above it"
    elif any(root.glob(f"[0-9]*/{MANIFEST}")):
        words = f"{root} is one model; name the directory above it"
    elif any(root.glob(f"*/{MANIFEST}")):
        words = f"no model in {root}: between NAME and {MANIFEST} there is a directory for the version, such as 1"
    else:
        words = f"no model in {root}: expected NAME/VERSION/{MANIFEST} below it"
        if any(root.glob("**/*.onnx")):
            words += "; `squint models add onnx FILE` makes that of an ONNX file"
    return words


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
