"""A whole service in virtual time around the real dispatcher: arrivals, decoders, workers, faults, clients that leave.

Nothing here is random but by seed, and nothing waits: 100,000 requests take seconds.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field

from service.core.actions import Answer, StartDecode, StartRun
from service.core.batching import Profile
from service.core.dispatch import Dispatcher
from service.core.queue import Item, LaneKey
from service.errors import Refusal

HEAVY = 100
"""How many times as long a heavy image takes to decode."""
LOOK = 0.0001
"""Seconds in which a decoder sees that an image is heavy."""


@dataclass(frozen=True)
class World:
    """What happens to the service. Times are seconds, shares are of requests or events."""

    requests: int
    rate: float
    seed: int = 0
    timeout: float = 0.5
    decoders: int = 2
    workers: int = 1
    engines: int = 2
    """Of each worker."""
    max_batch: int = 16
    decode: float = 0.0015
    a: float = 0.002
    b: float = 0.004
    wide: float = 1.0
    """Share of its time that a batch takes with all CPUs of its worker."""
    bad_image: float = 0.0
    guilty: float = 0.0
    leaves: float = 0.0
    worker_dies_every: float = 0.0
    decoder_dies_every: float = 0.0
    restart: float = 0.5
    in_flight: int = 256
    schedules: int = 0
    """How many different explicit levels a tenth of the requests ask for."""
    models: tuple[str, ...] = ("classify", "detect")
    mix: tuple[float, ...] = ()
    """Each model's share of the requests; equal when empty."""
    levels: tuple[tuple[str, float], ...] = (("full", 1.0),)
    """Named levels and the time a batch takes at them, as a share of that at the first."""
    auto: str = ""
    """The floor of requests that leave their level to the scheduler; empty: all ask for the first."""
    clients: tuple[float, ...] = (1.0,)
    """Each client's share of the requests."""
    priorities: tuple[float, ...] = (1.0, 1.0, 1.0)
    """Shares of high, normal and low."""
    heavy: float = 0.0
    """Share of images that take a hundred times as long to decode."""
    bursts: tuple[tuple[float, float], ...] = ()
    """From each of these times on, the rate is that many times `rate`."""


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
    by_client: dict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    by_model: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    by_priority: dict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    served: Counter[str] = field(default_factory=Counter)
    """Items that ran, by level."""
    wide: int = 0
    """Batches that were sent as wide."""
    history: list[tuple[float, str]] = field(default_factory=list)
    """When batches started, and at which level."""
    latencies: list[float] = field(default_factory=list)
    """Of those answered ok."""


@dataclass(slots=True)
class Request:
    """One request as the client knows it."""

    model: str
    client: int
    priority: int
    at: float


@dataclass(slots=True, eq=False)
class Job:
    """A batch on a worker, and how much of its work is left, in seconds of one CPU."""

    action: StartRun
    left: float
    begun: float = 0.0


