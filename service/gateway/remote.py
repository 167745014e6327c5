"""The engine of another process: where there are several gateways, each hands in its requests here.

The same calls as the engine's own, over one channel to the dispatcher. Whether an image is admitted is known a moment
later (`Ticket.pending`). Bodies go into this gateway's own slots of shared memory, never through the channel. When the
dispatcher dies, everything stays here until there is another, which is handed all of it again.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable

import msgspec

from service.core.levels import Choice, Level
from service.core.queue import Item, LaneKey
from service.dispatcher.engine import DISCARD_ABOVE
from service.dispatcher.pool import Pool
from service.dispatcher.statistics import Statistics
from service.dispatcher.tickets import Ask, Image, Notice, Outcome, Stored, Ticket, store
from service.errors import Refusal
from service.wire.messages.control import Role
from service.wire.messages.gateway import Admit, Admitted, Answered, Cancel, Freed, Served, Submit, ToGateway, Wanted
from service.wire.slots import Arena

_KEPT = ((16, DISCARD_ABOVE), (128, 1 << 17), (1 << 30, 0))
"""How many bytes a body slot may keep when it is free, by how many there are before it: those far behind are used in a
rush alone, and give their pages back."""
_SWEEP_SECONDS = 0.1
_STRIKES = 2
"""Dispatchers that died while they had an image, after which it is taken to be the reason."""


class RemoteEngine:
    """`slots` are this gateway's own body slots; `limit` bounds the images that are under way. With `again` the service
    has been ready before, so that what is asked before the dispatcher is there waits for it."""

    def __init__(
        self,
        bodies: Arena,
        slots: range,
        limit: int,
        decode_seconds: float,
        on_cut: Callable[[Role, int], None],
        again: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self.statistics = Statistics()
        self.told: Callable[[ToGateway], None] = lambda message: None
        """Takes what the dispatcher says of anything but images."""
        self.lost: Callable[[], None] = lambda: None
        """Told that the dispatcher is gone."""
        self._bodies = bodies
        self._limit = limit
        self._decode_seconds = decode_seconds
        self._pool = Pool(on_cut)
        self._ids = itertools.count(1)
        self._tickets: dict[int, Ticket] = {}
        self._free = [*reversed(slots)]
        self._first = slots.start
        self._unasked: dict[int, Ticket] = {}
        """Images whose admission is not asked for yet."""
        self._asking = False
        """It will be at the end of the next turn of the event loop."""
        self._waiting: deque[Ticket] = deque()
        """Bodies for which there was no slot."""
        self._read: dict[int, Stored] = {}
        """Bodies of answered images that a decoder may be reading, by the image's number."""
        self._there = False
        """The dispatcher has said what it serves."""
        self._open = False
        """It is handed images."""
        self._greeted = again
        """It has been there, or another before it."""
        self._ready = False

    # -- requests ----------------------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Images handed in and not yet answered."""
        return len(self._tickets)

    def ready(self) -> bool:
        """Requests can be answered now."""
        return self._there and self._ready

    def there(self) -> bool:
        """The dispatcher takes what it is sent."""
        return self._there

    def admit(self, ask: Ask) -> Ticket:
        """Ask for one image to be taken in, before its body is read; while there is no dispatcher that could have it
        answered, this waits. Raises Refusal."""
        if not self._greeted:
            raise Refusal("starting", "the service is starting", retry_after=1.0)
        if len(self._tickets) >= self._limit:
            raise Refusal("overloaded", "too many requests in flight", retry_after=1.0)
        level = ask.level.least if isinstance(ask.level, Choice) else ask.level
        item = Item(next(self._ids), ask.entry.lane(level), ask.deadline, ask.priority, self.clock(), ask.client)
        ticket = self._tickets[item.id] = Ticket(item, ask, Notice(), Outcome(item=item), pending=True)
        if self._open:
            self._unasked[item.id] = ticket
            if not self._asking:
                self._asking = True
                asyncio.get_running_loop().call_soon(self._ask_soon)
        return ticket

    def submit(self, ticket: Ticket, body: Image) -> None:
        """Hand in the body of an image; when `ticket.done` is done, `ticket.outcome` is complete."""
        if ticket.item.id in self._tickets:
            ticket.body = body
            self._place(ticket)

    def cancel(self, ticket: Ticket) -> None:
        """The client went away: the image is dropped wherever it is."""
        if self._open and self._unasked.pop(ticket.item.id, None) is None:
            self.send(Cancel(ticket.item.id))
        else:
            self._refuse(ticket, Refusal("client_closed_request", "the client closed the connection"))

    # -- the dispatcher ----------------------------------------------------------------------------------------

    def begin(self) -> None:
        """From here on what is late is refused, whether there is a dispatcher or not."""
        self._sweep()

    async def attach(self, descriptor: int) -> None:
        """A channel to the dispatcher, which counts once it has said what it serves."""
        await self._pool.attach("dispatcher", 0, descriptor, self._hear, self._gone)

    def send(self, message: msgspec.Struct) -> None:
        """Tell the dispatcher, if it is there."""
        if self._there:
            self._pool.send("dispatcher", 0, message)

    def _hear(self, index: int, message: ToGateway) -> None:
        if isinstance(message, Answered):
            self._answered(message)
        elif isinstance(message, Admitted):
            for number in message.ids:
                ticket = self._tickets.get(number)
                if ticket is not None:
                    self._decided(ticket, None)
        elif isinstance(message, Freed):
            stored = self._read.pop(message.id, None)
            if stored is not None:
                self._give(stored)
        else:
            if isinstance(message, Served):
                self._served(message.ready)
            self.told(message)

    def _served(self, ready: bool) -> None:
        self._there, self._ready = True, ready
        # A new dispatcher knows of the others only once they have told it, and would refuse what is handed in before.
        if not self._open and (ready or not self._greeted):
            self._open = self._greeted = True
            self._hand_in_again()

    def _gone(self, index: int) -> None:
        """The dispatcher is gone. A decoder may still be at what it sent there last."""
        if self._open:
            for ticket in self._tickets.values():
                ticket.item.strikes += 1
        self._there = self._open = self._ready = False
        self._unasked.clear()
        loop = asyncio.get_running_loop()
        while self._read:
            loop.call_later(self._decode_seconds, self._give, self._read.popitem()[1])
        self.lost()
        self._sweep()

    def _sweep(self) -> None:
        """While no dispatcher is handed images: refuse what is late."""
        if self._open:
            return
        now = self.clock()
        for ticket in [ticket for ticket in self._tickets.values() if ticket.item.deadline <= now]:
            self._refuse(ticket, Refusal("deadline_exceeded", "not answered before the deadline"))
        asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep)

    def _ask_soon(self) -> None:
        """Once more is read of what is there already: most bodies are, and go in one message with their heads."""
        asyncio.get_running_loop().call_soon(self._ask)

    def _ask(self) -> None:
        """Ask for admission where the body is still to come."""
        self._asking = False
        for ticket in self._unasked.values():
            self.send(_admit(ticket))
        self._unasked.clear()

    def _hand_in_again(self) -> None:
        for ticket in [*self._tickets.values()]:
            if ticket.item.strikes >= _STRIKES:
                self._refuse(ticket, Refusal("unavailable", "the service could not answer", retry_after=1.0))
                continue
            self.send(_admit(ticket))
            if isinstance(ticket.body, Stored):
                self.send(_submit(ticket, ticket.body))

    # -- answers -----------------------------------------------------------------------------------------------

    def _answered(self, answer: Answered) -> None:
        ticket = self._tickets.get(answer.id)
        if ticket is None:
            return
        outcome, item = ticket.outcome, ticket.item
        outcome.result, outcome.tokens, outcome.raw, outcome.box = answer.result, answer.tokens, answer.raw, answer.box
        outcome.decode, outcome.infer, outcome.post = answer.decode, answer.infer, answer.post
        outcome.batch, outcome.closed, outcome.run = answer.batch, answer.closed, answer.run
        outcome.wide = answer.wide
        began = item.admitted_at
        _, item.submitted_at, item.decode_at, item.queued_at, item.started_at, outcome.ended = answer.times
        if answer.level:
            entry = ticket.ask.entry
            outcome.level = entry.served(ticket.ask.level, LaneKey(entry.key, answer.level))
            outcome.upload = item.submitted_at - began
            outcome.decoder_wait = item.decode_at - item.submitted_at
            outcome.queue = item.started_at - item.queued_at
        refusal = Refusal(answer.code, answer.message, answer.retry_after) if answer.code else None
        self._end(ticket, refusal, outside=answer.outside, read=answer.read)

    def _refuse(self, ticket: Ticket, refusal: Refusal) -> None:
        self._end(ticket, refusal, outside=ticket.pending, read=False)

    def _end(self, ticket: Ticket, refusal: Refusal | None, *, outside: bool, read: bool) -> None:
        """The one answer to an image."""
        del self._tickets[ticket.item.id]
        body, ticket.body = ticket.body, b""
        if isinstance(body, Stored):
            if read:
                self._read[ticket.item.id] = body
            else:
                self._give(body)
        ticket.outcome.refusal = refusal
        self._decided(ticket, refusal if outside else None)
        # Last, for whoever is told goes on to what comes next.
        ticket.done.set_result(None)

    def _decided(self, ticket: Ticket, refusal: Refusal | None) -> None:
        """Whether an image is admitted is known."""
        if ticket.pending:
            ticket.pending = False
            verdict, ticket.verdict = ticket.verdict, None
            if verdict is not None:
                verdict(refusal)

    # -- bodies ------------------------------------------------------------------------------------------------

    def _place(self, ticket: Ticket) -> None:
        """Put a body where decoders can read it, as soon as there is a slot."""
        if isinstance(ticket.body, Stored):
            return
        if not self._free:
            self._waiting.append(ticket)
            return
        ticket.body = store(self._bodies, self._free.pop(), ticket.body)
        if self._unasked.pop(ticket.item.id, None) is not None:
            self.send(_admit(ticket))
        if self._open:
            self.send(_submit(ticket, ticket.body))

    def _give(self, stored: Stored) -> None:
        """A slot is free."""
        before = stored.slot - self._first
        if stored.size > next(most for count, most in _KEPT if before < count):
            self._bodies.discard(stored.slot)
        self._free.append(stored.slot)
        while self._waiting and self._free:
            ticket = self._waiting.popleft()
            if ticket.item.id in self._tickets:
                self._place(ticket)


def _admit(ticket: Ticket) -> Admit:
    ask = ticket.ask
    choice = isinstance(ask.level, Choice)
    level: Level = ask.level.least if isinstance(ask.level, Choice) else ask.level
    wanted = Wanted(level.spelled, level.lane, level.label, level.gmacs, level.tokens, choice)
    return Admit(ticket.item.id, ask.entry.key, wanted, ask.deadline, ask.priority, ask.client, ask.options)


def _submit(ticket: Ticket, stored: Stored) -> Submit:
    return Submit(ticket.item.id, stored.slot, stored.size, stored.shape)
