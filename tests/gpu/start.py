"""From the command to ready: the first start, which measures and compiles, and the next, which finds it done."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.e2e.service import Service
from tests.gpu import variants
from tests.gpu.plan import Cannot, Settings

ROUNDS = 3
FIRST_SECONDS = 1800.0


def run(settings: Settings, save: Callable[[dict[str, Any]], None]) -> None:
    """All shipped models, and the first of the networks with its levels."""
    chosen = settings.folder / "start"
    shutil.rmtree(chosen / "zoo", ignore_errors=True)
    (chosen / "zoo").mkdir(parents=True)
    shipped = [path for path in sorted(variants.SHIPPED.iterdir()) if path.is_dir() and settings.chosen(path.name)]
    made = [settings.zoo / network.name for network in settings.networks[:1]]
    for path in (*shipped, *made):
        if not path.exists():
            raise Cannot(f"{path.name} was not made: see the step artefacts")
        (chosen / "zoo" / path.name).symlink_to(path.resolve())
    data: dict[str, Any] = {"models": [path.name for path in (*shipped, *made)]}
    cache = settings.folder / "cache"  # what was compiled is taken, what was measured is not
    for choice in cache.glob("choice-*"):
        choice.unlink()
    flags = ["--models", str(chosen / "zoo"), "--cache-dir", str(cache)]
    flags += ["--backend", settings.backend, "--devices", settings.device, "--load-seconds", str(FIRST_SECONDS)]
    flags += ["--grpc-port", "off", *settings.serve]
    seconds = []
    for number in range(1 + (1 if settings.small else ROUNDS)):
        taken, told = started(chosen, flags)
        if number == 0:
            data["first_seconds"] = taken
        else:
            seconds.append(taken)
            data |= {"seconds": seconds, "again_seconds": sorted(seconds)[len(seconds) // 2]}
        data["loaded"] = told
        save(data)


def started(folder: Path, flags: list[str]) -> tuple[float, dict[str, str]]:
    """Seconds to the first `ready`, and the backend of each model; the cache stays."""
    service = Service(folder, *flags, fake=False)
    before = len(service.log_lines("model_loaded"))
    began = time.monotonic()
    service.start()
    try:
        service.wait_ready(FIRST_SECONDS)
        taken = round(time.monotonic() - began, 2)
        return taken, {line["model"]: line["backend"] for line in service.log_lines("model_loaded")[before:]}
    finally:
        service.stop()
