"""The dispatcher: every decision about every request, as a state machine without clock or I/O.

Events come in as method calls with the time they happened; decisions go out as actions that the engine carries out.
The invariant that everything else rests on: each admitted item gets exactly one Answer.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from service.core import admission, batching, isolation
from service.core.admission import Load
from service.core.batching import Profile
from service.core.lanes import Lane, Lanes
from service.core.queue import DeadlineQueue, Item, LaneKey, State
from service.errors import Refusal

DECODER_DEPTH = 2
"""Images a decoder holds: one in work and one at hand, so that it never waits for a round trip."""

_DECODE_SECONDS = 0.002
_DECODE_WEIGHT = 0.05

CloseReason = Literal["cap", "drained", "retry"]


class StartDecode(msgspec.Struct, frozen=True, gc=False):
    """Send an item to a decoder."""

    item: Item
    decoder: int


class StartRun(msgspec.Struct, frozen=True):
    """Send a batch to a worker. `reason` is why the batch was closed at this size."""

    batch: int
    worker: int
    lane: LaneKey
    items: list[Item]
    reason: CloseReason


class Answer(msgspec.Struct, frozen=True, gc=False):
    """The item's one answer: `refusal` None means that its result stands with the engine."""

    item: Item
    refusal: Refusal | None


Action = StartDecode | StartRun | Answer


class _Batch(msgspec.Struct):
    lane: Lane
    items: list[Item]
    alone: bool = False
    """It may be what killed a worker: nothing else runs there beside it, so that nothing else is blamed."""


class _Worker:
    def __init__(self, engines: int, lanes: Iterable[LaneKey]) -> None:
        self.engines = engines
        self.lanes = frozenset(lanes)
        self.running: dict[int, _Batch] = {}


