"""What this machine is, and how busy it was."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from loadtest.samples import Usage

FIRST = -10
PACKAGES = ("squint", "uvloop", "httptools", "numpy", "pillow")


@dataclass(frozen=True)
class Clocks:
    """Readings at one moment."""

    wall: float
    own: float
    total: int
    idle: int
    steal: int


def read() -> Clocks:
    """The clocks now: our own CPU time, and all cores' in ticks."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    try:
        ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        ticks = [0] * 8
    # user, nice, system, idle, iowait, irq, softirq, steal
    return Clocks(time.monotonic(), usage.ru_utime + usage.ru_stime, sum(ticks), ticks[3] + ticks[4], ticks[7])


def between(begin: Clocks, end: Clocks) -> Usage:
    """What was used from one reading to the next."""
    ticks = max(1, end.total - begin.total)
    return Usage(
        wall_seconds=end.wall - begin.wall,
        cpu_seconds=end.own - begin.own,
        cores=len(os.sched_getaffinity(0)),
        machine_busy=1 - (end.idle - begin.idle) / ticks,
        steal=(end.steal - begin.steal) / ticks,
        nice=os.getpriority(os.PRIO_PROCESS, 0),
    )


def go_first() -> None:
    """Put this process before others in the scheduler's order, where the system allows it (root does).

    A client elsewhere would not wait for the server's cores; a sender beside a busy server does, for milliseconds.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, FIRST)


def describe() -> dict[str, Any]:
    """Hardware, system and versions, for a report; nothing that names the machine or its user."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _field("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": int((_field("/proc/meminfo", "MemTotal") or "0").split()[0]) // 1024,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
    }


def _field(path: str, name: str) -> str:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
