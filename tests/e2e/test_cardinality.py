"""What strangers invent becomes no metric: whatever they ask, the list stays as it is.

The short form runs with every test run; `pytest --full` sends 100,000.
"""

from __future__ import annotations

import asyncio
import random
import re
import string
from collections.abc import Iterator

import pytest

from tests.e2e import memory
from tests.e2e.guarded import Guarded, keys

LETTERS = string.ascii_letters + string.digits + "-._~"
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "MKCOL", "REPORT")
MOST_BYTES = 200_000


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Guarded, str]]:
    folder = tmp_path_factory.mktemp("labels")
    key = keys(folder / "keys", "add", "someone")
    flags = ("--key-file", str(folder / "keys"), "--rate-limit", "1000000", "--log-level", "error")
    with Guarded(folder, *flags, "--public", "metrics") as running:
        yield running, key


def word(source: random.Random) -> str:
    return "".join(source.choices(LETTERS, k=source.randint(1, 20)))


def invented(source: random.Random, key: str) -> bytes:
    """One request with something random in every place that could be a label."""
    paths = (
        f"/{word(source)}",
        f"/v1/models/{word(source)}",
        f"/v2/models/{word(source)}/infer",
        f"/v2/models/{word(source)}/versions/{word(source)}/stats",
        f"/predictions/{word(source)}",
        f"/classify?model={word(source)}",
        f"/classify?level={word(source)}",
        f"/detect?level=tome:{source.randint(0, 10**6)}&priority={word(source)}",
        f"/segment?{word(source)}={word(source)}",
    )
    lines = [
        f"{source.choice(METHODS)} {source.choice(paths)} HTTP/1.1",
        "Host: t",
        f"X-API-Key: {key if source.random() < 0.5 else word(source)}",
        f"X-Request-Id: {word(source)}",
        f"User-Agent: {word(source)}",
        f"X-Squint-Level: {word(source)}",
        f"X-{word(source).strip('.~') or 'a'}: {word(source)}",
        "Content-Length: 0",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


async def flood(port: int, key: str, count: int, seed: int) -> None:
    """So many, on a few connections, each a hundred at a time."""

    async def sender(number: int) -> None:
        source = random.Random(seed * 100 + number)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(count // 4 // 50):
            # Answers come in order: with the last one, all of the batch is answered.
            end = b"GET /livez HTTP/1.1\r\nHost: t\r\n\r\n"
            writer.write(b"".join(invented(source, key) for _ in range(50)) + end)
            read = b""
            while not read.endswith(b'{"status":"alive"}'):
                part = await asyncio.wait_for(reader.read(1 << 16), 60)
                assert part, read[-500:]
                read += part
            assert len(re.findall(rb"HTTP/1\.1 \d{3} ", read)) == 51
        writer.close()

    await asyncio.gather(*(sender(number) for number in range(4)))


def series(service: Guarded) -> tuple[set[str], int]:
    """The names and labels of all metrics, and how long the answer was."""
    body = service.request("GET", "/metrics").body
    return {line.rpartition(" ")[0] for line in body.decode().splitlines() if not line.startswith("#")}, len(body)


def test_random_labels_make_no_series(service: tuple[Guarded, str], full: bool) -> None:
    running, key = service
    count = 100_000 if full else 4_000
    asyncio.run(flood(running.port, key, 1_000, seed=1))
    (gateway,) = running.pids("gateway")
    before, held = series(running), memory.pss(gateway)
    asyncio.run(flood(running.port, key, count, seed=2))
    after, grown = series(running), memory.pss(gateway) - held
    print(
        f"{count} requests: {len(after[0])} series, /metrics {after[1]} bytes; "
        f"the gateway grew by {grown / 2**20:.1f} MiB"
    )
    assert after[0] == before[0]
    assert after[1] < MOST_BYTES
    assert grown <= 10 * 2**20


def test_nothing_of_it_reaches_a_label(service: tuple[Guarded, str]) -> None:
    running, key = service
    mark = "zzmarkerzz"
    headers = {"X-API-Key": key, "X-Squint-Model": mark, "X-Request-Id": mark}
    for target in (f"/{mark}", f"/classify?level={mark}", f"/v1/models/{mark}", f"/v2/models/{mark}"):
        running.request("POST", target, b"x", headers)
        running.request("GET", target, b"", headers)
    assert mark not in running.request("GET", "/metrics").body.decode()


def test_nothing_broke_behind_it(service: tuple[Guarded, str]) -> None:
    running, _ = service
    assert "process_died" not in running.log_text()
    assert '"bug"' not in running.log_text()
