"""The service calls nobody: it answers those who connect, and opens no connection to anything outside."""

from __future__ import annotations

import ast
import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import walls
from tests.e2e import images
from tests.e2e.guarded import Guarded
from tests.e2e.raw import speak

HOOK = """
import os, sys

def heard(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request"):
        where = arguments[1] if event in ("socket.connect", "socket.sendto") else arguments[0]
        os.write(2, ("OUTBOUND %s %r\\n" % (event, where)).encode())

sys.addaudithook(heard)
"""
CLIENTS = {"httpx", "requests", "urllib", "urllib3", "http", "aiohttp", "ftplib", "smtplib", "telnetlib"}
CALLS = {"connect", "connect_ex", "create_connection", "open_connection", "create_datagram_endpoint", "sendto"}
NAMED_BY_THE_OPERATOR = "service/gateway/tracing/"
"""Traces go to the collector that an operator names, and are off unless one is."""


def test_no_file_of_the_service_can_call_anybody() -> None:
    """No client library is imported and nothing connects, but for the exporter of traces."""
    found = []
    for source in walls.sources("service"):
        if source.path.startswith(NAMED_BY_THE_OPERATOR):
            continue
        found += [
            f"{source.path}: {name}"
            for name in source.imports
            if name.partition(".")[0] in CLIENTS and not name.startswith(("urllib.parse", "http.HTTPStatus"))
        ]
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CALLS:
                found.append(f"{source.path}:{node.lineno}: {node.func.attr}")
    assert not found, "\n".join(found)


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Guarded]:
    """A service each of whose processes says what it connects to."""
    (tmp_path / "sitecustomize.py").write_text(HOOK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Guarded(tmp_path, "--log-level", "debug") as running:
        yield running


def outside(pids: list[int]) -> list[str]:
    """What `ss` would show: the TCP and UDP sockets of these processes that lead somewhere, and listen nowhere."""
    held = {
        path.readlink().name.removeprefix("socket:[").removesuffix("]")
        for pid in pids
        for path in Path(f"/proc/{pid}/fd").iterdir()
        if path.is_symlink() and str(path.readlink()).startswith("socket:")
    }
    found = []
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/{pids[0]}/net/{table}").read_text().splitlines()[1:]:
            _, local, remote, state, *_, inode = line.split()[:10]
            if inode in held and state != "0A":
                found.append(f"{table} {local} {remote} {state}")
    return found


def test_a_running_service_calls_nobody(heard: Guarded) -> None:
    for target in ("/classify", "/detect?explain=all", "/segment?mask=png"):
        assert heard.request("POST", target, images.png((3, 4, 5))).status == 200
    for body in (b'{"url": "http://127.0.0.1:9/x.jpg"}', b'{"image": "http://127.0.0.1:9/x.jpg"}'):
        assert heard.request("POST", "/classify", body, {"Content-Type": "application/json"}).status in (400, 415, 422)
    for target in ("/docs", "/openapi.json", "/v1/models", "/v2", "/", "/metrics"):
        assert heard.request("GET", target).status == 200
    proxied = b"GET http://127.0.0.1:9/ HTTP/1.1\r\nHost: 127.0.0.1:9\r\nConnection: close\r\n\r\n"
    asyncio.run(speak(heard.port, proxied))
    # That the hook hears at all is seen from a process like them.
    code = "import socket; socket.socket().connect_ex(('127.0.0.1', 9))"
    tried = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "OUTBOUND socket.connect ('127.0.0.1', 9)" in tried.stderr
    pids = [pid for role in ("gateway", "decoder", "worker") for pid in heard.pids(role)]
    assert len(pids) >= 4 and heard.process is not None
    assert outside([heard.process.pid, *pids]) == []
    said = [line for line in heard.log_text().splitlines() if line.startswith("OUTBOUND")]
    # gRPC asks what the numbers of its own address mean.
    assert [line for line in said if not line.startswith("OUTBOUND socket.getaddrinfo '127.0.0.1'")] == []
    for line in heard.log_text().splitlines():
        if not line.startswith("OUTBOUND"):
            json.loads(line)
