"""What the service's processes hold, from outside."""

from __future__ import annotations

import os
from pathlib import Path

from tests.e2e.service import Service


def pids(service: Service) -> dict[str, int]:
    """Title -> process id of all processes, the supervisor included."""
    found = {title: pid for role in ("gateway", "decoder", "worker") for pid, title in service.pids(role).items()}
    if service.process is not None:
        found["squint: supervisor"] = service.process.pid
    return found


def pss(pid: int) -> int:
    """Proportional set size in bytes: private pages, and a fair part of shared ones."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def descriptors(pid: int) -> int:
    """Open file descriptors."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid: int) -> int:
    """Threads."""
    return len(os.listdir(f"/proc/{pid}/task"))
