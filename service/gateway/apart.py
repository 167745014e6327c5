"""A gateway among several, put together: what it has of its own, and its channel to the dispatcher."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from service import child
from service.config import of_one_gateway
from service.dispatcher.catalogue import Catalogue
from service.dispatcher.counting import Counting
from service.dispatcher.triton_metrics import TritonMetrics
from service.dispatcher.turnover import Notes
from service.gateway import auth
from service.gateway.asking import Asking
from service.gateway.mirror import Mirror
from service.gateway.remote import RemoteEngine
from service.metrics import Metrics
from service.version import VERSION
from service.wire.messages.control import Attach, Control, Role
from service.wire.messages.gateway import Counted, Leaving, Reply, Report, Served, Spent, ToGateway

_COUNT_SECONDS = 0.25
"""How often it says what it has counted: so much is lost with it."""
_SPEND_SECONDS = 0.05
"""How often it says who has asked, where that is limited: so much later the others know."""
_CONNECT_SECONDS = 2.0
_TURN = 0.005


class Apart:
    """Stands where a gateway alone has the dispatching side itself, see service.dispatcher.assembly."""

    def __init__(self, birth: child.Birth) -> None:
        start = birth.start
        config = self.config = of_one_gateway(birth.config)
        self._again = start.again
        self.leaving: Callable[[], bool] = lambda: False
        """The service is shutting down."""
        self.guard = auth.guard(config)
        self.metrics = Metrics(VERSION)
        self.catalogue = Catalogue(config, start.units, Notes.read(start.notes).policies)
        slots = start.body_slots // config.gateways
        own = range(start.index * slots, (start.index + 1) * slots)
        limits = config.limits
        self.engine = RemoteEngine(birth.bodies, own, limits.in_flight, limits.decode_seconds, _cut, start.again)
        self.engine.told = self._told
        self.triton: TritonMetrics | None = None
        if config.metrics_compat == "triton":
            self.triton = TritonMetrics(self.engine.statistics, dict)
        self.counting = Counting(self.metrics, self.engine.statistics, self.triton, self.catalogue)
        self.ledger = self.repository = Asking(config, self.engine.send, self.engine.there)
        self.engine.lost = self.repository.lost
        self._mirror = Mirror(self.catalogue, self.engine.send)

    def begin(self) -> None:
        """From here on it tells the dispatcher what it must know."""
        self.engine.begin()
        self._count()
        if self.guard.rates is not None:
            self._spend()

    async def connected(self) -> None:
        """Where another gateway was before: until the dispatcher is there, for a moment. Whoever connects waits."""
        until = self.engine.clock() + _CONNECT_SECONDS
        while self._again and not self.engine.there() and self.engine.clock() < until and not self.leaving():
            await asyncio.sleep(_TURN)

    async def attach(self, message: Attach, descriptor: int) -> None:
        """The channel to the dispatcher."""
        await self.engine.attach(descriptor)

    def heed(self, message: Control) -> None:
        """What the supervisor tells besides; all of that is for the dispatcher."""

    def leave(self) -> None:
        """It was told to drain."""
        self.engine.send(Leaving())

    # -- inside ------------------------------------------------------------------------------------------------

    def _told(self, message: ToGateway) -> None:
        if isinstance(message, Served):
            self._mirror.take(message)
            if self.leaving():
                self.leave()
        elif isinstance(message, Report):
            self.engine.send(Counted(message.number, self.counting.take()))
        elif isinstance(message, Reply):
            self.repository.replied(message)
        elif isinstance(message, Spent) and self.guard.rates is not None:
            for client, tokens in message.tokens.items():
                self.guard.rates.charge(self.engine.clock(), client, tokens)

    def _count(self) -> None:
        if self.engine.there():
            parts = self.counting.take()
            if parts:
                self.engine.send(Counted(0, parts))
        asyncio.get_running_loop().call_later(_COUNT_SECONDS, self._count)

    def _spend(self) -> None:
        spent = self.guard.rates.spent() if self.guard.rates is not None else {}
        if spent:
            self.engine.send(Spent(spent))
        asyncio.get_running_loop().call_later(_SPEND_SECONDS, self._spend)


def _cut(role: Role, index: int) -> None:
    """The dispatcher says what it should not. Who is reached by strangers does not judge it, but begins anew."""
    child.leave(1)
