"""Processes die, hang and are stopped while clients ask; what was promised to the clients holds.

The short form runs with every test run; `make chaos` runs the full length and writes what it measured.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.e2e import images
from tests.e2e.http import once
from tests.e2e.load import Load, Tally
from tests.e2e.service import Service
from tests.e2e.waiting import until

pytestmark = pytest.mark.chaos

RATE = 100.0


def classes(service: Service) -> int:
    return len(service.request("GET", "/v1/models/toyscape-classify").json()["labels"])


def answered(service: Service) -> float:
    """Requests the service counts as answered, whatever the outcome."""
    text = service.request("GET", "/metrics").body.decode()
    return sum(
        float(line.split()[-1]) for line in text.splitlines() if line.startswith("squint_request_seconds_count{")
    )


async def ready(port: int) -> bool:
    try:
        return (await once(port, "GET", "/readyz")).status == 200
    except OSError:
        return False


async def seconds_to_ready(port: int) -> float:
    """From now until not ready has been seen and passed, or until it is clear that it never was."""
    start = time.monotonic()
    last_unready = start
    while time.monotonic() - last_unready < 0.5:
        if not await ready(port):
            last_unready = time.monotonic()
        await asyncio.sleep(0.02)
    return last_unready - start


async def under_load(
    service: Service, seconds: float, every: float, role: str, count: int
) -> tuple[Tally, list[float]]:
    """Load the service for `seconds`, and until two were killed, killing a process of `role` every so often; the tally
    and the seconds to ready again."""
    load = Load(service.port, RATE, 5 * seconds, count)
    downtimes: list[float] = []

    async def killer() -> None:
        victim = 0
        while True:
            await asyncio.sleep(every)
            pids = sorted(service.pids(role))
            if pids:
                os.kill(pids[victim % len(pids)], signal.SIGKILL)
                victim += 1
                downtimes.append(await seconds_to_ready(service.port))

    killing, loading = asyncio.ensure_future(killer()), asyncio.ensure_future(load.run())
    start = time.monotonic()
    while not loading.done() and (time.monotonic() - start < seconds or len(downtimes) < 2):
        await asyncio.sleep(0.05)
    load.stop()
    tally = await loading
    killing.cancel()
    return tally, downtimes


def report(name: str, tally: Tally, downtimes: list[float]) -> str:
    """One line of what was measured."""
    latencies = sorted(tally.seconds)
    worst = max(downtimes, default=0.0)
    return (
        f"{name}: {tally.sent} requests, {tally.errors} errors ({tally.errors / tally.sent:.3%}), "
        f"{len(downtimes)} kills, ready again within {worst:.2f} s, "
        f"p50 {latencies[len(latencies) // 2] * 1000:.1f} ms, p99 {latencies[len(latencies) * 99 // 100] * 1000:.0f} ms"
    )


@pytest.mark.parametrize("role", ["worker", "decoder"])
def test_killed_processes_cost_hardly_an_answer(tmp_path: Path, full: bool, role: str) -> None:
    seconds = 120.0 if full else 12.0
    with Service(tmp_path, "--log-level", "warning") as service:
        tally, downtimes = asyncio.run(under_load(service, seconds, 5.0 if full else 3.0, role, classes(service)))
        print(report(role, tally, downtimes))
        assert tally.sent == sum(tally.outcomes.values()), "every request was answered once"
        assert answered(service) == tally.sent
        assert tally.wrong == 0
        assert tally.errors <= 0.001 * tally.sent, tally.outcomes
        assert len(downtimes) >= 2
        if full:
            assert max(downtimes) <= 2.0


def test_a_killed_gateway_comes_back_to_the_same_workers(tmp_path: Path, full: bool) -> None:
    with Service(tmp_path) as service:
        workers, decoders = service.pids("worker"), service.pids("decoder")
        loads = len(service.log_lines("model_loaded"))
        worst = 0.0
        for _ in range(20 if full else 2):
            (gateway,) = service.pids("gateway")
            os.kill(gateway, signal.SIGKILL)
            start = time.monotonic()
            with socket.create_connection(("127.0.0.1", service.port), timeout=3):
                pass
            while not asyncio.run(ready(service.port)):
                time.sleep(0.02)
            worst = max(worst, time.monotonic() - start)
            assert service.request("POST", "/classify", images.png((3, 4, 5))).status == 200
            time.sleep(2.1 if full else 0.0)
        print(f"gateway: ready again within {worst:.2f} s")
        assert service.pids("worker") == workers
        assert service.pids("decoder") == decoders
        assert len(service.log_lines("model_loaded")) == loads
        if full:
            assert worst <= 3.0


def shared_memory() -> list[str]:
    """Named shared memory. Semaphores are left out: the service has none, other programs come and go."""
    return sorted(name for name in os.listdir("/dev/shm") if not name.startswith("sem."))


def test_nothing_is_left_of_a_killed_supervisor(tmp_path: Path) -> None:
    before = shared_memory()
    service = Service(tmp_path)
    with service:
        pids = [*service.pids("gateway"), *service.pids("decoder"), *service.pids("worker")]
        assert len(pids) == 4
        assert service.process is not None
        service.process.kill()
        service.process.wait()
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    assert shared_memory() == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", service.port), timeout=1)


def test_sigterm_under_load_loses_nothing(tmp_path: Path) -> None:
    """Whoever got a connection gets an answer; the rest is told at once that nobody listens."""

    async def scenario(service: Service) -> tuple[int, int, int, int]:
        count = classes_of[0]
        right = refused = lost = early = 0
        serves_until = float("inf")

        async def one(value: int) -> None:
            nonlocal right, refused, lost, early
            colour = images.number(value)
            try:
                reply = await once(service.port, "POST", "/classify", images.png(colour))
            except ConnectionRefusedError:
                refused += 1
                early += time.monotonic() < serves_until
            except OSError:
                lost += 1
            else:
                assert reply.status == 200, reply.body
                right += reply.json()["predictions"][0]["index"] == images.expected_index(colour, count)

        tasks = []
        for value in range(400):
            if value == 100 and service.process is not None:
                serves_until = time.monotonic() + 1.0
                service.process.send_signal(signal.SIGTERM)
            tasks.append(asyncio.ensure_future(one(value)))
            await asyncio.sleep(0.01)
        await asyncio.gather(*tasks)
        return right, refused, lost, early

    with Service(tmp_path, "--drain-seconds", "1") as service:
        classes_of = [classes(service)]
        right, refused, lost, early = asyncio.run(scenario(service))
        assert lost == 0
        assert right + refused == 400
        assert early == 0, "it goes on accepting for the seconds it was given"
        assert right > 100 and refused > 0
        assert service.process is not None and service.process.wait(20) == 0


@pytest.mark.parametrize("colour", [images.HANG_C, images.SEGFAULT], ids=["hangs", "crashes"])
def test_a_killer_image_harms_only_itself(tmp_path: Path, colour: images.Colour) -> None:
    with Service(tmp_path) as service:
        count = classes(service)

        async def scenario() -> tuple[int, Tally]:
            load = Load(service.port, 50.0, 6.0, count)
            running = asyncio.ensure_future(load.run())
            await asyncio.sleep(0.5)
            killer = await once(service.port, "POST", "/classify", images.png(colour))
            return killer.status, await running

        status, tally = asyncio.run(scenario())
        assert status == 422
        assert tally.outcomes == {"200": tally.sent}
        assert tally.wrong == 0


def test_a_stopped_worker_is_replaced(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        (worker,) = service.pids("worker")
        os.kill(worker, signal.SIGSTOP)
        until(lambda: bool(service.pids("worker")) and worker not in service.pids("worker"), 30.0)
        assert service.request("POST", "/classify", images.png((1, 1, 1))).status == 200
        assert 'squint_worker_restarts_total{role="worker"} 1.0' in service.request("GET", "/metrics").body.decode()


def test_a_service_whose_process_keeps_crashing_gives_up(tmp_path: Path) -> None:
    with Service(tmp_path, "--max-crashes", "2") as service:
        killed: set[int] = set()

        def ended() -> bool:
            for pid in service.pids("worker").keys() - killed:
                killed.add(pid)
                os.kill(pid, signal.SIGKILL)
            return service.process is None or service.process.poll() is not None

        until(ended, 60.0)
        assert len(killed) == 2
        assert service.process is not None and service.process.wait() == 3
        assert "giving up" in service.log_text()
