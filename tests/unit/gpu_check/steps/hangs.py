"""A step that never ends, nor does what it has started."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import Any

from tests.gpu.plan import Settings


def run(settings: Settings, save: Callable[[dict[str, Any]], None]) -> None:
    process = subprocess.Popen(["sleep", "1000"])
    (settings.folder / "hung.pid").write_text(f"{process.pid}")
    time.sleep(1000)
