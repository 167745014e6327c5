"""Reloads and shutdowns under load, with slow clients attached: whoever got a connection gets the right answer.

The short form runs with every chaos run; `make chaos` takes the full length and writes what it measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from models import manifest
from tests.e2e import images
from tests.e2e.http import Connection, once
from tests.e2e.service import ROOT, Service
from tests.e2e.versions import Repository, damage, put
from tests.e2e.waiting import meanwhile

pytestmark = pytest.mark.chaos

RATE = 100.0
SLOW_CLIENTS = 10
SIDE = 224
GRACE = 5.0
"""Seconds of a drain in which nobody is refused."""
LEAVE = 26.0
"""Seconds in which it has ended, however slow some clients are."""


@dataclass
class Seen:
    """What the clients of one run saw."""

    sent: int = 0
    answered: int = 0
    refused: int = 0
    lost: int = 0
    wrong: int = 0
    early: int = 0
    """Refused or lost in the grace of a drain."""
    others: list[str] = field(default_factory=list)
    versions: set[str] = field(default_factory=set)
    seconds: list[float] = field(default_factory=list)

    def line(self, name: str) -> str:
        """What was measured, in one line."""
        latencies = sorted(self.seconds)
        return (
            f"{name}: {self.sent} requests, {self.answered} answered, {self.refused} refused, {self.lost} lost, "
            f"{self.wrong} wrong, {self.early} refused or lost in the first {GRACE:g} s of a drain; "
            f"p50 {latencies[len(latencies) // 2] * 1000:.1f} ms, "
            f"p99 {latencies[len(latencies) * 99 // 100] * 1000:.0f} ms"
        )


@dataclass
class Clients:
    """Open-loop load on one port, and slow clients beside it."""

    port: int
    rate: float
    body: bytes | None = None
    target: str = "/classify"
    classes: int = 5
    seen: Seen = field(default_factory=Seen)
    drain_until: float = 0.0

    async def run(self, stop: asyncio.Event) -> Seen:
        """Until told to stop; waits for every answer."""
        start, number, tasks, idle = time.monotonic(), 0, [], [Connection(self.port) for _ in range(32)]
        while not stop.is_set():
            await asyncio.sleep(max(0.0, start + number / self.rate - time.monotonic()))
            tasks.append(asyncio.ensure_future(self._one(number, idle)))
            number += 1
        await asyncio.gather(*tasks)
        for connection in idle:
            await connection.close()
        return self.seen

    async def _one(self, number: int, idle: list[Connection]) -> None:
        seen, colour = self.seen, images.number(number % 50_000)
        connection = idle.pop() if idle else Connection(self.port)
        seen.sent += 1
        begun = time.monotonic()
        try:
            reply = await connection.request("POST", self.target, self.body or images.png(colour))
        except ConnectionRefusedError:
            # By when it was refused: a busy client may have begun a while before it connects.
            seen.refused += 1
            seen.early += time.monotonic() < self.drain_until
        except OSError:
            seen.lost += 1
            seen.early += time.monotonic() < self.drain_until
        else:
            if reply.status == 200:
                seen.answered += 1
                seen.seconds.append(time.monotonic() - begun)
                answer = reply.json()
                seen.versions.add(answer["version"])
                if self.body is None:
                    wanted = images.expected_index(colour, self.classes, SIDE)
                    seen.wrong += answer["predictions"][0]["index"] != wanted
            else:
                seen.others.append(f"{reply.status} {reply.body[:200]!r}")
                seen.early += begun < self.drain_until
        idle.append(connection)


@contextlib.asynccontextmanager
async def slow_clients(port: int) -> AsyncIterator[None]:
    """Clients that stay in the middle of what they send: half of them in the head, half in the body."""
    image = images.png((1, 2, 3), 256, 256)
    head = f"POST /classify HTTP/1.1\r\nHost: test\r\nContent-Length: {len(image)}\r\n\r\n".encode()

    async def one(half: bytes) -> None:
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    writer.write(half)
                    await reader.read()
                finally:
                    writer.close()
                    with contextlib.suppress(OSError):
                        await writer.wait_closed()
            await asyncio.sleep(0.05)

    halves = [head[:40] if number % 2 else head + image[: len(image) // 2] for number in range(SLOW_CLIENTS)]
    tasks = [asyncio.ensure_future(one(half)) for half in halves]
    await asyncio.sleep(0.2)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def reloads(service: Repository, root: Path, clients: Clients, rounds: int, *, real: Path | None) -> Seen:
    """As many new versions, every third of them broken in one of several ways."""
    stop = asyncio.Event()
    running = asyncio.ensure_future(clients.run(stop))
    good = 1
    async with slow_clients(service.port):
        for number in range(2, rounds + 2):
            broken = number % 3 == 0
            place = await asyncio.to_thread(new_version, root, number, number if broken else 0, real)
            assert service.process is not None
            service.process.send_signal(signal.SIGHUP)
            event = "model_rejected" if broken else "model_ready"
            await meanwhile(lambda: any(line["version"] == place.name for line in service.log_lines(event)), 120.0)  # noqa: B023
            good = good if broken else number
            await asyncio.sleep(0.3)
            reply = await once(service.port, "POST", clients.target, clients.body or images.png((9, 9, 9)))
            assert reply.json()["version"] == str(good)
            assert (await once(service.port, "GET", "/readyz")).status == 200
        stop.set()
        seen = await running
    assert seen.versions <= {str(number) for number in range(1, rounds + 2) if number == 1 or number % 3}
    return seen


def new_version(root: Path, number: int, broken: int, real: Path | None) -> Path:
    """Put the version in place; `broken` chooses in which way, 0 for none."""
    if real is not None:
        place = copied(real, root / "toy" / str(number))
        if broken:
            damage(place)
        return place
    way = broken // 3 % 3
    command = ("", "load-crashes", "warm-fails")[way] if broken else ""
    place = put(root, str(number), side=SIDE, training={"fake": command})
    if broken and not command:
        damage(place)
    return place


def copied(real: Path, place: Path) -> Path:
    """A shipped model under another name and version, put in place at once."""
    made = place.parent.parent.parent / f"made-{place.name}"
    shutil.copytree(real, made)
    described = manifest.load(made)
    manifest.write(made, msgspec.structs.replace(described, name="toy", version=place.name))
    place.parent.mkdir(parents=True, exist_ok=True)
    os.rename(made, place)
    return place


def check(seen: Seen, name: str) -> None:
    print(seen.line(name))
    assert seen.others == []
    assert (seen.lost, seen.refused, seen.wrong) == (0, 0, 0)
    assert seen.answered == seen.sent


def test_reloads_under_load_lose_nothing(tmp_path: Path, full: bool) -> None:
    root = tmp_path / "models"
    root.mkdir()
    put(root, "1", side=SIDE)
    with Repository(tmp_path, root) as service:
        clients = Clients(service.port, RATE)
        seen = asyncio.run(reloads(service, root, clients, 20 if full else 4, real=None))
        check(seen, "fake, reloads")
        assert service.metric('squint_worker_restarts_total{role="worker"}') == 0
        service.until(lambda: sum(state == "READY" for state in service.states().values()) == 1)


def test_a_shipped_model_is_reloaded_at_half_its_capacity(tmp_path: Path, full: bool) -> None:
    root = tmp_path / "models"
    root.mkdir()
    real = ROOT / "models" / "zoo" / "toyscape-classify" / "1"
    copied(real, root / "toy" / "1")
    with Shipped(tmp_path, root) as service:
        photo = (ROOT / "samples" / "classify.jpg").read_bytes()
        rate = asyncio.run(capacity(service.port, photo)) / 2
        clients = Clients(service.port, rate, photo)
        seen = asyncio.run(reloads(service, root, clients, 20 if full else 2, real=real))
        check(seen, f"toyscape-classify at {rate:.0f} requests/s, reloads")


class Shipped(Repository):
    """The same on a real backend, one that need not be chosen first."""

    def __init__(self, folder: Path, root: Path, *flags: str) -> None:
        super().__init__(folder, root, *flags)
        self._command = [part for part in self._command if part != "--allow-fake"]
        self._command[self._command.index("fake")] = "onnxruntime"

    def wait_ready(self, seconds: float = 180.0) -> None:
        """Its speed is measured before it serves, which takes long where others measure too."""
        super().wait_ready(seconds)


async def capacity(port: int, photo: bytes) -> float:
    """Requests a second when four clients ask as fast as they are answered."""
    count, until_ = 0, time.monotonic() + 3.0

    async def one() -> None:
        nonlocal count
        connection = Connection(port)
        while time.monotonic() < until_:
            count += (await connection.request("POST", "/classify", photo)).status == 200
        await connection.close()

    await asyncio.gather(*(one() for _ in range(4)))
    return count / 3.0


async def leave(service: Service, clients: Clients) -> tuple[Seen, float]:
    """SIGTERM under load; what the clients saw, and the seconds until it had ended."""
    stop = asyncio.Event()
    running = asyncio.ensure_future(clients.run(stop))
    async with slow_clients(service.port):
        await asyncio.sleep(1.0)
        process = service.process
        assert process is not None
        begun = time.monotonic()
        clients.drain_until = begun + GRACE
        process.send_signal(signal.SIGTERM)
        await asyncio.sleep(GRACE + 0.2)
        stop.set()
        while process.poll() is None and time.monotonic() - begun < 2 * LEAVE:
            await asyncio.sleep(0.02)
        seconds = time.monotonic() - begun
        assert process.poll() == 0
    return await running, seconds


@pytest.mark.parametrize("shipped", [False, True], ids=["fake", "shipped"])
def test_sigterm_under_load_with_slow_clients(tmp_path: Path, full: bool, shipped: bool) -> None:
    if shipped and not full:
        pytest.skip("takes minutes: make chaos")
    root = tmp_path / "models"
    root.mkdir()
    if shipped:
        copied(ROOT / "models" / "zoo" / "toyscape-classify" / "1", root / "toy" / "1")
    else:
        put(root, "1", side=SIDE)
    photo = (ROOT / "samples" / "classify.jpg").read_bytes()
    rate = RATE
    total, longest = Seen(), 0.0
    for number in range(20 if full else 1):
        folder = tmp_path / str(number)
        folder.mkdir()
        # One cache for all: the backend is measured once.
        flags = ("--drain-seconds", f"{GRACE:g}", "--cache-dir", str(tmp_path / "cache"))
        with (Shipped if shipped else Repository)(folder, root, *flags) as service:
            if shipped and not number:
                rate = asyncio.run(capacity(service.port, photo)) / 2
            clients = Clients(service.port, rate, photo) if shipped else Clients(service.port, rate)
            seen, seconds = asyncio.run(leave(service, clients))
        longest = max(longest, seconds)
        assert seconds <= LEAVE
        for name in ("sent", "answered", "refused", "lost", "wrong", "early"):
            setattr(total, name, getattr(total, name) + getattr(seen, name))
        total.seconds += seen.seconds
        total.others += seen.others
    print(total.line(f"{20 if full else 1} SIGTERMs at {rate:.0f} requests/s"), f"; ended within {longest:.1f} s")
    assert total.others == []
    assert (total.lost, total.early, total.wrong) == (0, 0, 0)
