"""Carries out steps, each in a process of its own and within its time, and keeps what came of them.

A step that is done is not repeated while the sources, the device and the size of the run are the same. One that cannot
be carried out, fails or takes too long says so in its result, and the next one begins. What it came to know is kept:
when it is carried out again, or for other models, levels or batches, it goes on from there.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

import msgspec

from service.backends import nvidia
from tests.gpu.plan import Cannot, Result, Settings, Status, Step
from tests.walls import ROOT

CANNOT = 5
"""Exit status of a step that cannot be carried out."""
SOURCES = ("service", "models", "squint", "loadtest", "tests/gpu")
_LAST_WORDS = 300
_PR_SET_PDEATHSIG = 1


def identity(settings: Settings) -> str:
    """What results depend on, in two words: the first is the same whichever part of it all is carried out."""
    told = _git("rev-parse", "HEAD") + _git("diff", "HEAD") or _sources()
    devices = [device.make for device in nvidia.devices()]
    parts = [told, settings.device, settings.backend, f"{settings.small}", *settings.serve, *devices, sys.version]
    part = repr([sorted(settings.models), sorted(settings.levels), sorted(settings.batches)])
    return " ".join(hashlib.sha256(one.encode()).hexdigest()[:16] for one in ("\0".join(parts), part))


def _sources() -> str:
    """A digest of what is measured, where there is no git."""
    digest = hashlib.sha256()
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _git(*words: str) -> str:
    with contextlib.suppress(OSError):
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    return ""


def kept(settings: Settings, step: Step) -> Result | None:
    """What came of a step before; None where there is nothing that can be read."""
    try:
        return msgspec.json.decode(_file(settings, step).read_bytes(), type=Result)
    except (OSError, msgspec.MsgspecError):
        return None


def carry_out(
    settings: Settings,
    steps: Sequence[Step],
    *,
    again: bool = False,
    told: Callable[[Step, Result], None] = lambda step, result: None,
) -> list[Result]:
    """Every step that is not done; `told` hears of each, also of those that were. With `again` all of them."""
    run = identity(settings)
    results = []
    for step in steps:
        found = kept(settings, step)
        if again or found is None or found.run != run or found.status != "done":
            known = found is not None and not again and found.run.split()[0] == run.split()[0]
            found = _one(settings, step, run, known=known)
        results.append(found)
        told(step, found)
    return results


def _one(settings: Settings, step: Step, run: str, *, known: bool) -> Result:
    settings.folder.mkdir(parents=True, exist_ok=True)
    log = settings.folder / f"{step.name}.log"
    answer = settings.folder / f"{step.name}.answer.json"
    if not known:
        answer.unlink(missing_ok=True)
    limit = step.small if settings.small else step.seconds
    limit = min(limit, settings.limit or limit)
    # What has been compiled when the time is over need not be compiled again.
    environment = {"TORCHINDUCTOR_CACHE_DIR": str(settings.folder / "inductor"), **os.environ}
    command = [sys.executable, "-m", "tests.gpu.runner", step.module, str(answer)]
    began = time.monotonic()
    status: Status
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.communicate(msgspec.json.encode(settings), limit)
            status, why = _judged(process.returncode, log)
        except subprocess.TimeoutExpired:
            status, why = "late", f"took longer than {limit:.0f} s; carried out again it goes on from here"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what it has started, too
            process.wait()
    data = {}
    if answer.exists():
        with contextlib.suppress(msgspec.MsgspecError):
            data = msgspec.json.decode(answer.read_bytes(), type=dict)
    seconds = round(time.monotonic() - began, 1)
    result = Result(step.name, status, run, seconds, datetime.now(UTC).isoformat(timespec="seconds"), why, data)
    _file(settings, step).write_bytes(msgspec.json.format(msgspec.json.encode(result)))
    return result


def _judged(returncode: int, log: Path) -> tuple[Status, str]:
    if returncode == 0:
        return "done", ""
    lines = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
    last = lines[-1][-_LAST_WORDS:]
    if returncode == CANNOT:
        return "cannot", last
    return "failed", f"exit status {returncode}: {last}"


def _file(settings: Settings, step: Step) -> Path:
    return settings.folder / f"{step.name}.json"


def save(answer: Path, data: dict[str, object]) -> None:
    """What a step knows so far: it is in the report even if the step does not come to its end."""
    whole = answer.with_suffix(".part")
    whole.write_bytes(msgspec.json.encode(data, enc_hook=str))
    os.replace(whole, answer)


def main() -> None:
    """The process of one step; it ends with the one that has started it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    module, answer = sys.argv[1], Path(sys.argv[2])
    settings = msgspec.json.decode(sys.stdin.buffer.read(), type=Settings)
    try:
        run: Callable[[Settings, Callable[[dict[str, object]], None]], None] = import_module(module).run
        run(settings, lambda data: save(answer, data))
    except Cannot as reason:
        print(reason, flush=True)
        sys.exit(CANNOT)
    except ImportError as error:
        print(f"needs {error.name}, which is not installed", flush=True)
        sys.exit(CANNOT)


if __name__ == "__main__":
    main()
