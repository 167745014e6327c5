"""The dispatcher: every decision about every request, as a state machine without clock or I/O.

Events come in as method calls with the time they happened; decisions go out as actions that the engine carries out.
The invariant that everything else rests on: each admitted item gets exactly one Answer.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Container, Sequence
from typing import Literal

from service.core import admission, batching, isolation
from service.core.actions import Action, Answer, StartDecode, StartRun
from service.core.admission import Load
from service.core.batching import CloseReason, Profile
from service.core.decoding import HEAVY_SECONDS, Decoding
from service.core.fairness import CLASSES
from service.core.forecast import Forecast
from service.core.lanes import Lane, Lanes
from service.core.queue import Item, LaneKey, State
from service.core.turns import Turn, Turns
from service.core.workers import Batch, Worker, Workers
from service.errors import Refusal


class Dispatcher:
    """See the module. `in_flight_limit` bounds admitted items."""

    def __init__(self, in_flight_limit: int) -> None:
        self._limit = in_flight_limit
        self._items: dict[int, Item] = {}
        self._held: Counter[str] = Counter()
        """Admitted items by client."""
        self._deadlines: list[tuple[float, int]] = []
        self._decoding = Decoding()
        self._lanes = Lanes()
        self._turns = Turns(self._lanes)
        self._workers = Workers()
        self._forecast = Forecast(self._decoding, self._lanes, self._turns, self._workers)
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
        return max(sum(lane.waiting for lane in self._lanes.busy()) - self._decoding.held, 0)

    @property
    def engines(self) -> int:
        """Of all workers that are there."""
        return self._workers.engines if self._workers else 0

    @property
    def workers(self) -> frozenset[int]:
        """Workers that are there."""
        return self._workers.there

    @property
    def decoders(self) -> int:
        """Decoders that are there."""
        return self._decoding.decoders

    def pending(self) -> dict[str, int]:
        """How many items of each model are admitted and not with a worker."""
        counts = dict.fromkeys(self._lanes.groups, 0)
        for item in self._items.values():
            counts[item.lane.model] += item.state < State.RUNNING
        return counts

    def steps_down(self) -> dict[str, int]:
        """How many levels below the highest one `auto` stands for each model."""
        return {model: group.auto.at for model, group in self._lanes.groups.items()}

    def serves(self, lane: LaneKey) -> bool:
        """True once some worker has offered the lane (it stays true while that worker restarts), and while one opened
        on demand is kept."""
        return lane in self._lanes

    def demand(self, lane: LaneKey, like: LaneKey, share: float) -> None:
        """Have a lane on demand, see Lanes.demand. Raises Refusal."""
        self._lanes.demand(lane, like, share)

    def auto(self, model: str, floor: str | None) -> LaneKey:
        """The lane of items whose level is the scheduler's choice, see Lanes.auto. Raises Refusal."""
        if model not in self._lanes.groups:
            raise Refusal("starting", "the model is not loaded yet", retry_after=1.0)
        return self._lanes.auto(model, floor)

    def ready(self, late: Container[int] = ()) -> bool:
        """A decoder is there, and a worker that is not among those who are `late`."""
        return bool(self._decoding) and any(index not in late for index, _ in self._workers.items())

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

    def load(self, now: float, key: LaneKey, priority: int = 1, client: str = "") -> Load:
        """What a new item would find before it."""
        return self._forecast.load(now, self._lanes[key], priority, client)

    # -- processes come and go ---------------------------------------------------------------------------------

    def decoder_up(self, now: float, decoder: int) -> None:
        """A decoder is attached."""
        self._decoding.up(decoder)
        self._feed_decoders(now)

    def decoder_down(self, now: float, decoder: int) -> None:
        """A decoder died: the image in work is tried once more, those behind it lose nothing."""
        for item, at_work in self._decoding.down(decoder):
            item.strikes += at_work
            if at_work and item.strikes >= isolation.STRIKES:
                self._answer(item, Refusal("undecodable_image", "the image cannot be decoded within the limits"))
            else:
                self._decoding.push(now, item)
        self._feed_decoders(now)

    def worker_up(
        self,
        now: float,
        worker: int,
        engines: int,
        profiles: dict[LaneKey, Profile],
        max_batch: int,
        ahead: int = 0,
    ) -> None:
        """A worker is attached and serves these lanes; of each model those of the highest level first."""
        self.worker_down(now, worker)
        for key, profile in profiles.items():
            self._lanes.offer(key, profile, max_batch)
        self._workers.add(worker, Worker(engines, profiles, ahead))
        for group in self._lanes.groups.values():
            group.waiting.resume(now)
        self._feed_workers(now)

    def worker_serves(self, now: float, worker: int, profiles: dict[LaneKey, Profile], max_batch: int) -> None:
        """A worker that is attached has loaded a model more."""
        for key, profile in profiles.items():
            self._lanes.offer(key, profile, max_batch)
        self._workers.serves(worker, profiles)
        self._feed_workers(now)

    def forget(self, model: str) -> bool:
        """Nobody asks for this model any more: give up its lanes. False while it has items to be answered."""
        if not self._lanes.forget(model):
            return False
        self._workers.forget(model)
        return True

    def worker_down(self, now: float, worker: int) -> None:
        """A worker died: what it had in flight is tried once more, each item alone."""
        for batch in self._workers.remove(worker):
            for item in batch.items:
                if item.state is State.ANSWERED:
                    continue
                item.strikes += 1
                if item.strikes >= isolation.STRIKES:
                    self._answer(item, Refusal("unprocessable_image", "the model cannot process this image"))
                else:
                    self._retry(now, batch.lane, [item])
        self._feed_workers(now)

    # -- the way of an item ------------------------------------------------------------------------------------

    def admit(self, now: float, id: int, lane: LaneKey, deadline: float, priority: int = 1, client: str = "") -> Item:
        """Take an item in, or raise Refusal. `id` must be new."""
        if lane not in self._lanes:
            raise Refusal("starting", "the model is not loaded yet", retry_after=1.0)
        load = self.load(now, lane, priority, client)
        admission.check_room(len(self._items), self._limit, self._held[client], load)
        self._check_time(now, deadline, lane, load)
        item = Item(id, lane, deadline, priority, now, client)
        self._items[id] = item
        self._held[client] += 1
        self._lanes.enter(item)
        heapq.heappush(self._deadlines, (deadline, id))
        return item

    def submit(self, now: float, item: Item) -> None:
        """An admitted item's body is here. It may be decoded, unless others came first meanwhile."""
        if item.state is not State.ADMITTED:
            return
        lane = self._lanes[item.lane]
        try:
            load = self.load(now, item.lane, item.priority, item.client)
            self._check_time(now, item.deadline, item.lane, load)
        except Refusal as refusal:
            self._answer(item, refusal)
            return
        item.submitted_at = now
        if lane.floor is not None:
            lane.group.auto.note(item.deadline - now)
        lane.group.enter(now, lane, item)
        self._decoding.push(now, item)
        self._feed_decoders(now)

    def decoded(self, now: float, decoder: int, item: Item, seconds: float) -> None:
        """A decoder finished an item; its pixels are in their slot."""
        self._decoding.finished(decoder, item, seconds)
        if item.state is State.DECODING:
            item.state = State.QUEUED
            item.queued_at = now
            item.strikes = 0
            self._lanes[item.lane].queue.push(item)
            self._feed_workers(now)
        self._feed_decoders(now)

    def undecoded(self, now: float, decoder: int, item: Item, seconds: float, refusal: Refusal) -> None:
        """A decoder refused an item."""
        self._decoding.finished(decoder, item, seconds)
        self._answer(item, refusal)
        self._feed_decoders(now)

    def heavy(self, now: float, decoder: int, item: Item) -> None:
        """A decoder gave an item back that would take it longer than the limit."""
        self._decoding.bounced(now, decoder, item)
        self._feed_decoders(now)

    def ran(self, now: float, worker: int, batch_id: int, failures: dict[int, Refusal], seconds: float) -> None:
        """A batch finished; items not in `failures` have a result."""
        batch = self._workers.end(now, worker, batch_id)
        if batch is None:
            return
        batch.lane.profile.observe(len(batch.items), batch.worked(seconds))
        for item in batch.items:
            self._answer(item, failures.get(item.id))
        self._feed_workers(now)

    def run_failed(self, now: float, worker: int, batch_id: int, kind: Literal["batch", "oom"]) -> None:
        """A batch failed as a whole: split it until the guilty item is alone."""
        batch = self._workers.end(now, worker, batch_id)
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
            self._retry(now, batch.lane, live)
        for half in isolation.halves(live):
            self._retry(now, batch.lane, half)
        self._feed_workers(now)

    def cancel(self, now: float, item: Item) -> None:
        """The client went away, or its body did not come as it should; nobody reads the answer any more."""
        self._answer(item, Refusal("client_closed_request", "the client closed the connection"))

    def tick(self, now: float) -> None:
        """Answer everything whose deadline has passed."""
        heap = self._deadlines
        while heap and (heap[0][0] <= now or heap[0][1] not in self._items):
            _, id = heapq.heappop(heap)
            item = self._items.get(id)
            if item is not None:
                self._press(item.lane)
                self._answer(item, Refusal("deadline_exceeded", "not answered before the deadline"))

    # -- inside ------------------------------------------------------------------------------------------------

    def _check_time(self, now: float, deadline: float, key: LaneKey, load: Load) -> None:
        try:
            admission.check_time(now, deadline, load)
        except Refusal:
            self._press(key)
            if self._workers.idle:
                # Nothing is being measured any more: what was seen last must not shut everyone out for ever.
                for lane in self._lanes[key].group.lanes.values():
                    lane.profile.relax()
            raise

    def _press(self, key: LaneKey) -> None:
        """Somebody is refused who might have been served at a lower level."""
        lane = self._lanes[key]
        if lane.floor is not None:
            lane.group.auto.press()

    def _answer(self, item: Item, refusal: Refusal | None) -> None:
        if item.state is State.ANSWERED:
            return
        if item.state is State.WAITING:
            self._decoding.remove(item)
        elif item.state is State.QUEUED:
            self._lanes[item.lane].queue.remove(item)
        item.state = State.ANSWERED
        del self._items[item.id]
        self._held[item.client] -= 1
        if not self._held[item.client]:
            del self._held[item.client]
        self._lanes.leave(item)
        self._actions.append(Answer(item, refusal))

    def _feed_decoders(self, now: float) -> None:
        while (given := self._decoding.next(now)) is not None:
            item, decoder = given
            self._actions.append(StartDecode(item, decoder, 0.0 if item.heavy else HEAVY_SECONDS))

    def _feed_workers(self, now: float) -> None:
        while (choice := self._next()) is not None:
            self._start(now, *choice)

    def _next(self) -> tuple[int, Worker, Turn] | None:
        """The worker with the most room, and what it should run next."""
        best: tuple[int, int, Worker, Turn] | None = None
        for index, worker in self._workers.items():
            room = worker.engines + worker.ahead - len(worker.running)
            # Even a short batch is sent ahead by one at most.
            if room < 0 or any(batch.alone for batch in worker.running.values()):
                continue
            turn = self._turns.next(worker.lanes)
            if turn is None or (worker.running and turn.lane.suspects):
                continue
            lane = turn.lane.group.serving(turn.lane)
            room += not worker.ahead and lane.profile.seconds(lane.cap) < batching.PREFETCH_BELOW
            if room > 0 and (best is None or room > best[0]):
                best = (room, index, worker, turn)
        return best[1:] if best else None

    def _start(self, now: float, index: int, worker: Worker, turn: Turn) -> None:
        reason: CloseReason
        lane = turn.lane
        alone = lane.suspects
        served = lane
        if lane.retry_head() is not None:
            items = [item for item in lane.retries.popleft() if item.state is State.QUEUED]
            reason = "retry"
        else:
            if lane.floor is not None:
                served = self._choose_level(now, lane, worker)
            items, late, reason = self._turns.take(now, turn, served, worker)
            for item in late:
                self._press(item.lane)
                self._answer(item, Refusal("deadline_exceeded", "cannot be answered before the deadline any more"))
            if not items:
                return
        seconds = served.profile.seconds(len(items))
        self._turns.took(turn, served, items, seconds)
        for item in items:
            item.state = State.RUNNING
            item.started_at = now
            served.group.leave(self._lanes[item.lane], item)
        for (cls, client), taken in Counter((item.priority, item.client) for item in items).items():
            served.group.waiting.took(now, cls, client, taken)
        self._batches += 1
        # What comes while it runs has an engine of its own, and takes its CPU back.
        wide = worker.spread(served.profile) < 1.0 and self._turns.next(worker.lanes) is None
        worker.start(now, self._batches, Batch(served, items, seconds, alone, wide))
        self._actions.append(StartRun(self._batches, index, served.key, items, reason, wide))

    def _choose_level(self, now: float, lane: Lane, worker: Worker) -> Lane:
        """The lane at whose level the items of an `auto` lane run now."""
        group = lane.group
        group.auto.choose(now, len(group.offered), lambda at: self._forecast.finish(now, group, at))
        served = group.serving(lane)
        head = next(head for priority in range(CLASSES) if (head := lane.queue.head(priority)))
        while (
            served.key.level != lane.floor
            and now + served.profile.seconds(1) * worker.spread(served.profile) > head.deadline
        ):
            served = group.offered[group.rank[served.key.level] + 1]
        return served

    def _retry(self, now: float, lane: Lane, items: Sequence[Item]) -> None:
        for item in items:
            item.state = State.QUEUED
            lane.group.enter(now, self._lanes[item.lane], item)
        lane.retries.append(list(items))
