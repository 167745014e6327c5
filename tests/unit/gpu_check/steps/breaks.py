"""A step that fails half way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.gpu.plan import Settings


def run(settings: Settings, save: Callable[[dict[str, Any]], None]) -> None:
    save({"before": 1})
    raise RuntimeError("it broke")
