"""Which backends a step can use on the device, and models opened on them."""

from __future__ import annotations

from pathlib import Path

from models import manifest
from service.backends import registry
from service.backends.base import Artefact, Backend
from service.errors import ConfigError
from tests.gpu.plan import Settings
from tests.walls import ROOT

SHIPPED = ROOT / "models" / "zoo"
ENGINES = 3
"""Threads that feed a device."""


def usable(settings: Settings) -> list[str]:
    """All variants that are for the device and whose library is installed."""
    return [one for one in registry.variants("auto", device=settings.device) if registry.installed(one)]


def asked(settings: Settings) -> tuple[str, ...]:
    """Those that the run's backend stands for. Raises ConfigError."""
    return registry.variants(settings.backend, device=settings.device)


def wanted(settings: Settings) -> list[str]:
    """What is looked at: everything usable, or what the run's backend stands for."""
    return usable(settings) if settings.backend == "auto" else [*asked(settings)]


def directories(settings: Settings) -> dict[str, Path]:
    """Every model that the run is about: those that are shipped, and the networks. In a small run one of each."""
    shipped, made = manifest.find([SHIPPED]), manifest.find([settings.zoo]) if settings.zoo.exists() else {}
    if settings.small:
        shipped = {name: directory for name, directory in shipped.items() if name.endswith("classify")}
    return {name: directory for name, directory in (made | shipped).items() if settings.chosen(name)}


def opened(settings: Settings, directory: Path, variant: str, engines: int = ENGINES) -> Backend:
    """A model on a variant. Raises BackendError or ConfigError."""
    described = manifest.load(directory)
    cache = settings.folder / "cache"
    cache.mkdir(exist_ok=True)
    artefact = Artefact(
        manifest=described,
        graph=manifest.read_file(directory, described, described.graph),
        engines=engines,
        cache_dir=str(cache),
        device=settings.device,
    )
    return registry.open_backend(variant, artefact)


__all__ = ["ENGINES", "SHIPPED", "ConfigError", "asked", "directories", "opened", "usable", "wanted"]
