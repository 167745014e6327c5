"""Starts the real service as a user does and watches it from outside."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.e2e.http import Connection, Reply, once
from tests.e2e.waiting import until

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 180.0
"""Patience, where several real backends are measured on a busy machine."""
ONE_GATEWAY = {"SQUINT_GATEWAYS": "1"}
"""On every machine, for those that say nothing else."""


def free_port() -> int:
    """A port nobody listens on at the moment."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Different ones."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


class Service:
    """`squint serve` with these flags; the fake backend unless told otherwise."""

    def __init__(self, folder: Path, *flags: str, fake: bool = True) -> None:
        self.port, self.grpc_port = free_ports(2)
        self.log_path = folder / "log.jsonl"
        self._out_path = folder / "out.txt"
        backend = ["--backend", "fake", "--allow-fake"] if fake else []
        self._command = [sys.executable, "-m", "squint", "serve", "--http-port", str(self.port), *backend]
        self._command += ["--grpc-port", str(self.grpc_port)]
        # Most tests end a service that nobody asks any more: those that do not, say how long it drains.
        self._command += ["--cache-dir", str(folder / "cache"), "--drain-seconds", "0", *flags]
        self.process: subprocess.Popen[bytes] | None = None
        self.probed = self.port
        """The port whose /readyz is asked."""
        self.stdin: int | None = None
        """What it is started with; a test's own without it."""

    def __enter__(self) -> Self:
        self.start()
        self.wait_ready()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start; do not wait."""
        with open(self.log_path, "ab") as log, open(self._out_path, "ab") as out:
            self.process = subprocess.Popen(
                self._command, cwd=ROOT, stdin=self.stdin, stdout=out, stderr=log, env=ONE_GATEWAY | os.environ
            )

    def wait_ready(self, seconds: float = START_SECONDS) -> None:
        """Until /readyz says so."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.process is not None and self.process.poll() is not None:
                raise RuntimeError(f"the service ended with {self.process.returncode}: {self.log_text()[-2000:]}")
            try:
                if asyncio.run(once(self.probed, "GET", "/readyz")).status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise TimeoutError(f"not ready after {seconds} s: {self.log_text()[-2000:]}")

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def request(self, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Reply:
        """One request, blocking."""
        return asyncio.run(once(self.port, method, target, body, headers))

    async def handed_on(self) -> float:
        """How many images a backend was given so far."""
        text = (await once(self.port, "GET", "/metrics")).body.decode()
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("squint_batch_items_sum"))

    async def until_handed_on(self, before: float) -> None:
        """Until a backend was given more images than `before`; raises TimeoutError."""
        async with asyncio.timeout(20.0):
            while await self.handed_on() <= before:
                await asyncio.sleep(0.02)

    async def occupied(self, image: bytes) -> tuple[Connection, asyncio.Task[Reply]]:
        """Ask what an image is, while nobody else asks; returns as soon as a backend has it."""
        before = await self.handed_on()
        connection = Connection(self.port)
        task = asyncio.ensure_future(connection.request("POST", "/classify", image))
        await self.until_handed_on(before)
        return connection, task

    def log_text(self) -> str:
        """Everything on stderr so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def out_text(self) -> str:
        """Everything on stdout so far."""
        return self._out_path.read_text(errors="replace") if self._out_path.exists() else ""

    def log_lines(self, event: str) -> list[dict[str, Any]]:
        """The log lines of one event."""
        lines = [json.loads(line) for line in self.log_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("event") == event]

    def logged(self, request_id: str) -> dict[str, Any]:
        """The log line of a request; it may come a moment after the answer."""
        found: list[dict[str, Any]] = []

        def there() -> bool:
            found[:] = [line for line in self.log_lines("request") if line["request_id"] == request_id]
            return bool(found)

        until(there, why=f"no line for {request_id}")
        (line,) = found
        return line

    def pids(self, role: str) -> dict[int, str]:
        """Process id -> title of the children with this role, as `ps` shows them."""
        if self.process is None:
            return {}
        listed = subprocess.run(
            ["ps", "-o", "pid=,args=", "--ppid", str(self.process.pid)], capture_output=True, text=True, check=False
        )
        found = {}
        for line in listed.stdout.splitlines():
            pid, _, title = line.strip().partition(" ")
            if title.strip().startswith(f"squint: {role}"):
                found[int(pid)] = title.strip()
        return found
