"""Open-loop load: requests leave at their times whatever became of those before."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.e2e import images
from tests.e2e.http import Connection


@dataclass
class Tally:
    """What the clients saw."""

    sent: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    seconds: list[float] = field(default_factory=list)

    @property
    def errors(self) -> int:
        """Everything that is no right answer."""
        return self.sent - self.outcomes["200"] + self.wrong


class Load:
    """`rate` requests a second for `seconds`, each an image of its own whose answer is checked."""

    def __init__(self, port: int, rate: float, seconds: float, classes: int, connections: int = 32) -> None:
        self._port = port
        self._rate = rate
        self._seconds = seconds
        self._classes = classes
        self._idle = [Connection(port) for _ in range(connections)]
        self._stopped = False
        self.tally = Tally()

    def stop(self) -> None:
        """Send no more; `run` returns when all is answered."""
        self._stopped = True

    async def run(self) -> Tally:
        """Send everything and wait for every answer."""
        start = time.monotonic()
        tasks = []
        for value in range(int(self._rate * self._seconds)):
            if self._stopped:
                break
            await asyncio.sleep(max(0.0, start + value / self._rate - time.monotonic()))
            tasks.append(asyncio.ensure_future(self._one(value)))
        await asyncio.gather(*tasks)
        for connection in self._idle:
            await connection.close()
        return self.tally

    async def _one(self, value: int) -> None:
        colour = images.number(value)
        connection = self._idle.pop() if self._idle else Connection(self._port)
        self.tally.sent += 1
        start = time.monotonic()
        try:
            reply = await connection.request("POST", "/classify", images.png(colour))
        except OSError as error:
            self.tally.outcomes[type(error).__name__] += 1
        else:
            self.tally.outcomes[str(reply.status)] += 1
            self.tally.seconds.append(time.monotonic() - start)
            if reply.status == 200:
                index = reply.json()["predictions"][0]["index"]
                self.tally.wrong += index != images.expected_index(colour, self._classes)
        self._idle.append(connection)
