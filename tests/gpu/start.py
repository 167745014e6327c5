"""From the command to ready: the first start, which measures and compiles, and the next, which finds it done."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.e2e.service import Service
from tests.gpu import variants
from tests.gpu.plan import Settings

ROUNDS = 3
FIRST_SECONDS = 1800.0


def run(settings: Settings, save: Callable[[dict[str, Any]], None]) -> None:
    """All shipped models, and the first of the networks with its levels."""
    first = settings.networks[0].name
    chosen = settings.folder / "start"
    (chosen / "zoo").mkdir(parents=True, exist_ok=True)
    link = chosen / "zoo" / first
    if not link.exists():
        link.symlink_to((settings.zoo / first).resolve())
    shipped = sorted(path.name for path in variants.SHIPPED.iterdir() if path.is_dir())
    data: dict[str, Any] = {"models": [*shipped, first]}
    flags = ["--models", str(variants.SHIPPED), "--models", str(chosen / "zoo")]
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
