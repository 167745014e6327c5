"""What each backend makes of a model on this machine: whether its answers agree with the reference, and how fast it is.

Both run the service's own trials, each in a process of its own, so what is said here is what `squint serve` acts on.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from models.manifest import Manifest
from service.backends import registry
from service.backends.choose import Report, choose, try_apart
from service.backends.trial import Measured, Trial


def verify(directory: Path, cache_dir: str, progress: Callable[[str], None]) -> list[Measured]:
    """Agreement with the reference of every variant; `refused` says why one is not used."""
    measured = []
    for variant in registry.variants("auto"):
        if not registry.installed(variant):
            measured.append(Measured(variant, refused="not installed"))
            continue
        progress(variant)
        measured.append(try_apart(Trial(str(directory), variant, 1, cache_dir, False)))
    return measured


def profile(directory: Path, model: Manifest, backend: str, threads: int, cache_dir: str, *, fresh: bool) -> Report:
    """What the service knows of the model's speed here; measured now where it knows nothing, or when `fresh`."""
    if not fresh:
        return choose(directory, model, backend, engines=threads, cache_dir=cache_dir)
    with tempfile.TemporaryDirectory() as empty:
        return choose(directory, model, backend, engines=threads, cache_dir=empty)
