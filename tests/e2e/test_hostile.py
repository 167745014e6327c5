"""Hostile bodies over HTTP, while honest clients ask: refused by type, felt by nobody else.

The short form runs with every test run; `make fuzz` runs 10,000 mutations and also holds the time of each request.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.http import Connection, Reply
from tests.e2e.load import Load, Tally
from tests.e2e.service import Service
from tests.unit.decoder import bombs
from tests.unit.decoder.golden import GOLDEN
from tests.unit.decoder.test_formats import OTHERS

SLOWEST = 0.5
HONEST_RATE = 20.0
INTERNALS = (b"Traceback", b"/home/", b"/usr/", b"/work", b"site-packages", b"memfd", b"PIL", b"libjpeg", b"msgspec")

Attack = tuple[str, bytes, dict[str, str]]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("hostile"), "--log-level", "warning") as running:
        yield running


def mutate(source: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """Flip bits, cut, splice, repeat, or overwrite what may be a length."""
    result = bytearray(data)
    for _ in range(source.randint(1, 6)):
        if not result:
            break
        kind, at = source.randrange(5), source.randrange(len(result))
        if kind == 0:
            result[at] ^= 1 << source.randrange(8)
        elif kind == 1:
            del result[at : at + source.randint(1, 200)]
        elif kind == 2:
            other = source.choice(others)
            start = source.randrange(len(other))
            result[at:at] = other[start : start + source.randint(1, 400)]
        elif kind == 3:
            result[at : at + 4] = source.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff"])
        else:
            result += result[at : at + 100]
    return bytes(result)


def mutations(count: int, seed: int) -> Iterator[Attack]:
    """Images with damage, raw."""
    source = random.Random(seed)
    corpus = [make().data for make in GOLDEN.values()]
    for _ in range(count):
        yield "/classify", mutate(source, source.choice(corpus), corpus), {}


def containers(count: int, seed: int) -> Iterator[Attack]:
    """Multipart and JSON bodies with damage."""
    source = random.Random(seed)
    image = next(iter(GOLDEN.values()))().data
    part = b'--cut\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + image + b"\r\n"
    form = part * 2 + b"--cut--\r\n"
    document = b'{"image": "' + b"QUJD" * 100 + b'"}'
    noise = [b"--cut", b"\r\n\r\n", b"Content-Disposition: form-data", b'{"image":' * 50, b"\xff" * 50, b"[" * 300]
    for number in range(count):
        if number % 2:
            yield "/detect", mutate(source, form, noise), {"Content-Type": "multipart/form-data; boundary=cut"}
        else:
            yield "/segment", mutate(source, document, noise), {"Content-Type": "application/json"}


async def attack(service: Service, attacks: list[Attack], connections: int = 4) -> tuple[Counter[str], list[float]]:
    """Send them all; outcomes by status and code, and seconds of each."""
    seen: Counter[str] = Counter()
    seconds: list[float] = []
    queue = list(enumerate(attacks))

    async def sender() -> None:
        connection = Connection(service.port)
        while queue:
            number, (target, body, headers) = queue.pop()
            start = time.monotonic()
            reply = await connection.request("POST", target, body, headers)
            seconds.append(time.monotonic() - start)
            check(number, reply)
            seen["200" if reply.status == 200 else f"{reply.status} {reply.json()['code']}"] += 1
        await connection.close()

    await asyncio.gather(*(sender() for _ in range(connections)))
    return seen, seconds


def check(number: int, reply: Reply) -> None:
    assert reply.status < 500, (number, reply.body)
    assert not [word for word in INTERNALS if word in reply.body], (number, reply.body)


def run(service: Service, attacks: list[Attack]) -> tuple[Counter[str], list[float], Tally]:
    """Attack while honest requests go on; they must all be answered rightly."""
    count = len(service.request("GET", "/v1/models/toyscape-classify").json()["labels"])
    decoders = service.pids("decoder")

    async def scenario() -> tuple[Counter[str], list[float], Tally]:
        honest = Load(service.port, HONEST_RATE, 3600.0, count, connections=4)
        running = asyncio.ensure_future(honest.run())
        seen, seconds = await attack(service, attacks)
        honest.stop()
        return seen, seconds, await running

    seen, seconds, tally = asyncio.run(scenario())
    assert service.pids("decoder") == decoders, "no decoder died"
    assert set(tally.outcomes) <= {"200"}
    assert tally.wrong == 0
    return seen, seconds, tally


def test_damaged_images(service: Service, full: bool) -> None:
    seen, seconds, tally = run(service, list(mutations(10_000 if full else 400, seed=1)))
    print(f"mutations: {dict(seen)}, slowest {max(seconds) * 1000:.0f} ms, honest {tally.sent} of which {tally.errors}")
    assert set(seen) <= {
        "200",
        "400 bad_request",
        "413 image_too_large",
        "415 unsupported_media_type",
        "422 undecodable_image",
    }
    assert seen["422 undecodable_image"] > 50
    if full:
        assert max(seconds) <= SLOWEST


def test_damaged_containers(service: Service, full: bool) -> None:
    seen, seconds, _ = run(service, list(containers(4_000 if full else 200, seed=2)))
    print(f"containers: {dict(seen)}, slowest {max(seconds) * 1000:.0f} ms")
    assert seen["400 bad_request"] > 50
    if full:
        assert max(seconds) <= SLOWEST


def test_decompression_bombs(service: Service, full: bool) -> None:
    attacks: list[Attack] = [("/segment", make(), {}) for make in bombs.REFUSED.values()]
    assert len(attacks) >= 40
    seen, seconds, _ = run(service, attacks)
    print(f"bombs: {dict(seen)}, slowest {max(seconds) * 1000:.0f} ms")
    assert set(seen) <= {"413 image_too_large", "422 undecodable_image"}
    if full:
        assert max(seconds) <= SLOWEST


def test_every_other_format_is_refused_by_its_content(service: Service) -> None:
    attacks: list[Attack] = [("/classify", data, {"Content-Type": "image/png"}) for data in OTHERS.values()]
    seen, _, _ = run(service, attacks)
    assert seen == {"415 unsupported_media_type": len(attacks)}


def test_errors_are_short_and_the_log_stays_whole(service: Service, tmp_path: Path) -> None:
    """Control characters in everything a client can send reach neither errors nor log lines as they are."""
    for target in ("/classify?model=%0d%0aX%1b[31m", "/classify?level=%00%e2%80%a8", "/%0d%0aINFO:fake"):
        reply = service.request("POST", target, b"x", {"User-Agent": "a\tb"})
        assert reply.status in (400, 404)
        assert b"\x1b" not in reply.body and len(reply.body) < 400
    for line in service.log_text().splitlines():
        assert line.startswith('{"ts":'), line
