"""What each backend makes of a model on this machine: whether its answers agree with the reference, and how fast it is.

Both run the service's own trials, each in a process of its own, so what is said here is what `squint serve` acts on.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from models import manifest
from models.manifest import Manifest
from service.backends import registry
from service.backends.base import Artefact, Backend, Images
from service.backends.choose import Report, choose, try_apart
from service.backends.trial import Measured, Trial
from squint.measure.answers import Reader
from squint.measure.scenes import test_scenes


def verify(directory: Path, cache_dir: str, progress: Callable[[str], None], backend: str = "auto") -> list[Measured]:
    """Agreement with the reference of every variant that `backend` stands for; `refused` says why one is not used."""
    measured = []
    for variant in registry.variants(backend):
        if not registry.installed(variant):
            measured.append(Measured(variant, refused="not installed"))
            continue
        progress(variant)
        measured.append(try_apart(Trial(str(directory), variant, 1, cache_dir, False)))
    return measured


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
