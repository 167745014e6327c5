"""What each backend makes of a model on this machine: whether its answers agree with the reference, and how fast it is.

Both run the service's own trials, each in a process of its own, so what is said here is what `squint serve` acts on.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import msgspec
import numpy as np
from tqdm import tqdm

from models import manifest
from models.manifest import Manifest
from service.backends import registry
from service.backends.base import Artefact, Backend, BackendError, Images
from service.backends.choose import Report, choose, made, try_apart
from service.backends.trial import Measured, Trial
from service.errors import ConfigError
from squint.errors import Failure, how_to_get
from squint.measure.answers import Reader
from squint.measure.scenes import test_scenes


def verify(directory: Path, cache_dir: str, progress: Callable[[str], None], backend: str = "auto") -> list[Measured]:
    """Agreement with the reference of every variant that `backend` stands for; `refused` says why one is not used."""
    measured = []
    compiled = made(manifest.load(directory), cache_dir)
    for variant in registry.variants(backend):
        if backend == "auto" and registry.is_made(variant) and variant not in compiled:
            continue
        if not registry.installed(variant):
            measured.append(Measured(variant, refused="not installed"))
            continue
        progress(variant)
        measured.append(try_apart(Trial(str(directory), variant, 1, cache_dir, False)))
    return measured


def built(
    directory: Path,
    model: Manifest,
    backend: str,
    cache_dir: str,
    progress: Callable[[str], None],
    device: str = "cpu",
    sizes: Collection[int] = (),
) -> Iterator[tuple[str, Measured]]:
    """Compile a model ahead of time for every variant that `backend` stands for, at these batch sizes or at all, and
    compare its answers with the
    reference; `load_seconds` is what compiling took. Raises ConfigError for a backend that loads nothing compiled,
    Failure where its library is missing."""
    graph = manifest.read_file(directory, model, model.graph)
    artefact = Artefact(manifest=model, graph=graph, cache_dir=cache_dir, device=device)
    variants = registry.variants(backend, device=device)
    if not all(registry.is_made(variant) for variant in variants):
        raise ConfigError(f"backend {backend}: nothing is compiled for it; accepted: {', '.join(registry.MADE)}")
    for variant in variants:
        if not registry.installed(variant):
            raise Failure(f"compiling needs torch; {how_to_get('models')}")
        begin = time.monotonic()
        try:
            registry.build(variant, artefact, _told(progress, f"{model.name}: {variant}"), sizes)
        except BackendError as error:
            yield variant, Measured(variant, refused=str(error))
            continue
        seconds = time.monotonic() - begin
        tried = try_apart(Trial(str(directory), variant, 1, cache_dir, False, device=device))
        yield variant, msgspec.structs.replace(tried, load_seconds=seconds)


def _told(progress: Callable[[str], None], what: str) -> Callable[[str], None]:
    return lambda step: progress(f"{what}, {step}")


def opened(directory: Path, model: Manifest, variant: str, cache_dir: str) -> Backend:
    """A model on a variant, with one engine thread."""
    graph = manifest.read_file(directory, model, model.graph)
    return registry.open_backend(variant, Artefact(manifest=model, graph=graph, engines=1, cache_dir=cache_dir))


def pictures(model: Manifest, count: int, seed: int = 0) -> Images:
    """Fresh test scenes as the network gets them, uint8 [count, H, W, 3]."""
    reader = Reader(model)
    scenes = tqdm(test_scenes(seed, count), total=count, unit="scene", desc="rendering", leave=False)
    return np.concatenate([reader.read(scene.jpeg)[0] for scene in scenes])


def profile(directory: Path, model: Manifest, backend: str, threads: int, cache_dir: str, *, fresh: bool) -> Report:
    """What the service knows of the model's speed here; measured now where it knows nothing, or when `fresh`."""
    if not fresh:
        return choose(directory, model, backend, engines=threads, cache_dir=cache_dir)
    with tempfile.TemporaryDirectory() as empty:
        return choose(directory, model, backend, engines=threads, cache_dir=empty)
