"""Hundreds of clients that trickle, while others ask: those are cut off, these do not notice.

The short form runs with every test run; `make chaos` runs 500 of them and writes what it measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from pathlib import Path

import pytest

from tests.e2e import memory
from tests.e2e.load import Load, Tally
from tests.e2e.service import Service
from tests.e2e.waiting import meanwhile

pytestmark = pytest.mark.chaos

HEAD, BODY, ANSWER = "head", "body", "answer"
ALLOWED = {HEAD: 10.0, BODY: 30.0, ANSWER: 30.0}
"""Seconds after which each kind is to be gone, as issue and documents promise."""
_ESTABLISHED = 1
SLACK, SHORT_SLACK = 1.0, 5.0
"""For a machine that does other things too; in the short form, which runs beside other tests, that is more."""
STARTS = {
    HEAD: b"POST /classify HTTP/1.1\r\nHost: t\r\nX-Slow: ",
    BODY: b"POST /classify HTTP/1.1\r\nHost: t\r\nContent-Length: 100000\r\n\r\n",
    ANSWER: b"GET /swagger/swagger-ui-bundle.js HTTP/1.1\r\nHost: t\r\n\r\n" * 10,
}


async def trickle(port: int, kind: str, address: str) -> float:
    """Open a connection, send the beginning and then a byte a second; or read nothing. Seconds until it is closed."""
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setblocking(False)
    if kind == ANSWER:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.bind((address, 0))
    await loop.sock_connect(sock, ("127.0.0.1", port))
    start = last = time.monotonic()
    with contextlib.suppress(ConnectionError), sock:
        await loop.sock_sendall(sock, STARTS[kind])
        while _open(sock) and (now := time.monotonic()) < start + 60:
            if kind != ANSWER and now - last >= 1.0:
                last = now
                await loop.sock_sendall(sock, b"x")
            await asyncio.sleep(0.2)
    return time.monotonic() - start


def _open(sock: socket.socket) -> bool:
    """The other side has not closed it; found out without reading anything."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED


async def besieged(service: Service, count: int, seconds: float) -> tuple[Tally, dict[str, list[float]]]:
    """Honest load, and as many slow clients of all kinds besides."""
    classes = len((await _models(service))["labels"])
    load = Load(service.port, 50.0, seconds, classes)
    honest = asyncio.ensure_future(load.run())
    await asyncio.sleep(1.0)
    kinds = [(HEAD, BODY, ANSWER)[number % 3] for number in range(count)]
    slow = []
    for kind in kinds:
        slow.append(asyncio.ensure_future(trickle(service.port, kind, "127.0.0.2")))
        await asyncio.sleep(0.005)
    gone: dict[str, list[float]] = {HEAD: [], BODY: [], ANSWER: []}
    for kind, lasted in zip(kinds, await asyncio.gather(*slow), strict=True):
        gone[kind].append(lasted)
    return await honest, gone


async def _models(service: Service) -> dict[str, list[str]]:
    from tests.e2e.http import once

    found: dict[str, list[str]] = (await once(service.port, "GET", "/v1/models/toyscape-classify")).json()
    return found


def test_slow_clients_are_cut_off_and_the_others_do_not_notice(tmp_path: Path, full: bool) -> None:
    count, seconds = (500, 40.0) if full else (60, 14.0)
    with Service(tmp_path, "--log-level", "error") as service:
        (gateway,) = service.pids("gateway")
        asyncio.run(besieged(service, 3, 2.0))
        before, files = memory.pss(gateway), memory.descriptors(gateway)
        tally, gone = asyncio.run(besieged(service, count, seconds))
        grown = memory.pss(gateway) - before
        latencies = sorted(tally.seconds)
        print(
            f"{count} slow clients, gone after at most {max(gone[HEAD]):.1f} s (heads), {max(gone[BODY]):.1f} s "
            f"(bodies), {max(gone[ANSWER]):.1f} s (answers); {tally.sent} honest requests, {tally.errors} errors, "
            f"p99 {latencies[len(latencies) * 99 // 100] * 1000:.0f} ms; the gateway grew by {grown / 2**20:.1f} MiB"
        )
        for kind, lasted in gone.items():
            assert max(lasted) <= ALLOWED[kind] + (SLACK if full else SHORT_SLACK), kind
        assert tally.sent - tally.errors >= 0.999 * tally.sent, tally.outcomes
        assert grown <= 20 * 2**20
        assert memory.descriptors(gateway) <= files + 40


def test_connections_of_one_address_leave_room_for_others(tmp_path: Path) -> None:
    """As many silent connections as one address may have, and more; another address is served all the while."""

    async def scenario(service: Service) -> tuple[int, int]:
        opened = []
        for _ in range(80):
            sock = socket.socket()
            sock.bind(("127.0.0.2", 0))
            sock.connect(("127.0.0.1", service.port))
            opened.append(sock)
            sock.setblocking(False)
        refused: set[socket.socket] = set()

        def turned_away() -> int:
            for sock in set(opened) - refused:
                with contextlib.suppress(BlockingIOError):
                    if sock.recv(4096).startswith(b"HTTP/1.1 429 "):
                        refused.add(sock)
            return len(refused)

        await meanwhile(lambda: turned_away() >= 30, 20.0)
        load = Load(service.port, 50.0, 2.0, len((await _models(service))["labels"]))
        tally = await load.run()
        count = turned_away()
        for sock in opened:
            sock.close()
        return count, tally.errors

    with Service(tmp_path, "--max-connections-per-address", "50", "--log-level", "error") as service:
        assert asyncio.run(scenario(service)) == (30, 0)
