"""A worker's models: found, verified, matched with a backend, loaded and warmed."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from models import manifest
from models.levels import LevelError, plan
from models.manifest import Manifest, ManifestError
from service import log
from service.backends import registry
from service.backends.base import Artefact, Backend, BackendError
from service.backends.choose import Report, choose, try_apart
from service.backends.pipeline import bucket
from service.backends.trial import Measured, Trial
from service.config import CPU, Config
from service.core.batching import Profile
from service.errors import ConfigError
from service.tasks import raw
from service.tasks.registry import TASKS, Task
from service.wire.messages.control import Unit
from service.wire.messages.worker import Form, Loaded, Timing

PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Model:
    """One loaded model."""

    manifest: Manifest
    backend: Backend
    task: Task
    timings: dict[str, Timing]
    load_seconds: float
    outputs: tuple[Form, ...] = ()
    key: str = ""
    resident: int = 0

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
        """What whoever dispatches is told."""
        timings = list(self.timings.values())
        return Loaded(
            self.manifest.name, self.backend.name, self.load_seconds, timings, self.outputs, self.key, self.resident
        )


def load_all(
    config: Config,
    units: Iterable[Unit],
    slot_bytes: int,
    progress: Callable[[], None],
    *,
    again: bool = False,
    device: str = CPU,
) -> dict[str, Model]:
    """All units but those that rest, by key; `progress` is called before each step. With `again`, when they have been
    served before, those that cannot be loaded any more are left out: the others are worth more than none. A GPU on
    which none can be loaded any more has failed.

    Raises ConfigError or ManifestError, in one line that names the model or the file.
    """
    loaded: dict[str, Model] = {}
    lost = ""
    for unit in units:
        if unit.resting:
            continue
        try:
            loaded[unit.key] = load(config, unit, slot_bytes, progress, device=device)
        except (ConfigError, ManifestError) as error:
            if not again:
                raise
            log.event("model_lost", severity="error", model=unit.model, reason=str(error))
            lost = str(error)
    if lost and not loaded and device != CPU:
        raise ConfigError(f"{device}: {lost}")
    return loaded


def load(
    config: Config,
    unit: Unit,
    slot_bytes: int,
    progress: Callable[[], None],
    *,
    serving: bool = False,
    like: Model | None = None,
    device: str = CPU,
) -> Model:
    """Load and warm one model. While the worker is `serving`, what could crash is tried in another process first, and
    a version of the same make as the one that serves now, `like`, is taken to be as fast. Raises as load_all does."""
    progress()
    before = time.monotonic()
    name, directory = unit.model, Path(unit.directory)
    described = manifest.load(directory)
    if described.name != name:
        raise ManifestError(f"{directory}: holds the model {described.name!r}, expected {name!r}")
    if unit.digest not in ("", described.digest):
        raise ManifestError(f"{directory}: has changed since it was looked at")
    operator = config.model.get(name)
    wanted = (operator.backend if operator else None) or config.backend
    try:
        choice = _Choice(config, device, directory, described, wanted, progress)
        variant, timings = choice.beside(like) if serving else choice.made()
        progress()
        registry.prepare(variant)
        give_back_memory()
        held = _resident()
        model = _open(config, device, directory, described, variant, timings)
        try:
            if model.image_bytes > slot_bytes:
                raise ConfigError(f"an image takes {model.image_bytes} bytes, a slot has {slot_bytes}")
            outputs = warm(model, config.threads, config.max_batch, progress)
        except Exception:
            model.backend.close()
            raise
    except BackendError as error:
        raise ConfigError(f"model {name}: {wanted} cannot run it: {error}") from None
    except ConfigError as error:
        raise ConfigError(f"model {name}: {str(error).removeprefix(f'model {name}: ')}") from None
    model.backend.settle()
    give_back_memory()
    resident = max(_resident() - held, 0)
    seconds = time.monotonic() - before
    log.event(
        "model_loaded",
        model=name,
        version=described.version,
        backend=model.backend.name,
        seconds=seconds,
        resident_mb=round(resident / 1e6, 1),
    )
    return replace(model, load_seconds=seconds, outputs=outputs, key=unit.key, resident=resident)


def _open(
    config: Config, device: str, directory: Path, described: Manifest, variant: str, timings: dict[str, Timing]
) -> Model:
    artefact = Artefact(
        manifest=described,
        graph=manifest.read_file(directory, described, described.graph),
        engines=config.threads,
        cache_dir=config.cache_dir,
        device=device,
        wide=any(timing.wide < 1 for timing in timings.values()),
        fake_cost_ms=(config.fake_batch_ms, config.fake_item_ms),
    )
    backend = registry.open_backend(variant, artefact, allow_fake=config.allow_fake)
    return Model(described, backend, TASKS[described.task], timings, 0.0)


@dataclass(frozen=True, slots=True)
class _Choice:
    """Of the variant to load, and its profiles by level."""

    config: Config
    device: str
    directory: Path
    described: Manifest
    wanted: str
    progress: Callable[[], None]

    def made(self, *, gently: bool = False) -> tuple[str, dict[str, Timing]]:
        """By what is known or measured now. What is measured `gently`, while others work, is not remembered."""
        if self.wanted == "fake":
            a, b = self.config.fake_batch_ms / 1000, self.config.fake_item_ms / 1000
            levels = [level.name for level in self.described.levels]
            return self.wanted, {level: Timing(level, a, max(b, 1e-6)) for level in levels}

        def attempt(trial: Trial) -> Measured:
            log.event("measuring", model=self.described.name, backend=trial.variant)
            return try_apart(trial, gently=gently)

        report: Report = choose(
            self.directory,
            self.described,
            self.wanted,
            engines=self.config.threads,
            cache_dir=self.config.cache_dir,
            device=self.device,
            progress=self.progress,
            attempt=attempt,
            keep=not gently,
        )
        log.event(
            "backend_chosen",
            model=self.described.name,
            asked=self.wanted,
            chosen=report.chosen,
            cached=report.cached,
            why=report.why,
        )
        if gently and report.cached:
            self._rehearse(report.chosen, wide=self._wide(report.timings))
        timings = report.timings
        if not self.config.wide:
            timings = [msgspec.structs.replace(timing, wide=1.0) for timing in timings]
        return report.chosen, {timing.level: timing for timing in timings}

    def beside(self, like: Model | None) -> tuple[str, dict[str, Timing]]:
        """The same while this process serves: nothing is loaded here that another process has not survived."""
        if self.wanted == "fake":
            self._rehearse("fake/none")
        elif (
            like is not None
            and _same_make(like.manifest, self.described)
            and not try_apart(
                self._trial(like.backend.name, wide=self._wide(like.timings.values())), gently=True
            ).refused
        ):
            return like.backend.name, like.timings
        return self.made(gently=True)

    def _rehearse(self, variant: str, *, wide: bool = False) -> None:
        """Raises ConfigError when a variant that is known to be right cannot be loaded and run."""
        tried = try_apart(self._trial(variant, rehearse=True, wide=wide), gently=True)
        if tried.refused:
            raise ConfigError(f"{variant}: {tried.refused}")

    def _trial(self, variant: str, *, rehearse: bool = False, wide: bool = False) -> Trial:
        return Trial(
            str(self.directory), variant, self.config.threads, self.config.cache_dir, False, rehearse, self.device, wide
        )

    def _wide(self, timings: Iterable[Timing]) -> bool:
        """Whether it is loaded for wide runs."""
        return self.config.wide and any(timing.wide < 1 for timing in timings)


def warm(model: Model, engines: int, max_batch: int, progress: Callable[[], None]) -> tuple[Form, ...]:
    """Run every engine at every level with a batch of 1, and at the highest with the largest that pays: the first run
    of a size may compile, and memory that is short had better be short now. Sizes that will not be run are not, nor
    those of lower levels: a backend keeps memory for each. A device is made ready for every size up to that one at
    every level, since it runs no others. Answers what the network's outputs are."""
    transform = model.manifest.transform
    together = threading.Barrier(engines)
    forms: tuple[Form, ...] = ()

    def run(size: int, level: str) -> tuple[Form, ...]:
        together.wait()
        images = np.zeros((size, transform.height, transform.width, 3), np.uint8)
        return raw.forms(model.backend.run(images, level))

    with ThreadPoolExecutor(engines) as pool:
        for number, (level, timing) in enumerate(model.timings.items()):
            if timing.wide < 1:
                progress()
                model.backend.run(np.zeros((1, transform.height, transform.width, 3), np.uint8), level, wide=True)
            cap = Profile(timing.a, timing.b).cap(max_batch)
            sizes = sorted({1, cap}) if number == 0 else [1]
            if model.backend.pipelined:
                there = model.backend.sizes
                sizes = [size for size in there if size <= bucket(min(cap, there[-1]), there)]
            for size in sizes:
                progress()
                for done in [pool.submit(run, size, level) for _ in range(engines)]:
                    found = done.result()
                    forms = forms or found
    return forms


def _same_make(one: Manifest, other: Manifest) -> bool:
    """Two versions differ in their weights alone, as far as their speed goes."""
    return (one.task, one.transform, one.trunk, one.levels[0].gmacs) == (
        other.task,
        other.transform,
        other.trunk,
        other.levels[0].gmacs,
    ) and [(level.name, level.explicit) for level in one.levels] == [
        (level.name, level.explicit) for level in other.levels
    ]


def _resident() -> int:
    """Bytes of memory that this process has to itself."""
    with open("/proc/self/statm", encoding="ascii") as file:
        _, resident, shared, *_ = file.read().split()
    return (int(resident) - int(shared)) * PAGE


def give_back_memory() -> None:
    """What loading took and freed goes back to the system (where the C library can do that)."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
