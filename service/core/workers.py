"""The workers, and what runs on their engines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from service.core.lanes import Lane
from service.core.queue import Item, LaneKey


class Batch(msgspec.Struct):
    """Items under way together, as of one lane."""

    lane: Lane
    items: list[Item]
    until: float
    """When it should be finished."""
    alone: bool = False
    """It may be what killed a worker: nothing else runs there beside it, so that nothing else is blamed."""


class Worker:
    """One worker: how many engines it has, which lanes it offers, and its batches by number. A device wants `ahead`
    batches besides those that run, so that it need not wait for the next."""

    def __init__(self, engines: int, lanes: Iterable[LaneKey], ahead: int = 0) -> None:
        self.engines = engines
        self.ahead = ahead
        self.lanes = frozenset(lanes)
        self.running: dict[int, Batch] = {}


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

    def end(self, index: int, number: int) -> Batch | None:
        """A batch has ended; None when it was lost with a former worker."""
        worker = self._workers.get(index)
        return worker.running.pop(number, None) if worker else None

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
        seconds = 0.0
        for worker in self._workers.values():
            for batch in worker.running.values():
                if batch.until > now:
                    seconds += batch.until - now
        return seconds

    def _count(self) -> None:
        self.engines = max(sum(worker.engines for worker in self._workers.values()), 1)