class Engines:
    """A worker's engines: batches run side by side, as many as there are engines, and the rest wait.

    A batch has one CPU. A wide one has those besides that have no batch.
    """

    def __init__(self, world: World) -> None:
        self.count = world.engines
        self.running: list[Job] = []
        self.waiting: deque[Job] = deque()
        self.version = 0
        """Of `end`."""
        self._shape = Profile(world.a, world.b, world.wide)
        self._at = 0.0

    def add(self, now: float, action: StartRun, seconds: float) -> None:
        """One more."""
        self.advance(now)
        self.waiting.append(Job(action, seconds))
        self._fill(now)

    def advance(self, now: float) -> None:
        """Work goes on until now."""
        for job in self.running:
            job.left -= (now - self._at) / self._spread(job)
        self._at = now

    def end(self) -> float:
        """When the next one ends, if nothing is added."""
        return min((self._at + max(job.left, 0.0) * self._spread(job) for job in self.running), default=math.inf)

    def pop(self, now: float) -> list[tuple[StartRun, float]]:
        """Those that have ended by now, and how long they ran."""
        self.advance(now)
        ended = [job for job in self.running if job.left * self._spread(job) < 1e-9]
        self.running = [job for job in self.running if job not in ended]
        self._fill(now)
        return [(job.action, now - job.begun) for job in ended]

    def clear(self) -> None:
        """The worker died."""
        self.running.clear()
        self.waiting.clear()

    def _fill(self, now: float) -> None:
        while self.waiting and len(self.running) < self.count:
            job = self.waiting.popleft()
            job.begun = now
            self.running.append(job)

    def _spread(self, job: Job) -> float:
        idle = self.count - len(self.running)
        return self._shape.spread(self.count, 1 + idle) if job.action.wide else 1.0


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
        self._engines = [Engines(world) for _ in range(world.workers)]
        self._life = Counter[str]()
        self._requests: dict[int, Request] = {}
        faults = {"worker_dies": world.worker_dies_every, "decoder_dies": world.decoder_dies_every}
        self._faults = {kind: every for kind, every in faults.items() if every}
        self._arrived = 0
        self._shares = dict(world.levels)
        self._heavy: set[int] = set()

    def run(self) -> Outcome:
        """Until every request is answered."""
        world = self.world
        for decoder in range(world.decoders):
            self.core.decoder_up(0.0, decoder)
        for worker in range(world.workers):
            self._worker_up(0.0, worker)
        self._next_arrival(0.0, 0)
        for kind, every in self._faults.items():
            self._at(every, kind)
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

    def _worker_up(self, now: float, worker: int) -> None:
        world = self.world
        profiles = {
            LaneKey(model, level): Profile(world.a * share, world.b * share, world.wide)
            for model in world.models
            for level, share in world.levels
        }
        self.core.worker_up(now, worker, world.engines, profiles, world.max_batch)

    def _decoder_up(self, now: float, decoder: int) -> None:
        self.core.decoder_up(now, decoder)

    # -- events ------------------------------------------------------------------------------------------------

    def _next_arrival(self, now: float, number: int) -> None:
        """One at a time, so that ten million requests fit into memory."""
        world = self.world
        if number < world.requests:
            factor = next((factor for since, factor in reversed(world.bursts) if now >= since), 1.0)
            self._at(now + self.random.expovariate(world.rate * factor), "arrive", number)

    def _pick(self, shares: tuple[float, ...]) -> int:
        return self.random.choices(range(len(shares)), shares)[0] if len(shares) > 1 else 0

    def _arrive(self, now: float, number: int) -> None:
        world = self.world
        self._arrived = number + 1
        self._next_arrival(now, number + 1)
        model = world.models[self._pick(world.mix) if world.mix else number % len(world.models)]
        request = self._requests[number] = Request(model, self._pick(world.clients), self._pick(world.priorities), now)
        lane = LaneKey(model, world.levels[0][0])
        try:
            if world.schedules and number % 10 == 0:
                like, lane = lane, LaneKey(model, f"tome:{self.random.randrange(world.schedules)}")
                self.core.demand(lane, like, 0.5)
            elif world.auto:
                lane = self.core.auto(model, world.auto)
            deadline = now + world.timeout
            item = self.core.admit(now, number, lane, deadline, request.priority, str(request.client))
        except Refusal as refusal:
            self._note(number, refusal.code, now, now)
            return
        self.out.admitted.add(number)
        if self.random.random() < self.world.guilty:
            self.out.guilty.add(number)
        if self.random.random() < self.world.heavy:
            self._heavy.add(number)
        if self.random.random() < self.world.leaves:
            self._at(now + self.random.random() * 0.05, "leave", item)
        self.core.submit(now, item)

    def _leave(self, now: float, item: Item) -> None:
        self.core.cancel(now, item)

    def _decoded(self, now: float, decoder: int, life: int, item: Item) -> None:
        if self._life[f"decoder {decoder}"] != life:
            return
        if item.id in self._heavy and not item.heavy:
            self.core.heavy(now, decoder, item)
        elif self.random.random() < self.world.bad_image:
            refusal = Refusal("undecodable_image", "bad")
            self.core.undecoded(now, decoder, item, self.world.decode, refusal)
        else:
            self.core.decoded(now, decoder, item, self.world.decode * (HEAVY if item.heavy else 1))

    def _batch_ends(self, now: float, worker: int, version: int) -> None:
        engines = self._engines[worker]
        if engines.version != version:
            return
        for action, seconds in engines.pop(now):
            self._ran(now, action, seconds)
        self._await(worker)

    def _await(self, worker: int) -> None:
        engines = self._engines[worker]
        engines.version += 1
        if engines.running:
            self._at(engines.end(), "batch_ends", worker, engines.version)

    def _ran(self, now: float, action: StartRun, seconds: float) -> None:
        if any(item.id in self.out.guilty for item in action.items):
            self.core.run_failed(now, action.worker, action.batch, "batch")
        else:
            self.core.ran(now, action.worker, action.batch, {}, seconds)

    def _again(self, now: float, kind: str) -> None:
        if self._arrived < self.world.requests:
            self._at(now + self._faults[kind], kind)

    def _worker_dies(self, now: float) -> None:
        self._again(now, "worker_dies")
        worker = self.random.randrange(self.world.workers)
        self._life[f"worker {worker}"] += 1
        self._engines[worker].clear()
        self.core.worker_down(now, worker)
        self._at(now + self.world.restart, "worker_up", worker)

    def _decoder_dies(self, now: float) -> None:
        self._again(now, "decoder_dies")
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
                end = start + self.world.decode * (HEAVY if action.item.heavy else 1)
                if action.limit and action.item.id in self._heavy:
                    end = start + LOOK
                self._decoder_free[action.decoder] = end
                self._at(end, "decoded", action.decoder, self._life[f"decoder {action.decoder}"], action.item)
            elif isinstance(action, StartRun):
                self._start_run(now, action)
            elif isinstance(action, Answer):
                code = action.refusal.code if action.refusal else "ok"
                self._note(action.item.id, code, now, action.item.deadline)

    def _start_run(self, now: float, action: StartRun) -> None:
        count = len(action.items)
        self.out.batches.append(count)
        self.out.runs_with_answered += sum(item.id in self.out.answered for item in action.items)
        self.out.mixed += any(
            item.lane != action.lane and not item.lane.level.startswith("auto") for item in action.items
        )
        self.out.served[action.lane.level] += count
        self.out.history.append((now, action.lane.level))
        self.out.wide += action.wide
        seconds = (self.world.a + self.world.b * count) * self._shares.get(action.lane.level, 1.0)
        self._engines[action.worker].add(now, action, seconds)
        self._await(action.worker)

    def _note(self, number: int, code: str, now: float, deadline: float) -> None:
        if number in self.out.answered:
            raise AssertionError(f"request {number} answered twice: {self.out.answered[number]}, {code}")
        self.out.answered[number] = code
        self.out.answers[code] += 1
        request = self._requests.pop(number)
        self.out.by_client[request.client][code] += 1
        self.out.by_model[request.model][code] += 1
        self.out.by_priority[request.priority][code] += 1
        if code == "ok":
            self.out.latencies.append(now - request.at)
            if now <= deadline + 1e-9:
                self.out.on_time += 1
            else:
                self.out.late += 1
