from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from loadtest import arrivals, machine, plan, process, samples, sender
from loadtest.bodies import Body
from loadtest.plan import Plan, Target
from loadtest.samples import ERRORS, Samples
from loadtest.sender import Progress, send
from tests.unit.loadtest.server import CLOSE, Asked, Server, answer
from tests.walls import ROOT


def target(server: Server, *bodies: bytes) -> Target:
    return plan.target(server.url, "/x", [Body(body, (), f"k{len(body)}") for body in bodies or (b"abc",)])


def steady(rate: float, seconds: float, **more: float | int) -> Plan:
    times = arrivals.constant(rate, seconds)
    return Plan(times, np.zeros(len(times), np.int32), seconds, **more)  # type: ignore[arg-type]


def run(wanted: Plan, to: Target) -> Samples:
    return asyncio.run(send(wanted, to))


def errors(found: Samples) -> list[str]:
    return [ERRORS[number] for number in found.error]


def stalling(after: int) -> Server:
    """Stands still for a while when it reads request number `after`."""

    def reply(asked: Asked) -> bytes:
        if asked.number == after:
            server.stall(0.4)
        return answer()

    server = Server(reply)
    return server


def test_everything_is_sent_at_its_time_and_answered() -> None:
    with Server(lambda asked: answer(X_Squint_Level="full" if asked.number % 2 else "fast")) as server:
        wanted = Plan(arrivals.constant(100, 0.5), np.arange(50, dtype=np.int32) % 2, 0.6)
        found = run(wanted, target(server, b"abc", b"defgh"))
    assert found.status.tolist() == [200] * 50
    assert found.intended.tolist() == pytest.approx(arrivals.constant(100, 0.5).tolist())
    assert np.all(found.sent >= found.intended)
    assert np.all(found.done > found.sent)
    assert sorted(asked.body for asked in server.asked) == [b"abc"] * 25 + [b"defgh"] * 25
    assert found.kinds == ["k3", "k5"]
    assert found.kind.tolist() == [0, 1] * 25
    assert set(found.levels) == {"full", "fast"}
    assert sorted(found.level.tolist()) == [0] * 25 + [1] * 25
    assert found.opened == server.connections
    assert found.usage.cpu_seconds > 0


@pytest.mark.parametrize("connections", [4, 1000])
def test_a_server_that_stands_still_shows_in_every_request_that_was_due_meanwhile(connections: int) -> None:
    """The proof of intended-time accounting: none that was due in the stall may look as quick as its own round trip."""
    with stalling(after=30) as server:
        found = run(steady(100, 0.9, connections=connections), target(server))
    ((begin, end),) = server.stalls
    due = found.began + found.intended
    meanwhile = (due > begin) & (due < end)
    assert meanwhile.sum() >= 35
    assert np.all(found.latency[meanwhile] >= end - due[meanwhile])
    assert found.latency.max() > 0.35
    assert found.status.tolist() == [200] * 90
    if connections == 4:
        # Those that had to wait for a connection were sent late, and look quick to whoever measures from sending.
        held = meanwhile & (found.began + found.sent >= end)
        assert held.sum() >= 30
        assert np.all(found.sent[held] > found.intended[held])
        assert found.opened == 4


def test_a_closed_loop_hides_the_same_stall() -> None:
    """Why it is for saturation alone: the requests that would have come are never sent."""
    wanted = Plan(np.empty(0), np.zeros(1, np.int32), 0.8, closed=2)
    with stalling(after=30) as server:
        found = run(wanted, target(server))
    ((begin, end),) = server.stalls
    due = found.began + found.intended
    assert ((due > begin) & (due < end)).sum() <= 2
    assert (found.closed, found.opened) == (2, 2)
    assert len(found) > 31
    assert (found.status == 200).all()


def test_a_sender_that_falls_behind_says_so() -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    async def noted(to: Target) -> Samples:
        loops.append(asyncio.get_running_loop())
        return await send(steady(100, 0.8), to)

    def reply(asked: Asked) -> bytes:
        if asked.number == 20:
            loops[0].call_soon_threadsafe(time.sleep, 0.3)
        return answer()

    with Server(reply) as server:
        found = asyncio.run(noted(target(server)))
    lag = found.sent - found.intended
    assert lag.max() > 0.25
    assert (lag > 0.1).sum() >= 15
    assert np.all(found.latency >= lag)


