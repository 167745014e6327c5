"""A whole service in virtual time around the real dispatcher: arrivals, decoders, workers, faults, clients that leave.

Nothing here is random but by seed, and nothing waits: 100,000 requests take seconds.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from dataclasses import dataclass, field

from service.core.batching import Profile
from service.core.dispatch import Answer, Dispatcher, StartDecode, StartRun
from service.core.queue import Item, LaneKey
from service.errors import Refusal

LANES = (LaneKey("classify", "full"), LaneKey("detect", "full"))


@dataclass(frozen=True)
class World:
    """What happens to the service. Times are seconds, shares are of requests or events."""

    requests: int
    rate: float
    seed: int = 0
    timeout: float = 0.5
    decoders: int = 2
    engines: int = 2
    decode: float = 0.0015
    a: float = 0.002
    b: float = 0.004
    bad_image: float = 0.0
    guilty: float = 0.0
    leaves: float = 0.0
    worker_dies_every: float = 0.0
    decoder_dies_every: float = 0.0
    restart: float = 0.5
    in_flight: int = 256
    schedules: int = 0
    """How many different explicit levels a tenth of the requests ask for."""


EVERY_FAULT = World(
    requests=100_000,
    rate=600,
    bad_image=0.01,
    guilty=0.005,
    leaves=0.02,
    worker_dies_every=5.0,
    decoder_dies_every=3.0,
)
"""Overload, disconnects, bad images, failing batches, dying processes."""


@dataclass
class Outcome:
    """What the clients saw."""

    answers: Counter[str] = field(default_factory=Counter)
    answered: dict[int, str] = field(default_factory=dict)
    admitted: set[int] = field(default_factory=set)
    late: int = 0
    on_time: int = 0
    batches: list[int] = field(default_factory=list)
    guilty: set[int] = field(default_factory=set)
    runs_with_answered: int = 0
    mixed: int = 0
    """Batches that held items of more than one level."""
    seconds: float = 0.0


class Simulation:
    """Runs a World; events are (time, order, what, arguments)."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.random = random.Random(world.seed)
        self.core = Dispatcher(world.in_flight)
        self.out = Outcome()
        self._events: list[tuple[float, int, str, tuple[object, ...]]] = []
        self._order = itertools.count()
        self._decoder_free = [0.0] * world.decoders
        self._engine_free = [0.0] * world.engines
        self._life = Counter[str]()

    def run(self) -> Outcome:
        """Until every request is answered."""
        world = self.world
        for decoder in range(world.decoders):
            self.core.decoder_up(0.0, decoder)
        self._worker_up(0.0)
        at = 0.0
        for number in range(world.requests):
            at += self.random.expovariate(world.rate)
            self._at(at, "arrive", number)
        for kind, every in (("worker_dies", world.worker_dies_every), ("decoder_dies", world.decoder_dies_every)):
            for k in range(1, int(at / every) if every else 0):
                self._at(k * every, kind)
        now = 0.0
        while self._events:
            now, _, what, arguments = heapq.heappop(self._events)
            due = self.core.next_deadline()
            while due is not None and due <= now:
                self.core.tick(due)
                self._act(due)
                due = self.core.next_deadline()
            getattr(self, "_" + what)(now, *arguments)
            self._act(now)
        while (due := self.core.next_deadline()) is not None:
            self.core.tick(due)
            self._act(due)
        self.out.seconds = now
        return self.out

    def _at(self, time: float, what: str, *arguments: object) -> None:
        heapq.heappush(self._events, (time, next(self._order), what, arguments))

    def _worker_up(self, now: float) -> None:
        profiles = {lane: Profile(self.world.a, self.world.b) for lane in LANES}
        self.core.worker_up(now, 0, self.world.engines, profiles, 16)

    def _decoder_up(self, now: float, decoder: int) -> None:
        self.core.decoder_up(now, decoder)

    # -- events ------------------------------------------------------------------------------------------------

    def _arrive(self, now: float, number: int) -> None:
        lane = LANES[number % len(LANES)]
        try:
            if self.world.schedules and number % 10 == 0:
                like, lane = lane, LaneKey(lane.model, f"tome:{self.random.randrange(self.world.schedules)}")
                self.core.demand(lane, like, 0.5)
            item = self.core.admit(now, number, lane, now + self.world.timeout, self.random.randrange(3))
        except Refusal as refusal:
            self._note(number, refusal.code, now, now)
            return
        self.out.admitted.add(number)
        if self.random.random() < self.world.guilty:
            self.out.guilty.add(number)
        if self.random.random() < self.world.leaves:
            self._at(now + self.random.random() * 0.05, "leave", item)
        self.core.submit(now, item)

    def _leave(self, now: float, item: Item) -> None:
        self.core.cancel(now, item)

    def _decoded(self, now: float, decoder: int, life: int, item: Item) -> None:
        if self._life[f"decoder {decoder}"] != life:
            return
        if self.random.random() < self.world.bad_image:
            refusal = Refusal("undecodable_image", "bad")
            self.core.undecoded(now, decoder, item, self.world.decode, refusal)
        else:
            self.core.decoded(now, decoder, item, self.world.decode)

    def _ran(self, now: float, life: int, action: StartRun, seconds: float) -> None:
        if self._life["worker"] != life:
            return
        if any(item.id in self.out.guilty for item in action.items):
            self.core.run_failed(now, 0, action.batch, "batch")
        else:
            self.core.ran(now, 0, action.batch, {}, seconds)

    def _worker_dies(self, now: float) -> None:
        self._life["worker"] += 1
        self._engine_free = [now + self.world.restart] * self.world.engines
        self.core.worker_down(now, 0)
        self._at(now + self.world.restart, "worker_up")

    def _decoder_dies(self, now: float) -> None:
        decoder = self.random.randrange(self.world.decoders)
        self._life[f"decoder {decoder}"] += 1
        self._decoder_free[decoder] = now + self.world.restart
        self.core.decoder_down(now, decoder)
        self._at(now + self.world.restart, "decoder_up", decoder)

    # -- actions -----------------------------------------------------------------------------------------------

    def _act(self, now: float) -> None:
        for action in self.core.take_actions():
            if isinstance(action, StartDecode):
                start = max(now, self._decoder_free[action.decoder])
                self._decoder_free[action.decoder] = start + self.world.decode
                life = self._life[f"decoder {action.decoder}"]
                self._at(start + self.world.decode, "decoded", action.decoder, life, action.item)
            elif isinstance(action, StartRun):
                self._start_run(now, action)
            elif isinstance(action, Answer):
                code = action.refusal.code if action.refusal else "ok"
                self._note(action.item.id, code, now, action.item.deadline)

    def _start_run(self, now: float, action: StartRun) -> None:
        count = len(action.items)
        self.out.batches.append(count)
        self.out.runs_with_answered += sum(item.id in self.out.answered for item in action.items)
        self.out.mixed += any(item.lane != action.lane for item in action.items)
        engine = min(range(self.world.engines), key=self._engine_free.__getitem__)
        seconds = self.world.a + self.world.b * count
        start = max(now, self._engine_free[engine])
        self._engine_free[engine] = start + seconds
        self._at(start + seconds, "ran", self._life["worker"], action, seconds)

    def _note(self, number: int, code: str, now: float, deadline: float) -> None:
        if number in self.out.answered:
            raise AssertionError(f"request {number} answered twice: {self.out.answered[number]}, {code}")
        self.out.answered[number] = code
        self.out.answers[code] += 1
        if code == "ok":
            if now <= deadline + 1e-9:
                self.out.on_time += 1
            else:
                self.out.late += 1
