"""A long mixed load: nothing grows, nothing is lost (`make soak`)."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest

from tests.e2e import images, memory
from tests.e2e.http import Connection
from tests.e2e.service import Service

pytestmark = pytest.mark.soak

REQUESTS = 100_000
CONNECTIONS = 8
GROWTH_BYTES = 20 << 20


class Mix:
    """70 % good images, 20 % hostile bodies, 10 % clients that leave."""

    def __init__(self, service: Service, classes: int, seed: int) -> None:
        self._service = service
        self._classes = classes
        self._random = random.Random(seed)
        self.outcomes: Counter[str] = Counter()

    async def run(self, count: int) -> None:
        """`count` requests over all connections."""
        await asyncio.gather(*(self._client(count // CONNECTIONS) for _ in range(CONNECTIONS)))

    async def _client(self, count: int) -> None:
        connection = Connection(self._service.port)
        for _ in range(count):
            kind = self._random.random()
            colour = images.number(self._random.randrange(1 << 16))
            if kind < 0.7:
                reply = await connection.request("POST", "/classify", images.png(colour))
                right = reply.status == 200 and reply.json()["predictions"][0]["index"] == images.expected_index(
                    colour, self._classes
                )
                self.outcomes["right" if right else f"wrong {reply.status}"] += 1
            elif kind < 0.9:
                body = bytearray(images.png(colour))
                body[self._random.randrange(len(body))] ^= 1 << self._random.randrange(8)
                reply = await connection.request("POST", "/segment", bytes(body))
                self.outcomes["hostile 5xx" if reply.status >= 500 else "hostile"] += 1
            else:
                await self._leave(colour)
        await connection.close()

    async def _leave(self, colour: images.Colour) -> None:
        body = images.png(colour)
        _, writer = await asyncio.open_connection("127.0.0.1", self._service.port)
        writer.write(f"POST /detect HTTP/1.1\r\nHost: t\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        self.outcomes["left"] += 1


def test_nothing_grows(tmp_path: Path) -> None:
    with Service(tmp_path, "--log-level", "error") as service:
        classes = len(service.request("GET", "/v1/models/toyscape-classify").json()["labels"])
        mix = Mix(service, classes, seed=5)
        asyncio.run(mix.run(REQUESTS // 10))
        processes = memory.pids(service)
        before = {title: memory.pss(pid) for title, pid in processes.items()}
        held = {title: (memory.descriptors(pid), memory.threads(pid)) for title, pid in processes.items()}
        asyncio.run(mix.run(REQUESTS))
        print(f"\nsoak: {dict(mix.outcomes)}")
        assert memory.pids(service) == processes, "nothing died"
        after = {title: memory.pss(pid) for title, pid in processes.items()}
        growth = {title: after[title] - before[title] for title in before}
        print(f"growth in MB: { {title: round(size / 1e6, 1) for title, size in growth.items()} }")
        assert set(mix.outcomes) == {"right", "hostile", "left"}
        assert max(growth.values()) <= GROWTH_BYTES
        assert {title: (memory.descriptors(pid), memory.threads(pid)) for title, pid in processes.items()} == held
        assert "squint_in_flight 0.0" in service.request("GET", "/metrics").body.decode()
