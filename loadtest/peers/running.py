"""A server that runs: started with a plan in a folder of its own, awaited until it answers, and ended."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import IO

import httpx

from loadtest.bodies import encode
from loadtest.peers import processes
from loadtest.peers.places import ROOT
from loadtest.peers.plan import Plan
from loadtest.peers.servers import KSERVE, Server, best_of

READY_SECONDS = 180.0
ASK_SECONDS, AGAIN_SECONDS = 30.0, 0.25
SETTINGS = ("SQUINT_", "MOSEC_", "BENTOML_", "RAY_", "LIT_", "TRITON", "OMP_")
"""Variables of whoever starts the comparison that would change what is compared."""
SHOWN = 20
"""Lines of what a server wrote, when it fails."""


class Running:
    """A server that runs while the block lasts."""

    def __init__(self, server: Server, plan: Plan, folder: Path) -> None:
        self.server, self.plan = server, plan
        self.url = f"http://127.0.0.1:{plan.port}"
        self._folder = folder
        self._log: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._known: dict[int, processes.Process] = {}
        self.killed: list[int] = []

    def __enter__(self) -> Running:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        require_free(self.plan.port)
        self._log = open(self._folder / "log.txt", "wb")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
        environment = inherited | self.plan.environment()
        environment |= {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"} | self.server.variables
        self._process = subprocess.Popen(
            self.server.command(self.plan, self._folder),
            cwd=self._folder if self.server.ours else ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self.killed = processes.end(self.look(), self._process.pid, self.server.stop)
            self._process.wait()
        if self._log is not None:
            self._log.close()

    def look(self) -> dict[int, processes.Process]:
        """Its processes now."""
        if self._process is not None:
            self._known = processes.family(self._process.pid, self._known)
        return self._known

    def wait(self, photo: bytes, query: str = "", seconds: float = READY_SECONDS) -> list[int]:
        """Until it answers the photo; the answer's classes, best first. Raises RuntimeError."""
        body = encode(photo, self.server.encoding, kserve=KSERVE)
        until, last = time.monotonic() + seconds, "no answer"
        while time.monotonic() < until:
            if self._process is None or self._process.poll() is not None:
                raise RuntimeError(f"{self.server.name} ended before it was ready\n{self.tail()}")
            try:
                reply = httpx.post(
                    self.url + self.server.path + query,
                    content=body.data,
                    headers=dict(body.headers),
                    timeout=ASK_SECONDS,
                )
                if reply.status_code == 200:
                    self.look()
                    return best_of(reply.json())
                last = f"{reply.status_code} {reply.text[:300]}"
            except httpx.HTTPError as error:
                last = f"{type(error).__name__}: {error}"
            time.sleep(AGAIN_SECONDS)
        raise RuntimeError(f"{self.server.name} is not ready after {seconds:.0f} s: {last}\n{self.tail()}")

    def version(self) -> str:
        """What it says of itself; empty if it says nothing."""
        if not self.server.says_version:
            return ""
        reply = httpx.get(self.url + self.server.says_version, timeout=ASK_SECONDS)
        return str(reply.json()["version"])

    def tail(self, lines: int = SHOWN) -> str:
        """The end of what it wrote."""
        text = (self._folder / "log.txt").read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])


def require_free(port: int) -> None:
    """Raises RuntimeError if somebody listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise RuntimeError(f"port {port} is taken: {error.strerror}") from None
