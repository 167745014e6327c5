"""What a gateway that is a process of its own asks the dispatcher: about the models, and about all that is counted."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import msgspec

from service.config import Config
from service.core.versions import Policy
from service.dispatcher import statistics
from service.dispatcher.repository import Row, may_change
from service.dispatcher.statistics import Statistics
from service.errors import Refusal
from service.wire.messages.gateway import About, Question, Reply

_GONE = "the models cannot be told of at the moment"


class Asking:
    """`send` tells the dispatcher; `there` says whether it is there."""

    def __init__(self, config: Config, send: Callable[[Question], None], there: Callable[[], bool]) -> None:
        self._config = config
        self._send = send
        self._there = there
        self._numbers = itertools.count(1)
        self._open: dict[int, asyncio.Future[bytes]] = {}

    # -- all that is counted -----------------------------------------------------------------------------------

    async def scrape(self) -> bytes:
        """All metrics in the Prometheus text format. Raises Refusal."""
        return await self._ask("metrics")

    async def statistics(self) -> Statistics:
        """What was inferred. Raises Refusal."""
        counted = Statistics()
        counted.merge(msgspec.msgpack.decode(await self._ask("statistics"), type=statistics.Counted))
        return counted

    # -- the models --------------------------------------------------------------------------------------------

    def permit(self) -> None:
        """Raises Refusal where calls may change nothing."""
        may_change(self._config)

    async def index(self) -> list[Row]:
        """Every version that is served, on its way in or out, or on disk. Raises Refusal."""
        return _rows(await self._ask("index"))

    async def policy(self, name: str) -> Policy:
        """What is to be served of a model. Raises Refusal."""
        return msgspec.msgpack.decode(await self._ask("policy", name), type=Policy)

    async def reload(self) -> list[Row]:
        """Look at the disk again and serve what is wanted of it. Raises Refusal."""
        return _rows(await self._ask("reload"))

    async def load(self, name: str) -> None:
        """Have this model served as it is on disk now. Raises Refusal."""
        self.permit()
        await self._ask("load", name)

    async def unload(self, name: str) -> None:
        """Serve this model no more. Raises Refusal."""
        self.permit()
        await self._ask("unload", name)

    async def choose(self, name: str, policy: Policy) -> None:
        """Serve other versions of a model, or share its requests among them differently. Raises Refusal."""
        self.permit()
        await self._ask("choose", name, msgspec.msgpack.encode(policy))

    # -- questions and replies ---------------------------------------------------------------------------------

    async def _ask(self, about: About, name: str = "", data: bytes = b"") -> bytes:
        if not self._there():
            raise Refusal("unavailable", _GONE, retry_after=1.0)
        number = next(self._numbers)
        reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._open[number] = reply
        self._send(Question(number, about, name, data))
        try:
            return await reply
        finally:
            del self._open[number]

    def replied(self, reply: Reply) -> None:
        """The dispatcher answers."""
        asked = self._open.get(reply.number)
        if asked is None or asked.done():
            return
        if reply.code:
            asked.set_exception(Refusal(reply.code, reply.message, reply.retry_after))
        else:
            asked.set_result(reply.data)

    def lost(self) -> None:
        """The dispatcher is gone, and with it what it was asked."""
        for asked in self._open.values():
            if not asked.done():
                asked.set_exception(Refusal("unavailable", _GONE, retry_after=1.0))


def _rows(data: bytes) -> list[Row]:
    return msgspec.msgpack.decode(data, type=list[Row])
