"""A step for which something is missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.gpu.plan import Cannot, Settings


def run(settings: Settings, save: Callable[[dict[str, Any]], None]) -> None:
    raise Cannot("this machine has no such thing")
