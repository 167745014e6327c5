"""Who cannot be helped any more costs the backend nothing; and who is at its limit costs others nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.contract import models
from tests.e2e import images
from tests.e2e.http import Connection, Reply
from tests.e2e.service import Service
from tests.e2e.waiting import until

ROUNDS, EACH = 4, 250
IMAGE = images.png(images.number(7))
SLEEPER = images.png(images.sleep(150))
LEVELS = {"balanced": "tome:4", "fast": "tome:8+width:1/2"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("overload")
    models.fake(folder / "zoo", levels=LEVELS)
    # One engine, whose batches of any size take a moment, so that many fit into a second but none is sent ahead.
    flags = ("--threads", "1", "--fake-batch-ms", "6", "--in-flight", "1000", "--models", str(folder / "zoo"))
    with Service(folder, *flags) as running:
        yield running


def metric(service: Service, name: str) -> float:
    lines = service.request("GET", "/metrics").body.decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith((name + "{", name + " ")))


def ran(service: Service) -> float:
    """Images that a backend has seen."""
    return metric(service, "squint_batch_items_sum")


def raw(path: str, body: bytes = IMAGE) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: t\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def blocked(service: Service) -> asyncio.Future[list[Reply]]:
    """The engine is busy for a while, with one image after another: a batch may not take longer."""
    first, task = await service.occupied(SLEEPER)
    second = Connection(service.port)

    async def asleep() -> list[Reply]:
        # Nobody goes before it or shares its batch, for which it has a class and a level of its own.
        later = second.request("POST", "/classify?level=balanced&priority=high", SLEEPER)
        replies = await asyncio.gather(task, later)
        await asyncio.gather(first.close(), second.close())
        return list(replies)

    return asyncio.ensure_future(asleep())


async def all_is_free_again(service: Service) -> None:
    """Soon as many requests as before find room, each with its slot."""
    for name in ("squint_in_flight", "squint_queue_items"):
        await asyncio.to_thread(until, lambda: metric(service, name) == 0)  # noqa: B023
    connections = [Connection(service.port) for _ in range(EACH)]
    replies = await asyncio.gather(*(connection.request("POST", "/classify", IMAGE) for connection in connections))
    assert Counter(reply.status for reply in replies) == {200: EACH}
    await asyncio.gather(*(connection.close() for connection in connections))


def test_a_thousand_requests_that_expire_in_the_queue_never_reach_the_backend(service: Service) -> None:
    async def scenario() -> tuple[int, Counter[str]]:
        codes: Counter[str] = Counter()
        rounds = 0
        # Where decoding is slow, some are told at once that they would be too late: it takes more rounds then.
        while codes["deadline_exceeded"] < ROUNDS * EACH and rounds < 4 * ROUNDS:
            rounds += 1
            sleeper = await blocked(service)
            others = [Connection(service.port) for _ in range(EACH)]
            path = "/classify?timeout_ms=600"
            replies = await asyncio.gather(*(other.request("POST", path, IMAGE) for other in others))
            codes.update(reply.json()["code"] if reply.status != 200 else "ok" for reply in replies)
            assert not sleeper.done(), "all of them were answered while the engine was busy"
            await sleeper
            await asyncio.gather(*(other.close() for other in others))
        await all_is_free_again(service)
        return rounds, codes

    before = ran(service)
    rounds, codes = asyncio.run(scenario())
    assert set(codes) <= {"deadline_exceeded", "overloaded"}
    assert codes["deadline_exceeded"] >= ROUNDS * EACH
    assert ran(service) - before == 2 * rounds + EACH, "the sleepers, and the check that all is free"


def test_a_thousand_clients_that_hang_up_while_queued_do_not_reach_the_backend(service: Service) -> None:
    async def hang_up() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(raw("/classify"))
        await writer.drain()
        await asyncio.sleep(0.4)
        writer.close()
        await writer.wait_closed()

    async def scenario() -> None:
        for _ in range(ROUNDS):
            sleeper = await blocked(service)
            await asyncio.gather(*(hang_up() for _ in range(EACH)))
            assert not sleeper.done()
            await sleeper
        await all_is_free_again(service)

    before = ran(service)
    asyncio.run(scenario())
    reached = ran(service) - before - 2 * ROUNDS - EACH
    assert 0 <= reached <= 0.01 * ROUNDS * EACH
    gone = [line for line in service.log_lines("request") if line["outcome"] == "client_closed_request"]
    assert len(gone) >= 0.99 * ROUNDS * EACH


def test_auto_goes_down_with_the_load_and_up_again(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Twenty milliseconds an image and one engine; sixty ask at once for an answer within a second and a half."""
    folder = tmp_path_factory.mktemp("auto")
    models.fake(folder / "zoo", levels=LEVELS)
    flags = ("--threads", "1", "--fake-item-ms", "20", "--models", str(folder / "zoo"), "--log-level", "warning")
    with Service(folder, *flags) as service:

        async def wave(options: str) -> Counter[str]:
            connections = [Connection(service.port) for _ in range(60)]
            path = f"/classify?{options}&timeout_ms=1500"
            replies = await asyncio.gather(*(one.request("POST", path, IMAGE) for one in connections))
            await asyncio.gather(*(one.close() for one in connections))
            # A machine that is busy with other things may have to refuse some.
            assert {reply.status for reply in replies} <= {200, 429}
            answered = [reply for reply in replies if reply.status == 200]
            assert len(answered) >= 30
            for reply in answered:
                assert reply.json()["level"] == reply.headers["x-squint-level"]
            return Counter(reply.json()["level"] for reply in answered)

        async def scenario() -> tuple[Counter[str], Counter[str], str]:
            freely, bounded = await wave("level=auto"), await wave("level=auto&min_level=balanced")
            await asyncio.sleep(0.5)
            last = Connection(service.port)
            reply = await last.request("POST", "/classify?level=auto", IMAGE)
            await last.close()
            return freely, bounded, reply.json()["level"]

        freely, bounded, later = asyncio.run(scenario())
        assert freely["fast"] > 5 and freely["full"] > 0
        assert bounded["balanced"] > 5 and bounded["fast"] == 0
        assert later == "full"
        lines = service.request("GET", "/metrics").body.decode().splitlines()
        asked = {line.split("{")[1] for line in lines if line.startswith("squint_level_served_total{")}
        assert any('asked="auto"' in line and 'level="fast"' in line for line in asked)


def test_an_answer_tells_what_it_waited_for_when_asked(service: Service) -> None:
    async def scenario() -> list[Reply]:
        sleeper = await blocked(service)
        others = [Connection(service.port) for _ in range(3)]
        path = "/classify?explain=batch"
        replies = await asyncio.gather(*(other.request("POST", path, IMAGE) for other in others))
        await sleeper
        await asyncio.gather(*(other.close() for other in others))
        return replies

    for reply in asyncio.run(scenario()):
        told = reply.json()["explain"]["batch"]
        assert (told["items"], told["closed"]) == (3, "drained")
        assert told["waited_ms"]["worker"] > 500, "the engine was busy"
        assert 0 <= told["waited_ms"]["decoder"] < 500 and 0 <= told["waited_ms"]["body"] < 500
        logged = service.logged(reply.json()["request_id"])
        assert (logged["batch"], logged["closed"]) == (3, "drained")
        assert logged["queue_ms"] == told["waited_ms"]["worker"]
