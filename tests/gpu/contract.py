"""The contract suite, with every variant that runs on the device."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from tests.gpu.plan import Settings
from tests.walls import ROOT

SUITE = ("tests/contract/test_backends.py", "tests/contract/test_levels.py", "tests/contract/test_device.py")


def run(settings: Settings, save: Callable[[dict[str, Any]], None]) -> None:
    """Raises RuntimeError when a test fails; the counts are kept anyway."""
    suite = SUITE[:1] if settings.small else SUITE
    chosen = ["-k", "onnxruntime and classify"] if settings.small else []
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-m", "torch or not torch", *chosen, *suite]
    environment = {**os.environ, "SQUINT_TEST_DEVICE": settings.device}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    print(done.stdout[-20_000:])
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|errors?)", done.stdout)}
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    save({"counts": counts, "failed": failed[:50], "suite": list(suite)})
    if done.returncode:
        raise RuntimeError(f"{len(failed)} tests of the contract suite fail")
