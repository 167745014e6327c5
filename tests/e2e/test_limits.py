"""Limits as an operator sets them: who is over them is told so, and everyone else is served."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.e2e import images
from tests.e2e.http import Connection, Reply
from tests.e2e.service import Service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    flags = (
        "--upload-seconds",
        "2",
        "--max-body-mb",
        "3",
        "--pending-mb",
        "3",
        "--in-flight",
        "4",
        "--timeout-ms",
        "5000",
    )
    with Service(tmp_path_factory.mktemp("limits"), *flags) as running:
        yield running


def test_an_upload_that_trickles_is_ended(service: Service) -> None:
    async def trickle() -> Reply:
        connection = Connection(service.port)
        reply = await connection.send(b"POST /classify HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n\r\nabc")
        await connection.close()
        return reply

    reply = asyncio.run(trickle())
    assert (reply.status, reply.json()["code"]) == (408, "slow_upload")
    assert reply.headers["connection"] == "close"


def test_bodies_beyond_the_memory_for_them_are_refused(service: Service) -> None:
    async def scenario() -> tuple[Reply, Reply]:
        holding, other = Connection(service.port), Connection(service.port)
        started = b"POST /classify HTTP/1.1\r\nHost: t\r\nContent-Length: 2000000\r\n\r\n" + b"x" * 1_900_000
        held = asyncio.ensure_future(holding.send(started))
        await asyncio.sleep(0.8)
        refused = await other.request("POST", "/classify", b"x" * 2_000_000)
        await held
        served = await other.request("POST", "/classify", images.png((1, 2, 3)))
        await holding.close()
        await other.close()
        return refused, served

    refused, served = asyncio.run(scenario())
    assert (refused.status, refused.json()["code"]) == (429, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    assert served.status == 200


def test_beyond_the_limit_in_flight_requests_are_refused_and_keep_their_connection(service: Service) -> None:
    async def scenario() -> tuple[list[int], list[int]]:
        connections = [Connection(service.port) for _ in range(8)]
        slow = images.png(images.sleep(50))
        first = await asyncio.gather(*(connection.request("POST", "/classify", slow) for connection in connections))
        assert all("retry-after" in reply.headers for reply in first if reply.status == 429)
        second = []
        for connection in connections:
            second.append((await connection.request("POST", "/classify", images.png((4, 5, 6)))).status)
            await connection.close()
        return [reply.status for reply in first], second

    first, second = asyncio.run(scenario())
    assert sorted(first) == [200] * 4 + [429] * 4
    assert second == [200] * 8


def test_a_deadline_is_kept_while_others_are_served(service: Service) -> None:
    async def scenario() -> tuple[Reply, Reply]:
        late, fine = Connection(service.port), Connection(service.port)
        replies = await asyncio.gather(
            late.request("POST", "/classify?timeout_ms=300", images.png(images.sleep(80))),
            fine.request("POST", "/classify", images.png((7, 7, 7))),
        )
        await late.close()
        await fine.close()
        return replies

    late, fine = asyncio.run(scenario())
    assert (late.status, late.json()["code"]) == (504, "deadline_exceeded")
    assert fine.status == 200


def test_hostile_parameters_do_not_add_series(service: Service) -> None:
    def series() -> int:
        lines = service.request("GET", "/metrics").body.decode().splitlines()
        return sum(not line.startswith("#") for line in lines)

    async def ask() -> None:
        connection = Connection(service.port)
        for value in range(300):
            for target in (f"/classify?model=m{value}", f"/classify?level=l{value}", f"/p{value}"):
                await connection.request("POST", target, b"x")
        await connection.close()

    for target in ("/classify?model=m", "/classify?level=l", "/p"):
        service.request("POST", target, b"x")
    before = series()
    asyncio.run(ask())
    assert series() == before
