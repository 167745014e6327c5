"""The gateways that are processes of their own: what they hand in, ask and count, and what they are told.

Each has a data channel. What it admits, submits and cancels goes to the engine as a gateway's own calls would; when it
dies, what it had handed in is cancelled, and nobody else notices.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec

from service.core.levels import Choice, Level
from service.core.queue import State
from service.dispatcher.catalogue import Catalogue, Entry
from service.dispatcher.counting import Counting
from service.dispatcher.engine import Engine
from service.dispatcher.loop import Background
from service.dispatcher.pool import Pool
from service.dispatcher.questions import Questions
from service.dispatcher.tickets import Ask, Notice, Stored, Ticket
from service.dispatcher.turnover import Turnover
from service.errors import Refusal, WireError
from service.wire.messages.gateway import (
    Admit,
    Admitted,
    Answered,
    Cancel,
    Counted,
    Freed,
    FromGateway,
    Leaving,
    Offer,
    Question,
    Report,
    Served,
    Spent,
    Submit,
    Using,
    Wake,
    Wanted,
)

LOOK_SECONDS = 0.1
"""How often it is looked whether gateways are to be told something new, if nothing has made sure of it before."""
REPORT_SECONDS = 0.5
"""What gateways get to say what they counted, when somebody scrapes, or to take in what is served."""
_TURN = 0.002


@dataclass(slots=True, eq=False)
class _Gateway:
    """One that is attached."""

    index: int
    tickets: dict[int, Ticket] = field(default_factory=dict)
    """What it handed in and is not answered, by its own numbers."""
    admitted: list[int] = field(default_factory=list)
    """What it is yet to be told of."""
    told: int = 0
    """The number of the last `Served` that was sent."""
    heard: int = 0
    """And of the last that it has taken in."""
    may_use: set[str] = field(default_factory=set)
    """Units that its requests may be for."""


class Gateways:
    """See the module."""

    def __init__(
        self,
        engine: Engine,
        pool: Pool,
        catalogue: Catalogue,
        turnover: Turnover,
        counting: Counting,
        *,
        slots: int,
        awaited: int,
    ) -> None:
        """`slots` is the number of body slots that each gateway has to itself. While so many are `awaited`, the service
        is not ready: whoever is told by one of them that it is may come to another."""
        self._engine = engine
        self._pool = pool
        self._catalogue = catalogue
        self._turnover = turnover
        self._counting = counting
        self._slots = slots
        self._awaited = awaited
        self._there: dict[int, _Gateway] = {}
        self._served: Served | None = None
        """As it was looked at last, without a number."""
        self._number = 0
        self._reports = 0
        self._reporting: dict[int, tuple[set[int], asyncio.Future[None]]] = {}
        self._background = Background()
        self.leaving = False
        """One of them was told to drain."""
        self.questions: Questions | None = None
        turnover.used = self._uses
        self._heard: dict[type[FromGateway], Callable[[_Gateway, Any], None]] = {
            Admit: self._admit,
            Submit: self._submit,
            Cancel: self._cancel,
            Using: self._using,
            Wake: self._wake,
            Counted: self._counted,
            Spent: self._spent,
            Question: self._asked,
            Leaving: self._leaves,
        }

    # -- they come and go --------------------------------------------------------------------------------------

    async def attach(self, index: int, descriptor: int) -> None:
        """A gateway is ready, and this is its channel."""
        await self._pool.attach("gateway", index, descriptor, self._hear, self._lost, self._heard_all)
        gateway = self._there[index] = _Gateway(index)
        if len(self._there) >= self._awaited:
            self._awaited = 0
        self.look()
        self._tell(gateway)

    def _lost(self, index: int) -> None:
        gateway = self._there.pop(index, None)
        if gateway is None:
            return
        for ticket in [*gateway.tickets.values()]:
            self._engine.cancel(ticket)
        for waiting, done in self._reporting.values():
            self._reported(waiting, done, index)

    async def follow(self) -> None:
        """Look again and again."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.look()

    # -- what is served ----------------------------------------------------------------------------------------

    def look(self) -> None:
        """Tell every gateway what is served, if that has changed."""
        served = self._now()
        if served != self._served:
            self._served = served
            self._number += 1
            for gateway in self._there.values():
                self._tell(gateway)

    def _now(self) -> Served:
        catalogue = self._catalogue
        policies = {name: self._turnover.policy(name) for name in catalogue.models}
        return Served(
            0,
            self._turnover.units(),
            {name: (policy.versions, policy.canary, policy.share) for name, policy in policies.items()},
            [
                Offer(entry.key, entry.loaded, [level.lane for level in entry.offered])
                for entry in catalogue.all_entries()
                if entry.loaded is not None
            ],
            self._engine.ready() and not self._awaited,
        )

    def _tell(self, gateway: _Gateway) -> None:
        if self._served is not None and gateway.told < self._number:
            gateway.told = self._number
            gateway.may_use |= {unit.key for unit in self._served.units if not unit.resting}
            self._send(gateway, msgspec.structs.replace(self._served, number=self._number))

    async def settle(self) -> None:
        """Until every gateway serves what is served now; a moment, and not longer than that."""
        self.look()
        until = self._engine.clock() + REPORT_SECONDS
        while any(one.heard < self._number for one in self._there.values()) and self._engine.clock() < until:
            await asyncio.sleep(_TURN)

    def _uses(self, entry: Entry) -> bool:
        """Whether requests may still come for a version that is not to be asked for any more."""
        return any(entry.key in gateway.may_use for gateway in self._there.values())

    # -- what they say -----------------------------------------------------------------------------------------

    def _hear(self, index: int, message: FromGateway) -> None:
        gateway = self._there.get(index)
        if gateway is not None:
            self._heard[type(message)](gateway, message)

    def _heard_all(self, index: int) -> None:
        gateway = self._there.get(index)
        if gateway is not None and gateway.admitted:
            self._tell_admitted(gateway)

    def _cancel(self, gateway: _Gateway, message: Cancel) -> None:
        ticket = gateway.tickets.get(message.id)
        if ticket is not None:
            self._engine.cancel(ticket)

    def _spent(self, gateway: _Gateway, message: Spent) -> None:
        for other in self._there.values():
            if other is not gateway:
                self._send(other, message)

    def _using(self, gateway: _Gateway, message: Using) -> None:
        gateway.heard = message.number
        if message.number == gateway.told:
            gateway.may_use = set(message.keys)

    def _wake(self, gateway: _Gateway, message: Wake) -> None:
        entry = self._catalogue.of(message.key)
        if entry is not None and entry.resting:
            self._turnover.wake(entry)

    def _leaves(self, gateway: _Gateway, message: Leaving) -> None:
        self.leaving = True

    def _admit(self, gateway: _Gateway, message: Admit) -> None:
        if message.id in gateway.tickets:
            raise WireError("an image was handed in twice")
        notice = Notice()
        try:
            entry = self._catalogue.of(message.unit)
            if entry is None:
                raise Refusal("unavailable", "this version is not served any more", retry_after=1.0)
            self._catalogue.touch(entry)
            ask = Ask(entry, _level(message.level), message.deadline, message.priority, message.options, message.client)
            ticket = self._engine.admit(ask, notice)
        except Refusal as refusal:
            refused = Answered(message.id, refusal.code, refusal.message, refusal.retry_after, outside=True)
            self._send(gateway, refused)
            return
        gateway.tickets[message.id] = ticket
        notice.add_done_callback(lambda _: self._answer(gateway, message.id, ticket))
        # Told once all that came with it is taken: most bodies are right behind.
        gateway.admitted.append(message.id)

    def _tell_admitted(self, gateway: _Gateway) -> None:
        asked = ((number, gateway.tickets.get(number)) for number in gateway.admitted)
        waiting = [number for number, ticket in asked if ticket is not None and ticket.item.state is State.ADMITTED]
        gateway.admitted.clear()
        if waiting:
            self._send(gateway, Admitted(waiting))

    def _submit(self, gateway: _Gateway, message: Submit) -> None:
        first = gateway.index * self._slots
        if not first <= message.body_slot < first + self._slots or not message.body_bytes >= 0:
            raise WireError("a body lies where it cannot")
        ticket = gateway.tickets.get(message.id)
        if ticket is not None:
            self._engine.submit(ticket, Stored(message.body_slot, message.body_bytes, message.shape))

    def _answer(self, gateway: _Gateway, number: int, ticket: Ticket) -> None:
        """The engine has answered."""
        del gateway.tickets[number]
        outcome, item, refusal = ticket.outcome, ticket.item, ticket.outcome.refusal
        # Of a body that was decoded the ticket knows no more.
        read = ticket.busy and isinstance(ticket.body, Stored)
        if read:
            ticket.read = partial(self._send, gateway, Freed(number))
        times = item.admitted_at, item.submitted_at, item.decode_at, item.queued_at, item.started_at, outcome.ended
        self._send(
            gateway,
            Answered(
                number,
                refusal.code if refusal else "",
                refusal.message if refusal else "",
                refusal.retry_after if refusal else None,
                read=read,
                result=outcome.result,
                tokens=outcome.tokens,
                raw=outcome.raw,
                box=outcome.box,
                level=outcome.lane,
                decode=outcome.decode,
                infer=outcome.infer,
                post=outcome.post,
                batch=outcome.batch,
                closed=outcome.closed,
                wide=outcome.wide,
                run=outcome.run,
                times=times,
            ),
        )

    # -- what they count ---------------------------------------------------------------------------------------

    async def gather(self) -> None:
        """Have every gateway say what it has counted."""
        self._reports += 1
        number, waiting = self._reports, set(self._there)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reporting[number] = waiting, done
        for gateway in self._there.values():
            self._send(gateway, Report(number))
        with contextlib.suppress(TimeoutError):
            if waiting:
                await asyncio.wait_for(done, REPORT_SECONDS)
        del self._reporting[number]

    def _counted(self, gateway: _Gateway, message: Counted) -> None:
        self._counting.merge(message.parts)
        if message.number in self._reporting:
            self._reported(*self._reporting[message.number], gateway.index)

    def _reported(self, waiting: set[int], done: asyncio.Future[None], index: int) -> None:
        waiting.discard(index)
        if not waiting and not done.done():
            done.set_result(None)

    # -- what they ask -----------------------------------------------------------------------------------------

    def _asked(self, gateway: _Gateway, question: Question) -> None:
        self._background.spawn(self._reply(gateway, question))

    async def _reply(self, gateway: _Gateway, question: Question) -> None:
        if self.questions is not None:
            self._send(gateway, await self.questions.reply(question))

    # -- inside ------------------------------------------------------------------------------------------------

    def _send(self, gateway: _Gateway, message: msgspec.Struct) -> None:
        if self._there.get(gateway.index) is gateway:
            self._pool.send("gateway", gateway.index, message)


def _level(wanted: Wanted) -> Level | Choice:
    level = Level(wanted.spelled, wanted.lane, wanted.label, wanted.gmacs, wanted.tokens)
    return Choice(level) if wanted.choice else level
