"""A worker's models: found, verified, matched with a backend, loaded and warmed."""

from __future__ import annotations

import ctypes
import gc
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models import manifest
from models.levels import LevelError, plan
from models.manifest import Manifest, ManifestError
from service import log
from service.backends import registry
from service.backends.base import Artefact, Backend, BackendError
from service.backends.choose import Report, choose, try_apart
from service.backends.trial import Measured, Trial
from service.config import Config
from service.core.batching import Profile
from service.errors import ConfigError
from service.tasks.registry import TASKS, Task
from service.wire.messages import Loaded, Timing


@dataclass(frozen=True, slots=True)
class Model:
    """One loaded model."""

    manifest: Manifest
    backend: Backend
    task: Task
    timings: dict[str, Timing]
    load_seconds: float

    @property
    def image_bytes(self) -> int:
        """Bytes of one image in a slot."""
        return self.manifest.transform.height * self.manifest.transform.width * 3

    def timing(self, level: str) -> Timing | None:
        """The profile of a level; for an explicit one, that of the highest level, which takes no less; None for a
        level it does not serve."""
        if level in self.timings:
            return self.timings[level]
        try:
            plan(level, self.manifest.trunk)
        except LevelError:
            return None
        return next(iter(self.timings.values()))

    def loaded(self) -> Loaded:
        """What the gateway is told."""
        return Loaded(self.manifest.name, self.backend.name, self.load_seconds, list(self.timings.values()))


def load_all(config: Config, slot_bytes: int, progress: Callable[[], None]) -> dict[str, Model]:
    """Every model of the configured directories, by name; `progress` is called before each step.

    Raises ConfigError or ManifestError, in one line that names the model or the file.
    """
    found = manifest.find([Path(root) for root in config.models])
    if not found:
        raise ConfigError(f"models: no model in {', '.join(config.models)}; expected NAME/VERSION/manifest.json")
    return {name: load(config, name, directory, slot_bytes, progress) for name, directory in found.items()}


def load(config: Config, name: str, directory: Path, slot_bytes: int, progress: Callable[[], None]) -> Model:
    """Load and warm one model. Raises as load_all does."""
    progress()
    before = time.monotonic()
    described = manifest.load(directory)
    if described.name != name:
        raise ManifestError(f"{directory}: holds the model {described.name!r}, expected {name!r}")
    operator = config.model.get(name)
    wanted = (operator.backend if operator else None) or config.backend
    try:
        variant, timings = _choose(config, directory, described, wanted, progress)
        progress()
        artefact = Artefact(
            manifest=described,
            graph=manifest.read_file(directory, described, described.graph),
            engines=config.threads,
            cache_dir=config.cache_dir,
            fake_cost_ms=(config.fake_batch_ms, config.fake_item_ms),
        )
        backend = registry.open_backend(variant, artefact, allow_fake=config.allow_fake)
        del artefact
        model = Model(described, backend, TASKS[described.task], timings, 0.0)
        if model.image_bytes > slot_bytes:
            raise ConfigError(f"an image takes {model.image_bytes} bytes, a slot has {slot_bytes}")
        warm(model, config.threads, config.max_batch, progress)
    except BackendError as error:
        raise ConfigError(f"model {name}: {wanted} cannot run it: {error}") from None
    except ConfigError as error:
        raise ConfigError(f"model {name}: {str(error).removeprefix(f'model {name}: ')}") from None
    backend.settle()
    _give_back_memory()
    seconds = time.monotonic() - before
    log.event("model_loaded", model=name, version=described.version, backend=backend.name, seconds=seconds)
    return Model(described, backend, model.task, timings, seconds)


def _choose(
    config: Config, directory: Path, described: Manifest, wanted: str, progress: Callable[[], None]
) -> tuple[str, dict[str, Timing]]:
    """The variant to load, and its profiles by level."""
    if wanted == "fake":
        a, b = config.fake_batch_ms / 1000, config.fake_item_ms / 1000
        levels = [level.name for level in described.levels]
        return wanted, {level: Timing(level, a, max(b, 1e-6)) for level in levels}

    def attempt(trial: Trial) -> Measured:
        log.event("measuring", model=described.name, backend=trial.variant)
        return try_apart(trial)

    report: Report = choose(
        directory,
        described,
        wanted,
        engines=config.threads,
        cache_dir=config.cache_dir,
        progress=progress,
        attempt=attempt,
    )
    log.event(
        "backend_chosen", model=described.name, asked=wanted, chosen=report.chosen, cached=report.cached, why=report.why
    )
    return report.chosen, {timing.level: timing for timing in report.timings}


def warm(model: Model, engines: int, max_batch: int, progress: Callable[[], None]) -> None:
    """Run every engine at every level with a batch of 1, and at the highest with the largest that pays: the first run
    of a size may compile, and memory that is short had better be short now. Sizes that will not be run are not, nor
    those of lower levels: a backend keeps memory for each."""
    transform = model.manifest.transform
    together = threading.Barrier(engines)

    def run(size: int, level: str) -> None:
        together.wait()
        model.backend.run(np.zeros((size, transform.height, transform.width, 3), np.uint8), level)

    with ThreadPoolExecutor(engines) as pool:
        for number, (level, timing) in enumerate(model.timings.items()):
            for size in sorted({1, Profile(timing.a, timing.b).cap(max_batch)}) if number == 0 else (1,):
                progress()
                for done in [pool.submit(run, size, level) for _ in range(engines)]:
                    done.result()


def _give_back_memory() -> None:
    """What loading took and freed goes back to the system (where the C library can do that)."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
