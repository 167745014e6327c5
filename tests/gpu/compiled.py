"""What PyTorch loads, made ahead of time for every model (`squint models compile`)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from models import manifest
from service.backends import registry
from service.backends.base import Artefact, BackendError
from service.errors import ConfigError
from tests.gpu import variants
from tests.gpu.plan import Settings


def run(settings: Settings, save: Callable[[dict[str, Any]], None]) -> None:
    """Every variant that can do nothing without; in a small run those alone that the run serves with. Raises
    RuntimeError when something cannot be compiled; the others are."""
    rows: list[dict[str, Any]] = settings.remembered("compile").get("rows", [])
    problems: list[str] = []
    wanted = variants.asked(settings) if settings.small else variants.wanted(settings)
    save({"rows": rows})
    for name, directory in variants.directories(settings).items():
        described = manifest.load(directory)
        artefact = Artefact(
            manifest=described,
            graph=manifest.read_file(directory, described, described.graph),
            cache_dir=str(settings.folder / "cache"),
            device=settings.device,
        )
        for variant in [one for one in wanted if registry.is_made(one)]:
            began, problem = time.monotonic(), ""
            try:
                registry.build(variant, artefact, lambda step: print(step, flush=True), settings.batches)
            except (BackendError, ConfigError) as error:
                problem = str(error)
            seconds = round(time.monotonic() - began, 1)
            sizes = ", ".join(map(str, settings.batches)) or "all"
            row = {"model": name, "variant": variant, "batches": sizes, "seconds": seconds, "problem": problem}
            rows.append(row)
            save({"rows": rows})
            problems += [f"{name} {variant}: {problem}"] if problem else []
    if problems:
        raise RuntimeError("; ".join(problems[:5]))
