"""Several gateways and a dispatcher die, hang and are stopped while clients ask: who dies takes nobody else along."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from tests.chaos.test_processes import answered, classes, report, under_load
from tests.e2e import images
from tests.e2e.http import Connection, Reply
from tests.e2e.service import Service
from tests.e2e.waiting import until

pytestmark = pytest.mark.chaos

GATEWAYS = ("--gateways", "2")
CONNECTIONS = 32
"""Of the load; what a gateway had when it was killed is lost on at most so many."""


async def closed(*connections: Connection) -> None:
    """Close them, and let the event loop do so."""
    await asyncio.gather(*(one.close() for one in connections))
    await asyncio.sleep(0.1)


@pytest.mark.parametrize("role", ["worker", "decoder", "dispatcher"])
def test_behind_the_gateways_a_death_costs_no_answer(tmp_path: Path, full: bool, role: str) -> None:
    if not full and role != "dispatcher":
        pytest.skip("at full length alone: without several gateways it is in the short form too")
    seconds = 120.0 if full else 6.0
    with Service(tmp_path, *GATEWAYS, "--log-level", "warning") as service:
        gateways = service.pids("gateway")
        load = under_load(service, seconds, 5.0 if full else 1.5, role, classes(service))
        tally, downtimes = asyncio.run(load)
        print(report(f"2 gateways, {role}", tally, downtimes))
        assert tally.sent == sum(tally.outcomes.values()), "every request was answered once"
        assert tally.wrong == 0
        assert tally.errors <= 0.001 * tally.sent, tally.outcomes
        assert len(downtimes) >= 2
        assert service.pids("gateway") == gateways
        if role != "dispatcher":
            # A new dispatcher counts from the beginning.
            assert answered(service) == tally.sent
        if full:
            assert max(downtimes) <= 2.0


def test_a_killed_gateway_takes_its_own_clients_alone(tmp_path: Path, full: bool) -> None:
    seconds = 120.0 if full else 6.0
    with Service(tmp_path, *GATEWAYS, "--log-level", "warning") as service:
        others = {role: service.pids(role) for role in ("dispatcher", "decoder", "worker")}
        load = under_load(service, seconds, 5.0 if full else 1.5, "gateway", classes(service))
        tally, downtimes = asyncio.run(load)
        print(report("2 gateways, gateway", tally, downtimes))
        assert tally.sent == sum(tally.outcomes.values()), "every request was answered once, or its connection closed"
        assert tally.wrong == 0
        assert tally.outcomes.keys() <= {"200", "ConnectionError", "ConnectionResetError"}, tally.outcomes
        assert tally.errors <= max(len(downtimes), 1) * CONNECTIONS
        assert downtimes, "one was killed and its place is filled"
        assert {role: service.pids(role) for role in others} == others


def test_who_is_with_the_other_gateway_notices_nothing(tmp_path: Path) -> None:
    """Requests under way with both, when one is killed."""

    async def scenario(service: Service) -> tuple[int, int]:
        connections = [Connection(service.port) for _ in range(CONNECTIONS)]
        gateway = min(service.pids("gateway"))
        busy, first = await service.occupied(images.png(images.sleep(150)))
        asked = [asyncio.ensure_future(one.request("POST", "/classify", images.png((1, 2, 3)))) for one in connections]
        await asyncio.sleep(0.2)
        os.kill(gateway, signal.SIGKILL)
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        await asyncio.gather(first, return_exceptions=True)
        again = [one for one, outcome in zip(connections, outcomes, strict=True) if isinstance(outcome, Reply)]
        replies = await asyncio.gather(*(one.request("POST", "/classify", images.png((1, 2, 3))) for one in again))
        assert {reply.status for reply in replies} == {200}, "their connections are still there"
        assert all(isinstance(outcome, Reply | ConnectionError) for outcome in outcomes)
        await closed(busy, *connections)
        return len(again), len(connections)

    with Service(tmp_path, *GATEWAYS, "--threads", "1") as service:
        kept, all_of_them = asyncio.run(scenario(service))
        assert 0 < kept < all_of_them
        until(lambda: len(service.pids("gateway")) == 2)


def test_what_the_dispatcher_had_is_handed_in_again(tmp_path: Path) -> None:
    """Requests in every state, and a connection that is still sending, survive the dispatcher they were with."""

    async def scenario(service: Service) -> list[Reply]:
        connections = [Connection(service.port) for _ in range(CONNECTIONS)]
        asked = [
            asyncio.ensure_future(one.request("POST", "/classify", images.png(images.sleep(5)))) for one in connections
        ]
        body = images.png((1, 2, 3))
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(b"POST /classify HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:20])
        await asyncio.sleep(0.2)
        (dispatcher,) = service.pids("dispatcher")
        os.kill(dispatcher, signal.SIGKILL)
        writer.write(body[20:])
        assert await asyncio.wait_for(reader.readline(), 10.0) == b"HTTP/1.1 200 OK\r\n"
        writer.close()
        replies = await asyncio.gather(*asked)
        await closed(*connections)
        return replies

    with Service(tmp_path, *GATEWAYS, "--threads", "1") as service:
        workers, loads = service.pids("worker"), len(service.log_lines("model_loaded"))
        replies = asyncio.run(scenario(service))
        assert {reply.status for reply in replies} == {200}
        assert service.pids("worker") == workers
        assert len(service.log_lines("model_loaded")) == loads
        assert service.request("POST", "/classify", images.png((1, 1, 1))).status == 200


def test_sigterm_under_load_loses_nothing_of_either(tmp_path: Path) -> None:
    serves_until = [float("inf")]

    async def one(service: Service, value: int) -> str:
        connection = Connection(service.port)
        try:
            reply = await connection.request("POST", "/classify", images.png(images.number(value)))
        except ConnectionRefusedError:
            return "refused" if time.monotonic() >= serves_until[0] else "refused too soon"
        except OSError:
            return "lost"
        finally:
            await connection.close()
        return str(reply.status)

    async def scenario(service: Service) -> list[str]:
        tasks = []
        for value in range(300):
            if value == 100 and service.process is not None:
                serves_until[0] = time.monotonic() + 0.5
                service.process.send_signal(signal.SIGTERM)
            tasks.append(asyncio.ensure_future(one(service, value)))
            await asyncio.sleep(0.01)
        outcomes = await asyncio.gather(*tasks)
        await closed()
        return outcomes

    with Service(tmp_path, *GATEWAYS, "--drain-seconds", "0.5") as service:
        outcomes = asyncio.run(scenario(service))
        assert set(outcomes) == {"200", "refused"}, "it goes on accepting for the time it was given"
        assert outcomes.count("200") > 100
        assert service.process is not None and service.process.wait(20) == 0


def test_sigterm_reaches_a_gateway_that_is_just_starting(tmp_path: Path) -> None:
    service = Service(tmp_path, *GATEWAYS)
    with service:
        for gateway in service.pids("gateway"):
            os.kill(gateway, signal.SIGKILL)
        until(lambda: len(service.pids("gateway")) == 2)
        assert service.stop() == 0


def test_a_stopped_dispatcher_is_replaced(tmp_path: Path, full: bool) -> None:
    if not full:
        pytest.skip("at full length alone: a loop that stands still is waited for")
    with Service(tmp_path, *GATEWAYS) as service:
        (dispatcher,) = service.pids("dispatcher")
        os.kill(dispatcher, signal.SIGSTOP)
        until(lambda: set(service.pids("dispatcher")) not in (set(), {dispatcher}), 20.0)
        assert service.request("POST", "/classify?timeout_ms=20000", images.png((1, 1, 1))).status == 200
        restarts = 'squint_worker_restarts_total{role="dispatcher"} 1.0'
        assert restarts in service.request("GET", "/metrics").body.decode()
