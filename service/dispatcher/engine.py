"""The engine: carries out what the core decides. HTTP and gRPC reach the core through here and nowhere else.

`admit` before the body is read, `submit` with the body; both may refuse. The engine owns the slots, the timers and
the data channels; it takes no decision of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Container, Sequence

from service.config import Limits
from service.core.actions import Answer, StartDecode, StartRun
from service.core.batching import Profile
from service.core.decoding import DEPTH
from service.core.dispatch import Dispatcher
from service.core.levels import Choice, Level
from service.core.queue import LaneKey
from service.dispatcher.catalogue import Catalogue, Entry
from service.dispatcher.holdings import Holdings
from service.dispatcher.plausible import check
from service.dispatcher.pool import Pool
from service.dispatcher.statistics import Statistics
from service.dispatcher.tickets import Ask, Done, Image, Outcome, Stored, Ticket, store
from service.errors import Refusal, WireError
from service.metrics import Metrics
from service.wire.messages.control import Role
from service.wire.messages.decoder import Decode, Decoded, FromDecoder, Heavy
from service.wire.messages.worker import FromWorker, Hello, LoadDone, Loaded, Ran, Run, RunFailed, Undone, Work
from service.wire.slots import Arena, SlotTable

DISCARD_ABOVE = 1 << 20
"""A body slot that held more than this gives its pages back, so that one large upload does not stay resident."""


class Engine:
    """See the module."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        catalogue: Catalogue,
        pool: Pool,
        pixels: Arena,
        bodies: Arena,
        metrics: Metrics,
        limits: Limits,
        coded_bytes: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._core = dispatcher
        self._catalogue = catalogue
        self._pool = pool
        self._slots = SlotTable(pixels.slots)
        self._bodies = bodies
        self._metrics = metrics
        self._limits = limits
        self._coded_bytes = coded_bytes
        self.clock = clock
        self.late: Container[int] = ()
        """Workers that the supervisor has not heard of for a while."""
        self._ids = itertools.count(1)
        self._tickets: dict[int, Ticket] = {}
        self._decoding: dict[int, dict[int, Ticket]] = {}
        self._free_bodies: dict[int, list[int]] = {}
        self._running: dict[int, tuple[int, list[Ticket]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._attaching = asyncio.Lock()
        self._max_batch = 1
        self.holdings = Holdings(lambda worker, message: pool.send("worker", worker, message), catalogue.units)
        self.statistics = Statistics()

    # -- requests ----------------------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Images admitted and not yet answered."""
        return self._core.in_flight

    def ready(self) -> bool:
        """Requests can be answered now."""
        return self._core.ready(self.late)

    def admit(self, ask: Ask, done: Done | None = None) -> Ticket:
        """Take one image in before its body is read. `done` stands in for a future of the event loop. Raises
        Refusal."""
        lane = self._lane(ask.entry, ask.level)
        item = self._core.admit(self.clock(), next(self._ids), lane, ask.deadline, ask.priority, ask.client)
        ticket = Ticket(item, ask, done or asyncio.get_running_loop().create_future(), Outcome(item=item))
        self._tickets[item.id] = ticket
        self._act()
        return ticket

    def _lane(self, entry: Entry, wanted: Level | Choice) -> LaneKey:
        """Where items of this model and level queue; it is there, once a worker has the model. Raises Refusal."""
        if isinstance(wanted, Choice):
            return self._core.auto(entry.key, wanted.least.lane)
        lane = entry.lane(wanted)
        self._core.demand(lane, entry.lane(entry.highest), entry.share(wanted))
        return lane

    def submit(self, ticket: Ticket, body: Image | Stored) -> None:
        """Hand in the body of an admitted image; when `ticket.done` is done, `ticket.outcome` is complete."""
        ticket.body = body
        self._core.submit(self.clock(), ticket.item)
        self._act()

    def cancel(self, ticket: Ticket) -> None:
        """The client went away: the image is dropped wherever it is."""
        self._core.cancel(self.clock(), ticket.item)
        self._act()

    def queue_delay(self, entry: Entry) -> float:
        """Predicted seconds until a new request of this model would be answered at its default level; 0 before it is
        loaded."""
        if not self._core.serves(entry.lane(entry.highest)):
            return 0.0
        try:
            return self._core.load(self.clock(), self._lane(entry, entry.level(None, None))).seconds
        except Refusal:  # no more lanes for explicit levels at the moment
            return self._core.load(self.clock(), entry.lane(entry.highest)).seconds

    @property
    def queued(self) -> int:
        """Images that wait for a decoder or for a worker."""
        return self._core.queued

    @property
    def engines(self) -> int:
        """Of all workers that are there."""
        return self._core.engines

    @property
    def workers(self) -> frozenset[int]:
        """Workers that are there."""
        return self._core.workers

    @property
    def decoders(self) -> int:
        """Decoders that are there."""
        return self._core.decoders

    def pending(self) -> dict[str, int]:
        """How many images of each unit, by its key, are admitted and not with a worker."""
        return self._core.pending()

    def steps_down(self) -> dict[str, int]:
        """How many levels below the highest `auto` stands for each model; of its versions, the one furthest down."""
        found: dict[str, int] = {}
        for key, steps in self._core.steps_down().items():
            name = self._catalogue.name_of(key)
            found[name] = max(found.get(name, 0), steps)
        return found

    # -- peers -------------------------------------------------------------------------------------------------

    async def attach(self, role: Role, index: int, descriptor: int) -> None:
        """A data channel to a decoder or worker; a worker counts once it has said Hello."""
        async with self._attaching:
            if role == "decoder":
                await self._pool.attach(role, index, descriptor, self._from_decoder, self._lost_decoder)
                self._free_bodies[index] = [index * DEPTH + k for k in range(DEPTH)]
                self._decoding[index] = {}
                self._core.decoder_up(self.clock(), index)
            else:
                await self._pool.attach(role, index, descriptor, self._from_worker, self._lost_worker)
            self._act()

    def _lost_decoder(self, index: int) -> None:
        for ticket in self._decoding.pop(index, {}).values():
            self._was_read(ticket)
            self._release(ticket)
        self._core.decoder_down(self.clock(), index)
        self._act()

    def _lost_worker(self, index: int) -> None:
        for batch in [number for number, (worker, _) in self._running.items() if worker == index]:
            self._end_batch(batch)
        self._core.worker_down(self.clock(), index)
        self.holdings.lost(index)
        self._act()

    def _from_decoder(self, index: int, message: FromDecoder) -> None:
        held = self._decoding.get(index, {})
        ticket = held.get(message.id)
        check(message, self._limits, ticket.ask.entry.fitting if ticket else None, self._coded_bytes)
        if ticket is None:
            return
        del held[message.id]
        now = self.clock()
        if not isinstance(ticket.body, Stored):
            self._free_bodies[index].append(ticket.body_slot)
        self._was_read(ticket)
        if isinstance(message, Heavy):
            if ticket.item.heavy:
                raise WireError("an image was given back twice")
            self._core.heavy(now, index, ticket.item)
            self._release(ticket)
            self._act()
            return
        ticket.body = b""
        ticket.outcome.decode = message.seconds
        self._metrics.decoded(message.seconds)
        if isinstance(message, Decoded):
            ticket.geometry, ticket.coded = message.geometry, message.coded
            self._core.decoded(now, index, ticket.item, message.seconds)
        else:
            refusal = Refusal(message.code, message.message)
            self._core.undecoded(now, index, ticket.item, message.seconds, refusal)
        self._release(ticket)
        self._act()

    def _was_read(self, ticket: Ticket) -> None:
        """No decoder has the image any more."""
        ticket.busy = False
        if isinstance(ticket.body, Stored):
            if ticket.read is not None:
                ticket.read()
        elif len(ticket.body) > DISCARD_ABOVE:
            self._bodies.discard(ticket.body_slot)

    def _from_worker(self, index: int, message: FromWorker) -> None:
        now = self.clock()
        if isinstance(message, Hello):
            self._hello(now, index, message)
        elif isinstance(message, Ran):
            self._ran(now, index, message)
        elif isinstance(message, RunFailed):
            self._end_batch(message.batch)
            self._core.run_failed(now, index, message.batch, message.kind)
        else:
            serves = self.holdings.said(index, message)
            if serves and isinstance(message, LoadDone):
                self._core.worker_serves(now, index, self._profiles([message.loaded]), self._max_batch)
        self._act()

    def _hello(self, now: float, index: int, hello: Hello) -> None:
        self._max_batch = hello.max_batch
        self._core.worker_up(now, index, hello.engines, self._profiles(hello.models), hello.max_batch, hello.ahead)
        self.holdings.hello(index, [loaded.key for loaded in hello.models])

    def _profiles(self, models: Sequence[Loaded]) -> dict[LaneKey, Profile]:
        """What a worker has loaded, as the core wants to know it."""
        profiles = {}
        for loaded in models:
            self._catalogue.note_loaded(loaded)
            self._metrics.model_loaded(loaded.model, loaded.load_seconds)
            for timing in loaded.timings:
                profiles[LaneKey(loaded.key, timing.level)] = Profile(timing.a, timing.b, timing.wide)
        return profiles

    def forget(self, key: str) -> bool:
        """Give up the lanes of a unit that no request gets any more; false while some are to be answered."""
        return self._core.forget(key)

    def _ran(self, now: float, index: int, ran: Ran) -> None:
        failures: dict[int, Refusal] = {}
        for done in ran.items:
            ticket = self._tickets.get(done.id)
            if ticket is None or ticket.slot is None or ticket.slot.generation != done.generation:
                continue
            ticket.outcome.decode += ran.decode if ticket.coded else 0.0
            ticket.outcome.infer = ran.infer
            ticket.outcome.post = ran.post
            ticket.outcome.ended = now
            if isinstance(done, Undone):
                failures[done.id] = Refusal(done.code, done.message)
            else:
                ticket.outcome.result = done.result
                ticket.outcome.tokens = done.tokens
                ticket.outcome.box = ticket.geometry.box if ticket.geometry else None
                ticket.outcome.raw = done.raw
        self._count(ran)
        self._end_batch(ran.batch)
        self._core.ran(now, index, ran.batch, failures, ran.infer + ran.post)

    def _count(self, ran: Ran) -> None:
        _, tickets = self._running.get(ran.batch, (0, []))
        if tickets:
            model = tickets[0].ask.entry.manifest
            decode = sum(ticket.outcome.decode for ticket in tickets)
            self.statistics.ran(model.name, model.version, len(tickets), decode, ran.infer, ran.post)
            level = tickets[0].outcome.level
            self._metrics.ran(model.name, level.label if level else "none", ran.infer + ran.post)

    # -- actions -----------------------------------------------------------------------------------------------

    def _act(self) -> None:
        for action in self._core.take_actions():
            if isinstance(action, StartDecode):
                self._start_decode(action)
            elif isinstance(action, StartRun):
                self._start_run(action)
            else:
                self._answer(action)
        self._arm()

    def _start_decode(self, action: StartDecode) -> None:
        ticket = self._tickets[action.item.id]
        if ticket.slot is None:
            ticket.slot = self._slots.acquire()
        if ticket.slot is None:
            # Cannot happen while the arena holds a slot for every item that may be in flight or in a process.
            raise RuntimeError("no free pixel slot")
        ticket.busy = True
        self._decoding[action.decoder][action.item.id] = ticket
        body = ticket.body
        if not isinstance(body, Stored):
            body = store(self._bodies, self._free_bodies[action.decoder].pop(), body)
        ticket.body_slot = body.slot
        fitting, pixels = ticket.ask.entry.fitting, ticket.slot.index
        self._pool.send(
            "decoder",
            action.decoder,
            Decode(action.item.id, body.slot, body.size, pixels, fitting, action.limit, body.shape),
        )

    def _start_run(self, action: StartRun) -> None:
        tickets = [self._tickets[item.id] for item in action.items]
        self._running[action.batch] = (action.worker, tickets)
        works = []
        for ticket in tickets:
            ticket.busy = True
            ticket.outcome.queue = ticket.item.started_at - ticket.item.queued_at
            ticket.outcome.batch = len(tickets)
            ticket.outcome.closed = action.reason
            ticket.outcome.wide = action.wide
            ticket.outcome.run = action.batch
            ticket.outcome.level = ticket.ask.entry.served(ticket.ask.level, action.lane)
            ticket.outcome.lane = action.lane.level
            ticket.outcome.upload = ticket.item.submitted_at - ticket.item.admitted_at
            ticket.outcome.decoder_wait = ticket.item.decode_at - ticket.item.submitted_at
            if ticket.slot is None or ticket.geometry is None:
                raise RuntimeError("a queued item has no pixels")
            slot, place, options = ticket.slot, ticket.geometry, ticket.ask.options
            works.append(Work(ticket.item.id, slot.index, slot.generation, place, options, ticket.coded))
        first = tickets[0].ask
        label = first.entry.served(first.level, action.lane).label
        self._metrics.batch(first.entry.manifest.name, label, len(works), action.reason)
        self._pool.send(
            "worker",
            action.worker,
            Run(action.batch, action.lane.model, action.lane.level, works, action.wide),
        )

    def _answer(self, action: Answer) -> None:
        ticket = self._tickets[action.item.id]
        ticket.outcome.refusal = action.refusal
        if action.refusal is None and ticket.outcome.result is None:
            ticket.outcome.refusal = Refusal("internal", "the result was lost")
        if not ticket.done.done():
            ticket.done.set_result(None)
        self._release(ticket)

    def _end_batch(self, batch: int) -> None:
        _, tickets = self._running.pop(batch, (0, []))
        for ticket in tickets:
            ticket.busy = False
            self._release(ticket)

    def _release(self, ticket: Ticket) -> None:
        """Give the slot back once the item is answered and no process can touch it any more."""
        if not ticket.done.done() or ticket.busy or self._tickets.pop(ticket.item.id, None) is None:
            return
        if ticket.slot is not None:
            self._slots.release(ticket.slot)
        ticket.body = b""

    def _arm(self) -> None:
        """Have `tick` called when the next deadline passes."""
        at = self._core.next_deadline()
        if at is None or (self._timer is not None and at >= self._timer_at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = asyncio.get_running_loop().call_later(max(at - self.clock(), 0.0), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._core.tick(self.clock())
        self._act()
