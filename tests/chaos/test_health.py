"""Health tells the truth: six faults are seen over HTTP and gRPC, and load alone is no fault.

The short form runs with every test run and holds what was seen; `make chaos` also holds how soon.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import grpc
import pytest

from tests.e2e import images
from tests.e2e.http import Connection, once
from tests.e2e.load import Load
from tests.e2e.rpc import Vision
from tests.e2e.service import ROOT, Service
from tests.e2e.waiting import meanwhile

pytestmark = pytest.mark.chaos

UNREADY_SECONDS, READY_SECONDS = 2.0, 5.0
CROWD = 80
LEAST_LIMIT = 2.0
"""What any batch may take; see service.worker.guard."""
SERVING = 1
RATE = 20.0
Fault = Callable[[Service, int], Awaitable[None]]


class Watcher:
    """What one protocol says, as changes with their times."""

    def __init__(self) -> None:
        self.changes: list[tuple[float, bool]] = []

    def note(self, ready: bool) -> None:
        if not self.changes or self.changes[-1][1] != ready:
            self.changes.append((time.monotonic(), ready))

    @property
    def ready(self) -> bool:
        return bool(self.changes) and self.changes[-1][1]

    def first(self, ready: bool, after: float) -> float | None:
        """When it said so first after that time."""
        return next((at for at, said in self.changes if said == ready and at >= after), None)


async def over_http(service: Service, watcher: Watcher) -> None:
    connection = Connection(service.port)
    try:
        while True:
            watcher.note((await connection.request("GET", "/readyz")).status == 200)
            await asyncio.sleep(0.01)
    finally:
        await connection.close()


async def over_grpc(service: Service, watcher: Watcher) -> None:
    async with Vision(service.grpc_port, aio=True) as client:
        async for answer in client.watch("squint.v1.Vision"):
            watcher.note(answer.status == SERVING)


async def over_grpc_call(service: Service, watcher: Watcher) -> None:
    """The other way to ask."""
    from grpc_health.v1 import health_pb2

    async with Vision(service.grpc_port, aio=True) as client:
        check = client.channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            health_pb2.HealthCheckRequest.SerializeToString,
            health_pb2.HealthCheckResponse.FromString,
        )
        while True:
            try:
                watcher.note((await check(health_pb2.HealthCheckRequest(), timeout=2)).status == SERVING)
            except grpc.aio.AioRpcError:
                watcher.note(False)
            await asyncio.sleep(0.02)


WATCHES = {"http": over_http, "grpc watch": over_grpc, "grpc check": over_grpc_call}


def sent(number: signal.Signals) -> Fault:
    async def inject(service: Service, worker: int) -> None:
        os.kill(worker, number)

    return inject


def asked(colour: images.Colour) -> Fault:
    """An image that makes the fake backend fail in this way."""

    async def inject(service: Service, worker: int) -> None:
        # Nobody waits for the answer; but it must have come to the worker before it is known that nobody does.
        connection = Connection(service.port)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(connection.request("POST", "/classify", images.png(colour)), 0.5)
        await connection.close()

    return inject


FAULTS: dict[str, Fault] = {
    "killed": sent(signal.SIGKILL),
    "crashed": sent(signal.SIGSEGV),
    "stopped": sent(signal.SIGSTOP),
    "stuck in C": asked(images.HANG_C),
    "every run raises": asked(images.BREAK),
    "the thread that answers is dead": asked(images.QUIT),
}


def gone(pid: int) -> bool:
    """The process runs no more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_seen_and_its_end_too(tmp_path: Path, full: bool, name: str) -> None:
    async def scenario(service: Service) -> None:
        classes = len((await once(service.port, "GET", "/v1/models/toyscape-classify")).json()["labels"])
        watchers = {way: Watcher() for way in WATCHES}
        watching = [asyncio.ensure_future(watch(service, watchers[way])) for way, watch in WATCHES.items()]
        load = Load(service.port, RATE, 60.0, classes)
        loading = asyncio.ensure_future(load.run())
        await meanwhile(lambda: all(watcher.ready for watcher in watchers.values()), 30.0)
        await asyncio.sleep(0.5)
        (worker,) = service.pids("worker")
        begin = time.monotonic()
        await FAULTS[name](service, worker)
        await meanwhile(lambda: all(watcher.first(False, begin) for watcher in watchers.values()), 30.0)
        await meanwhile(lambda: gone(worker), 30.0)
        repaired = time.monotonic()
        await meanwhile(lambda: all(watcher.ready for watcher in watchers.values()), 60.0)
        unready = {way: (watcher.first(False, begin) or 0.0) - begin for way, watcher in watchers.items()}
        ready = {way: watcher.changes[-1][0] - repaired for way, watcher in watchers.items()}
        print(
            f"\n{name}: not ready after "
            + ", ".join(f"{seconds:.2f} s ({way})" for way, seconds in unready.items())
            + f"; the worker was gone after {repaired - begin:.2f} s, ready again after "
            + ", ".join(f"{seconds:.2f} s ({way})" for way, seconds in ready.items())
        )
        load.stop()
        await loading
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        assert load.tally.wrong == 0
        reply = await once(service.port, "POST", "/classify", images.png((1, 2, 3)))
        assert reply.status == 200, "ready means served"
        if full:
            assert max(unready.values()) <= UNREADY_SECONDS
            assert max(ready.values()) <= READY_SECONDS

    with Service(tmp_path, "--log-level", "warning") as service:
        asyncio.run(scenario(service))