def test_refusals_and_their_retry_after() -> None:
    def reply(asked: Asked) -> bytes:
        if asked.number % 3 == 0:
            return answer(429, b'{"code": "overloaded"}', Retry_After="2")
        return answer(503) if asked.number % 3 == 1 else answer(200)

    with Server(reply) as server:
        found = run(steady(100, 0.3), target(server))
    assert sorted(found.status.tolist()) == [200] * 10 + [429] * 10 + [503] * 10
    assert np.nansum(found.retry_after) == 20
    assert np.isnan(found.retry_after[found.status != 429]).all()
    assert found.first_bodies[429] == '{"code": "overloaded"}'


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (CLOSE, "reset"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", "timeout"),
        (b"what is this\r\n\r\n", "protocol"),
        (None, "timeout"),
    ],
)
def test_a_request_without_an_answer_is_an_error_with_a_reason(reply: bytes | None, error: str) -> None:
    with Server(lambda asked: reply) as server:
        found = run(steady(20, 0.2, timeout=1.0), target(server))
    assert errors(found) == [error] * 4
    assert found.status.tolist() == [0] * 4
    assert np.isfinite(found.done).all()


def test_a_server_that_is_not_there_is_an_error_of_each_request() -> None:
    with Server() as server:
        to = target(server)
    assert errors(run(steady(50, 0.2), to)) == ["connect"] * 10


def test_after_a_failed_connection_those_that_wait_get_another() -> None:
    """With one connection allowed, nobody else would open it for them."""
    with Server() as server:
        to = target(server)
    found = run(steady(200, 0.1, connections=1, timeout=5), to)
    assert errors(found) == ["connect"] * 20


def test_requests_beyond_the_connections_wait_until_their_timeout() -> None:
    with Server(lambda asked: None) as server:
        found = run(steady(50, 0.2, timeout=0.3, connections=2), target(server))
    assert set(errors(found)) == {"timeout", "no connection"}
    assert np.isnan(found.sent[[error == "no connection" for error in errors(found)]]).all()


def test_a_connection_that_the_server_closes_is_replaced() -> None:
    with Server(lambda asked: answer(Connection="close")) as server:
        found = run(steady(50, 0.3), target(server))
    assert found.status.tolist() == [200] * 15
    assert server.connections == 15


def test_warm_up_is_sent_and_marked() -> None:
    with Server() as server:
        found = run(steady(50, 0.4, warmup=0.2), target(server))
    assert len(found) == 20
    assert found.warmup == 0.2


def test_progress_is_told() -> None:
    seen: list[Progress] = []
    with Server() as server:
        asyncio.run(send(steady(50, 0.8), target(server), seen.append))
    assert seen
    assert seen[-1].on_time == seen[-1].done <= seen[-1].sent <= 40


def test_the_sender_in_its_own_process_sees_the_same() -> None:
    with Server(lambda asked: answer(X_Squint_Level="high")) as server:
        found = process.run(steady(50, 0.4), target(server))
    assert found.status.tolist() == [200] * 20
    assert found.levels == ["high"]
    assert len(server.asked) == 20
    again = samples.unpack(samples.pack(found))
    assert np.array_equal(again.done, found.done)
    assert again.usage == found.usage
    assert again.usage.nice in {machine.FIRST, os.getpriority(os.PRIO_PROCESS, 0)}
    assert again.first_bodies == found.first_bodies


def interrupted() -> None:
    def reply(asked: Asked) -> bytes:
        if asked.number == 30:
            os.kill(os.getpid(), signal.SIGINT)
        return answer()

    with Server(reply) as server:
        found = process.run(steady(100, 60), target(server))
    assert found.interrupted
    assert 0 < found.seconds < 60
    assert 30 <= len(found) < 6000
    assert (found.status == 200).sum() >= 29


def test_an_interrupt_returns_what_was_measured() -> None:
    """In a process of its own: libraries that other tests load leave it no stack for a signal."""
    code = "from tests.unit.loadtest.test_sender import interrupted; interrupted()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_stop_leaves_requests_under_way_unfinished_not_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "INTERRUPT_SECONDS", 0.2)
    stops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def stopped(to: Target) -> Samples:
        stops.append((asyncio.get_running_loop(), asyncio.Event()))
        return await send(steady(20, 30), to, None, stops[0][1])

    def reply(asked: Asked) -> bytes | None:
        if asked.number == 9:
            loop, stop = stops[0]
            loop.call_soon_threadsafe(stop.set)
        return answer() if asked.number < 5 else None

    with Server(reply) as server:
        found = asyncio.run(stopped(target(server)))
    assert found.interrupted
    assert errors(found)[:5] == [""] * 5
    assert set(errors(found)[5:]) == {"unfinished"}
