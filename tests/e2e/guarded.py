"""A service with an admin port, which is plain whatever the clients' ports speak; and its keys."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

from tests.e2e.http import Reply, once
from tests.e2e.service import ROOT, START_SECONDS, Service, free_port


class Guarded(Service):
    """`squint serve --admin-port ...`; ready when the admin port says so."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.admin = free_port()
        super().__init__(folder, "--admin-port", str(self.admin), *flags)

    def wait_ready(self, seconds: float = START_SECONDS) -> None:
        """Until /readyz of the admin port says so."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.process is not None and self.process.poll() is not None:
                raise RuntimeError(f"the service ended with {self.process.returncode}: {self.log_text()[-2000:]}")
            try:
                if asyncio.run(once(self.admin, "GET", "/readyz")).status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise TimeoutError(f"not ready after {seconds} s: {self.log_text()[-2000:]}")

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