@pytest.fixture
def crowd() -> Iterator[int]:
    """A CPU that many want all of, each in a session of its own: the kernel shares CPUs among sessions first."""
    cpu = min(os.sched_getaffinity(0))
    busy = ["sh", "-c", "while :; do :; done"]
    running = [subprocess.Popen(busy, start_new_session=True) for _ in range(CROWD)]
    for one in running:
        os.sched_setaffinity(one.pid, [cpu])
    try:
        yield cpu
    finally:
        for one in running:
            one.kill()
            one.wait()


def test_a_worker_that_waits_for_a_cpu_is_no_fault(tmp_path: Path, full: bool, request: pytest.FixtureRequest) -> None:
    """Its batches take longer than half of what they may, by the clock; not by what it had of the CPU."""
    if not full:
        pytest.skip("it takes a whole CPU; `make chaos` runs it")

    async def scenario(service: Service) -> None:
        photo = (ROOT / "samples" / "classify.jpg").read_bytes()
        (worker,) = service.pids("worker")
        watcher, longest = Watcher(), 0.0
        watching = asyncio.ensure_future(over_http(service, watcher))
        await meanwhile(lambda: watcher.ready, 10.0)
        cpu: int = request.getfixturevalue("crowd")
        for thread in os.listdir(f"/proc/{worker}/task"):
            os.sched_setaffinity(int(thread), [cpu])
        end = time.monotonic() + 12.0
        while time.monotonic() < end:
            begin = time.monotonic()
            reply = await once(service.port, "POST", "/classify?timeout_ms=30000", photo)
            assert reply.status == 200
            longest = max(longest, time.monotonic() - begin)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        print(f"\na CPU shared with {CROWD}: the longest answer took {longest:.2f} s, {watcher.changes}")
        assert longest > LEAST_LIMIT / 2, "it was not kept waiting, and nothing was tested"
        assert [said for _, said in watcher.changes] == [True]
        assert [*service.pids("worker")] == [worker]

    with Service(tmp_path, "--backend", "onnxruntime", "--threads", "1", fake=False) as service:
        asyncio.run(scenario(service))


def test_load_alone_is_no_fault(tmp_path: Path, full: bool) -> None:
    seconds = 1800.0 if full else 8.0

    async def scenario(service: Service) -> None:
        classes = len((await once(service.port, "GET", "/v1/models/toyscape-classify")).json()["labels"])
        watchers = {way: Watcher() for way in WATCHES}
        watching = [asyncio.ensure_future(watch(service, watchers[way])) for way, watch in WATCHES.items()]
        await meanwhile(lambda: all(watcher.ready for watcher in watchers.values()), 30.0)
        tally = await Load(service.port, 100.0, seconds, classes).run()
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        flips = {way: [said for _, said in watcher.changes].count(False) for way, watcher in watchers.items()}
        print(f"\n{tally.sent} requests in {seconds:g} s: not ready {flips}")
        assert flips == dict.fromkeys(WATCHES, 0)
        assert tally.outcomes == {"200": tally.sent}

    with Service(tmp_path, "--log-level", "warning") as service:
        asyncio.run(scenario(service))
