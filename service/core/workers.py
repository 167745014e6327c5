"""The workers, and what runs on their engines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from service.core.batching import Profile
from service.core.lanes import Lane
from service.core.queue import Item, LaneKey


class Batch(msgspec.Struct):
    """Items under way together, as of one lane. Work is told in engine seconds: those of an engine whose neighbours
    are busy too."""

    lane: Lane
    items: list[Item]
    work: float
    """What it should take."""
    alone: bool = False
    """It may be what killed a worker: nothing else runs there beside it, so that nothing else is blamed."""
    wide: bool = False
    """It began with all the CPUs, and keeps those that others leave."""
    started: float = 0.0
    since: float = 0.0
    done: float = 0.0
    """Of the work, until `since`."""

    def worked(self, seconds: float) -> float:
        """What it would have taken on one CPU, having taken `seconds`; for one that has ended."""
        if self.lane.profile.wide == 1.0 or self.since <= self.started:
            return seconds
        return seconds * self.done / (self.since - self.started)


class Worker:
    """One worker: how many engines it has, which lanes it offers, and its batches by number. A device wants `ahead`
    batches besides those that run, so that it need not wait for the next."""

    def __init__(self, engines: int, lanes: Iterable[LaneKey], ahead: int = 0) -> None:
        self.engines = engines
        self.ahead = ahead
        self.lanes = frozenset(lanes)
        self.running: dict[int, Batch] = {}

    def start(self, now: float, number: int, batch: Batch) -> None:
        """A batch begins."""
        self._advance(now)
        batch.started = batch.since = now
        self.running[number] = batch

    def end(self, now: float, number: int) -> Batch | None:
        """A batch has ended; None when it is not here."""
        self._advance(now)
        return self.running.pop(number, None)

    def spread(self, profile: Profile) -> float:
        """The share of its time that a batch would take that starts now, if nothing comes after it."""
        return 1.0 if self.running else profile.spread(self.engines, self.engines)

    def remaining(self, now: float) -> float:
        """Engine seconds that what runs will still take."""
        return sum(max(batch.work - self._done(batch, now), 0.0) for batch in self.running.values())

    def _done(self, batch: Batch, now: float) -> float:
        # All share, but the CPU of an engine that is idle serves a wide batch alone.
        cpus = (self.engines - (not batch.wide)) / len(self.running)
        return batch.done + (now - batch.since) / batch.lane.profile.spread(self.engines, cpus)

    def _advance(self, now: float) -> None:
        """How far each batch is, before the number of those that share the CPUs changes."""
        for batch in self.running.values():
            batch.done = self._done(batch, now)
            batch.since = now


class Workers:
    """All workers by index."""

    def __init__(self) -> None:
        self._workers: dict[int, Worker] = {}
        self.engines = 1
        """Of all workers; 1 while there is none, so that predictions stay finite."""

    def __bool__(self) -> bool:
        return bool(self._workers)

    def items(self) -> Iterator[tuple[int, Worker]]:
        """Index and worker."""
        return iter(self._workers.items())

    def add(self, index: int, worker: Worker) -> None:
        """A worker is attached."""
        self._workers[index] = worker
        self._count()

    def remove(self, index: int) -> list[Batch]:
        """A worker is gone: the batches it had."""
        gone = self._workers.pop(index, None)
        self._count()
        return list(gone.running.values()) if gone else []

    def serves(self, index: int, lanes: Iterable[LaneKey]) -> None:
        """A worker offers more."""
        worker = self._workers.get(index)
        if worker is not None:
            worker.lanes |= frozenset(lanes)

    def forget(self, model: str) -> None:
        """No worker offers this model any more."""
        for worker in self._workers.values():
            worker.lanes = frozenset(lane for lane in worker.lanes if lane.model != model)

    def end(self, now: float, index: int, number: int) -> Batch | None:
        """A batch has ended; None when it was lost with a former worker."""
        worker = self._workers.get(index)
        return worker.end(now, number) if worker else None

    @property
    def there(self) -> frozenset[int]:
        """The workers that are attached."""
        return frozenset(self._workers)

    @property
    def idle(self) -> bool:
        """Nothing runs."""
        return not any(worker.running for worker in self._workers.values())

    def remaining(self, now: float) -> float:
        """Engine seconds that what runs will still take."""
        return sum(worker.remaining(now) for worker in self._workers.values())

    def spread(self, lane: Lane) -> float:
        """The share of its time that a batch of this lane takes if it starts now where there is most room for it."""
        offering = (worker for worker in self._workers.values() if lane.like in worker.lanes)
        return min((worker.spread(lane.profile) for worker in offering), default=1.0)

    def _count(self) -> None:
        self.engines = max(sum(worker.engines for worker in self._workers.values()), 1)
