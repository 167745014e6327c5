"""Which lane a worker runs next, and which of its items make the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from service.core import batching
from service.core.batching import CloseReason
from service.core.fairness import CLASSES, FLOOR, Floors, Shares
from service.core.lanes import Lane, Lanes
from service.core.queue import Item, LaneKey
from service.core.workers import Worker

_MODEL_QUANTUM = 0.1
"""Engine seconds that one model may be ahead of another before its turn is the later one."""

_WEIGHT = 0.02
"""How much one batch counts in the classes' shares."""


class Turn(NamedTuple):
    """What goes next: a lane, and the class of the item that brought it its turn."""

    lane: Lane
    priority: int
    costs: Sequence[float]
    """For each class, the seconds of the batch that it would have had."""


class Turns:
    """Classes with their floors, then models, then clients, then deadlines."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._models = Shares(_MODEL_QUANTUM)
        self._floors = Floors()
        self._share = [0.0] * CLASSES
        """Each class's share of the engine time of late."""

    def left(self, priority: int) -> float:
        """The share of the engine time that classes above this one will leave to it, if they come as they did."""
        return 1.0 - min(sum(self._share[:priority]), 1.0 - FLOOR)

    def next(self, offered: frozenset[LaneKey]) -> Turn | None:
        """The next turn on a worker that offers these lanes."""
        firsts: list[tuple[tuple[int, int, float, int], Lane] | None] = [None] * CLASSES
        for group in self._lanes.groups.values():
            if not group.waiting:
                continue
            model = self._models.turn(group.model)
            for lane in group.lanes.values():
                if not lane.ready or lane.like not in offered:
                    continue
                for priority, place in _places(lane, model):
                    first = firsts[priority]
                    if first is None or place < first[0]:
                        firsts[priority] = (place, lane)
        costs = [_seconds(first[1]) if first else 0.0 for first in firsts]
        if not any(costs):
            return None
        priority = self._floors.pick(costs)
        chosen = firsts[priority]
        return Turn(chosen[1], priority, costs) if chosen else None

    def take(self, now: float, turn: Turn, served: Lane, worker: Worker) -> tuple[list[Item], list[Item], CloseReason]:
        """Take a batch to run on a worker as of lane `served`: its items, and those that can be on time no more.

        Idle engines share what waits. Places that stay free are given to items of the group's `auto` lanes that may
        be served at this level.
        """
        lane, priority = turn.lane, turn.priority
        cap, idle = served.cap, worker.engines - len(worker.running)
        spread = worker.spread(served.profile)
        sources = [lane, *_fellows(lane, served)]
        queued = sum(len(source.queue) for source in sources)
        room = batching.share(queued, idle, cap)
        items: list[Item] = []
        late: list[Item] = []
        due = float("inf")
        reason: CloseReason = "drained"
        classes = (priority, *(number for number in range(CLASSES) if number != priority))
        for source in sources:
            for number in classes:
                while len(items) < room and (head := source.queue.head(number)) is not None:
                    if now + served.profile.seconds(1) * spread > head.deadline:
                        source.queue.pop(number)
                        late.append(head.item)
                        continue
                    due = min(due, head.deadline)
                    if items and now + served.profile.seconds(len(items) + 1) * spread > due:
                        return items, late, "deadline"
                    source.queue.pop(number)
                    items.append(head.item)
        if len(items) >= cap:
            reason = "cap"
        elif len(items) + len(late) < queued:
            reason = "shared"
        return items, late, reason

    def took(self, turn: Turn, served: Lane, items: list[Item], seconds: float) -> None:
        """A batch was started: whoever takes part in it pays."""
        group = served.group
        units = served.each / group.offered[0].each
        clients = max(group.waiting.clients, 1)
        for item in items:
            group.shares.charge(item.client, units, clients)
        waiting = sum(1 for other in self._lanes.groups.values() if other.waiting)
        self._models.charge(group.model, seconds, waiting)
        self._floors.served(turn.priority, seconds, turn.costs)
        for number in range(CLASSES):
            self._share[number] += _WEIGHT * ((number == turn.priority) - self._share[number])


def _places(lane: Lane, model: int) -> list[tuple[int, tuple[int, int, float, int]]]:
    """For each class with something to run, where its first item stands among all: model, client, deadline, id."""
    retried = lane.retry_head()
    if retried is not None:
        return [(retried.priority, (-1, -1, retried.deadline, retried.id))]
    heads = [(priority, lane.queue.head(priority)) for priority in range(CLASSES)]
    return [(priority, (model, head.turn, head.deadline, head.item.id)) for priority, head in heads if head]


def _seconds(lane: Lane) -> float:
    served = lane.group.serving(lane)
    return served.profile.seconds(served.cap)


def _fellows(lane: Lane, served: Lane) -> list[Lane]:
    """The other `auto` lanes whose items may fill up a batch of `served`: those that would be served at this level
    anyway, and, where there is room, those that would be served at a lower one."""
    group = lane.group
    rank = group.rank.get(served.key.level)
    if rank is None:
        return []
    roomy = group.auto.roomy(group.work(rank))
    return [
        other
        for other in group.lanes.values()
        if other is not lane
        and other.floor is not None
        and other.queue
        and group.rank[other.floor] >= rank
        and (roomy or group.serving(other) is served)
    ]
