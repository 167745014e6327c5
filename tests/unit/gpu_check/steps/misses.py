"""A step for which a library is missing."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from tests.gpu.plan import Settings


def run(settings: Settings, save: Callable[[dict[str, Any]], None]) -> None:
    import_module("a_library_that_is_not_there")