class Dispatcher:
    """See the module. `in_flight_limit` bounds admitted items."""

    def __init__(self, in_flight_limit: int) -> None:
        self._limit = in_flight_limit
        self._items: dict[int, Item] = {}
        self._deadlines: list[tuple[float, int]] = []
        self._decode_queue = DeadlineQueue()
        self._decoders: dict[int, deque[Item]] = {}
        self._decode_seconds = _DECODE_SECONDS
        self._lanes = Lanes()
        self._workers: dict[int, _Worker] = {}
        self._batches = 0
        self._actions: list[Action] = []

    # -- what the engine asks ---------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Items admitted and not yet answered."""
        return len(self._items)

    @property
    def queued(self) -> int:
        """Items that wait for a decoder or for a worker."""
        return len(self._decode_queue) + sum(lane.waiting for lane in self._lanes.busy())

    def serves(self, lane: LaneKey) -> bool:
        """True once some worker has offered the lane (it stays true while that worker restarts), and while one opened
        on demand is kept."""
        return lane in self._lanes

    def demand(self, lane: LaneKey, like: LaneKey, share: float) -> None:
        """Have a lane on demand, see Lanes.demand. Raises Refusal."""
        self._lanes.demand(lane, like, share)

    def ready(self) -> bool:
        """A decoder and a worker are there."""
        return bool(self._decoders) and bool(self._workers)

    def take_actions(self) -> list[Action]:
        """The decisions since the last call, in order."""
        actions = self._actions
        self._actions = []
        return actions

    def next_deadline(self) -> float | None:
        """When `tick` must be called at the latest."""
        heap = self._deadlines
        while heap and heap[0][1] not in self._items:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def load(self, key: LaneKey) -> Load:
        """What a new item of this lane would find before it."""
        decoders = max(len(self._decoders), 1)
        undecoded = len(self._decode_queue) + sum(len(held) for held in self._decoders.values())
        engines = max(sum(worker.engines for worker in self._workers.values()), 1)
        work = 0.0
        for lane in self._lanes.busy():
            cap = lane.cap
            work += lane.waiting * lane.profile.seconds(cap) / cap
        for worker in self._workers.values():
            work += sum(batch.lane.profile.seconds(len(batch.items)) for batch in worker.running.values()) / 2
        lane = self._lanes[key]
        cap = lane.cap
        work += undecoded * lane.profile.seconds(cap) / cap
        return Load(
            decode_seconds=self._decode_seconds * (undecoded / decoders + 1),
            infer_seconds=work / engines,
            own_seconds=lane.profile.seconds(1),
        )

    # -- processes come and go ---------------------------------------------------------------------------------

    def decoder_up(self, now: float, decoder: int) -> None:
        """A decoder is attached."""
        self._decoders[decoder] = deque()
        self._feed_decoders(now)

    def decoder_down(self, now: float, decoder: int) -> None:
        """A decoder died: the image in work is tried once more, those behind it lose nothing."""
        held = self._decoders.pop(decoder, deque())
        for position, item in enumerate(held):
            if item.state is State.ANSWERED:
                continue
            if position == 0:
                item.strikes += 1
                if item.strikes >= isolation.STRIKES:
                    self._answer(item, Refusal("undecodable_image", "the image cannot be decoded within the limits"))
                    continue
            item.state = State.WAITING
            self._decode_queue.push(item)
        self._feed_decoders(now)

    def worker_up(
        self, now: float, worker: int, engines: int, profiles: dict[LaneKey, Profile], max_batch: int
    ) -> None:
        """A worker is attached and serves these lanes."""
        self.worker_down(now, worker)
        for key, profile in profiles.items():
            self._lanes.offer(key, profile, max_batch)
        self._workers[worker] = _Worker(engines, profiles)
        self._feed_workers(now)

    def worker_down(self, now: float, worker: int) -> None:
        """A worker died: what it had in flight is tried once more, each item alone."""
        gone = self._workers.pop(worker, None)
        for batch in gone.running.values() if gone else ():
            for item in batch.items:
                if item.state is State.ANSWERED:
                    continue
                item.strikes += 1
                if item.strikes >= isolation.STRIKES:
                    self._answer(item, Refusal("unprocessable_image", "the model cannot process this image"))
                else:
                    self._retry(batch.lane, [item])
        self._feed_workers(now)

    # -- the way of an item ------------------------------------------------------------------------------------

    def admit(self, now: float, id: int, lane: LaneKey, deadline: float, priority: int = 1) -> Item:
        """Take an item in, or raise Refusal. `id` must be new."""
        if lane not in self._lanes:
            raise Refusal("starting", "the model is not loaded yet", retry_after=1.0)
        admission.try_admit(now, deadline, len(self._items), self._limit, self.load(lane))
        item = Item(id, lane, deadline, priority, now)
        self._items[id] = item
        self._lanes.enter(item)
        heapq.heappush(self._deadlines, (deadline, id))
        return item

    def submit(self, now: float, item: Item) -> None:
        """An admitted item's body is here; it may be decoded."""
        if item.state is State.WAITING and not item.ticket:
            self._decode_queue.push(item)
            self._feed_decoders(now)

    def decoded(self, now: float, decoder: int, item: Item, seconds: float) -> None:
        """A decoder finished an item; its pixels are in their slot."""
        self._leave_decoder(decoder, item, seconds)
        if item.state is State.DECODING:
            item.state = State.QUEUED
            item.queued_at = now
            item.strikes = 0
            self._lanes[item.lane].queue.push(item)
            self._feed_workers(now)
        self._feed_decoders(now)

    def undecoded(self, now: float, decoder: int, item: Item, seconds: float, refusal: Refusal) -> None:
        """A decoder refused an item."""
        self._leave_decoder(decoder, item, seconds)
        self._answer(item, refusal)
        self._feed_decoders(now)

    def ran(self, now: float, worker: int, batch_id: int, failures: dict[int, Refusal], seconds: float) -> None:
        """A batch finished; items not in `failures` have a result."""
        batch = self._end(worker, batch_id)
        if batch is None:
            return
        batch.lane.profile.observe(len(batch.items), seconds)
        for item in batch.items:
            self._answer(item, failures.get(item.id))
        self._feed_workers(now)

    def run_failed(self, now: float, worker: int, batch_id: int, kind: Literal["batch", "oom"]) -> None:
        """A batch failed as a whole: split it until the guilty item is alone."""
        batch = self._end(worker, batch_id)
        if batch is None:
            return
        if kind == "oom":
            batch.lane.max_batch = max(1, min(batch.lane.max_batch, len(batch.items) // 2))
        live = [item for item in batch.items if item.state is State.RUNNING]
        if len(batch.items) == 1:
            for item in live:
                self._answer(item, Refusal("unprocessable_image", "the model cannot process this image"))
        elif len(live) == 1:
            # The others left while it ran; whether this one is guilty is not known yet.
            self._retry(batch.lane, live)
        for half in isolation.halves(live):
            self._retry(batch.lane, half)
        self._feed_workers(now)

    def cancel(self, now: float, item: Item) -> None:
        """The client went away, or its body did not come as it should; nobody reads the answer any more."""
        self._answer(item, Refusal("client_closed_request", "the client closed the connection"))

    def tick(self, now: float) -> None:
        """Answer everything whose deadline has passed."""
        heap = self._deadlines
        while heap and (heap[0][0] <= now or heap[0][1] not in self._items):
            _, id = heapq.heappop(heap)
            if id in self._items:
                self._answer(self._items[id], Refusal("deadline_exceeded", "not answered before the deadline"))

    # -- inside ------------------------------------------------------------------------------------------------

    def _answer(self, item: Item, refusal: Refusal | None) -> None:
        if item.state is State.ANSWERED:
            return
        if item.state is State.WAITING:
            self._decode_queue.remove(item)
        elif item.state is State.QUEUED:
            self._lanes[item.lane].queue.remove(item)
        item.state = State.ANSWERED
        del self._items[item.id]
        self._lanes.leave(item)
        self._actions.append(Answer(item, refusal))

    def _feed_decoders(self, now: float) -> None:
        while self._decode_queue and self._decoders:
            decoder, held = min(self._decoders.items(), key=lambda pair: len(pair[1]))
            item = self._decode_queue.pop() if len(held) < DECODER_DEPTH else None
            if item is None:
                return
            item.state = State.DECODING
            item.started_at = now
            held.append(item)
            self._actions.append(StartDecode(item, decoder))

    def _leave_decoder(self, decoder: int, item: Item, seconds: float) -> None:
        held = self._decoders.get(decoder)
        if held and item in held:
            held.remove(item)
        self._decode_seconds += _DECODE_WEIGHT * (seconds - self._decode_seconds)

    def _feed_workers(self, now: float) -> None:
        while True:
            choice = self._next()
            if choice is None:
                return
            index, worker, lane = choice
            self._start(now, index, worker, lane)

    def _next(self) -> tuple[int, _Worker, Lane] | None:
        """The worker with the most room, and of its lanes the one with the most urgent item."""
        best: tuple[int, int, _Worker, Lane] | None = None
        for index, worker in self._workers.items():
            lane = self._urgent(worker)
            if lane is None or any(batch.alone for batch in worker.running.values()):
                continue
            if worker.running and lane.suspects:
                continue
            room = worker.engines - len(worker.running)
            if lane.profile.seconds(lane.cap) < batching.PREFETCH_BELOW:
                room += 1
            if room > 0 and (best is None or room > best[0]):
                best = (room, index, worker, lane)
        return best[1:] if best else None

    def _urgent(self, worker: _Worker) -> Lane | None:
        best: tuple[int, float, int] | None = None
        chosen: Lane | None = None
        for lane in self._lanes.busy():
            if lane.like not in worker.lanes:
                continue
            for head in (lane.retry_head(), lane.queue.head()):
                if head is not None and (best is None or (head.priority, head.deadline, head.id) < best):
                    best = (head.priority, head.deadline, head.id)
                    chosen = lane
        return chosen

    def _start(self, now: float, index: int, worker: _Worker, lane: Lane) -> None:
        reason: CloseReason
        alone = lane.suspects
        if lane.retry_head() is not None:
            items = [item for item in lane.retries.popleft() if item.state is State.QUEUED]
            reason = "retry"
        else:
            cap = lane.cap
            room = batching.share(len(lane.queue), worker.engines - len(worker.running), cap)
            items = []
            while len(items) < room and (item := lane.queue.pop()) is not None:
                items.append(item)
            reason = "cap" if len(items) >= cap else "drained"
        for item in items:
            item.state = State.RUNNING
            item.started_at = now
        self._batches += 1
        worker.running[self._batches] = _Batch(lane, items, alone)
        self._actions.append(StartRun(self._batches, index, lane.key, items, reason))

    def _end(self, worker: int, batch_id: int) -> _Batch | None:
        holder = self._workers.get(worker)
        return holder.running.pop(batch_id, None) if holder else None

    def _retry(self, lane: Lane, items: Sequence[Item]) -> None:
        for item in items:
            item.state = State.QUEUED
        lane.retries.append(list(items))
