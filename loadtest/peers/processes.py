"""A server's processes: all that descend from the one that was started, what they cost, and their end."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
GRACE_SECONDS = 15.0
AGAIN_SECONDS = 0.1


@dataclass(frozen=True)
class Process:
    """One process; `started` tells it from a later one of the same number."""

    pid: int
    parent: int
    group: int
    started: int
    cpu_seconds: float


def running() -> dict[int, Process]:
    """Every process of the machine that is no zombie."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (process := _read(int(entry.name))) is not None:
            found[process.pid] = process
    return found


def _read(pid: int) -> Process | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    if fields[0] in {"Z", "X"}:
        return None
    # Counted from the state, which is the third field of the file.
    cpu = (int(fields[11]) + int(fields[12])) / TICKS
    return Process(pid, int(fields[1]), int(fields[2]), int(fields[19]), cpu)


def family(root: int, known: dict[int, Process] | None = None) -> dict[int, Process]:
    """`root`, its descendants, and whoever is in its process group; and of `known` those that still run.

    `known` is what an earlier call found: a process whose parent has ended has another parent since.
    """
    everyone = running()
    kept = {pid for pid, old in (known or {}).items() if pid in everyone and everyone[pid].started == old.started}
    kept |= {pid for pid, process in everyone.items() if process.group == root or pid == root}
    while True:
        more = {pid for pid, process in everyone.items() if process.parent in kept} - kept
        if not more:
            return {pid: everyone[pid] for pid in kept if pid in everyone}
        kept |= more


def memory_mib(processes: dict[int, Process]) -> float:
    """What they hold, pages they share counted once between them (PSS)."""
    kib = 0
    for pid in processes:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        kib += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kib / 1024


def end(processes: dict[int, Process], root: int, gently: signal.Signals) -> list[int]:
    """The signal `gently` to `root`; what of the family is left a little later is killed. The killed ones."""
    _send(root, gently)
    until = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < until and family(root, processes):
        time.sleep(AGAIN_SECONDS)
    left = family(root, processes)
    for pid in left:
        _send(pid, signal.SIGKILL)
    while family(root, left):
        time.sleep(AGAIN_SECONDS)
    return sorted(left)


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
