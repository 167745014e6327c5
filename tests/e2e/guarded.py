"""A service with an admin port, which is plain whatever the clients' ports speak; and its keys."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from tests.e2e.http import Reply, once
from tests.e2e.service import ROOT, Service, free_port


class Guarded(Service):
    """`squint serve --admin-port ...`; ready when the admin port says so."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.admin = free_port()
        super().__init__(folder, "--admin-port", str(self.admin), *flags)
        self.probed = self.admin

    def ask_admin(self, method: str, target: str, headers: dict[str, str] | None = None) -> Reply:
        """One request to the admin port."""
        return asyncio.run(once(self.admin, method, target, b"", headers))

    def metric(self, begin: str) -> float:
        """The sum of the metrics that begin so."""
        text = self.ask_admin("GET", "/metrics").body.decode()
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(begin))


def keys(file: Path, *words: str) -> str:
    """`squint keys ...` on this file; what it prints."""
    command = [sys.executable, "-m", "squint", "keys", *words, "--file", str(file)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
