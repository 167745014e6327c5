"""Decompression bombs cost neither memory nor time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.decoder.bombs import HARMLESS, REFUSED

_MEMORY = 300 << 20
_SECONDS = 0.5

_DECODER = """
import json, pathlib, resource, sys, time
from service.config import Limits
from service.decoder import image, sandbox, warmup
from service.decoder.main import MEMORY_BYTES, return_memory
from service.errors import Refusal
from service.wire.messages.decoder import Fitting

def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024

return_memory()
warmup.run()
mapped = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY_BYTES + (20 << 20),) * 2)
fitting = Fitting(fit="crop", height=224, width=224, fill=(0, 0, 0))
out = memoryview(bytearray(224 * 224 * 3))
answers = {}
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    data = path.read_bytes()
    code, started = "ok", time.process_time()
    try:
        image.decode(data, out, fitting, Limits())
    except Refusal as refusal:
        code = refusal.code
    answers[path.name] = code, time.process_time() - started
    del data
print(json.dumps({"answers": answers, "peak": peak()}))
"""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All bombs through one decoder with the memory limit of the real one, the body's 20 MB added."""
    folder: Path = tmp_path_factory.mktemp("bombs")
    for name, make in (REFUSED | HARMLESS).items():
        (folder / name).write_bytes(make())
    done = subprocess.run(
        [sys.executable, "-c", _DECODER, str(folder)],
        capture_output=True,
        timeout=300,
        env={"OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr.decode()
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_there_are_enough_bombs() -> None:
    assert len(REFUSED) >= 40


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, outcome: dict[str, Any]) -> None:
    assert outcome["answers"][name][0] in ("image_too_large", "undecodable_image")


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless(name: str, outcome: dict[str, Any]) -> None:
    assert outcome["answers"][name][0] == "ok"


def test_memory(outcome: dict[str, Any]) -> None:
    assert outcome["peak"] <= _MEMORY


@pytest.mark.fuzz
def test_time(outcome: dict[str, Any]) -> None:
    """Seconds of CPU, so that a busy machine fails nobody."""
    slow = {name: seconds for name, (_, seconds) in outcome["answers"].items() if seconds > _SECONDS}
    assert not slow
