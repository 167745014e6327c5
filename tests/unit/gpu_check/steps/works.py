"""A step that comes to its end, and counts how often."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.gpu.plan import Settings


def run(settings: Settings, save: Callable[[dict[str, Any]], None]) -> None:
    with (settings.folder / "runs").open("a") as runs:
        runs.write("once\n")
    save({"device": settings.device, "small": settings.small})
