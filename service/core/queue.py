"""Items and the order in which they are taken: earliest deadline first within a priority.

An item that is answered early (cancelled, expired) is taken out of the count at once and out of the heap lazily.
"""

from __future__ import annotations

import heapq
from enum import IntEnum

import msgspec

_STALE = 64
"""Removed entries that a heap may hold before it is built anew."""

PRIORITIES = {"high": 0, "normal": 1, "low": 2}


class LaneKey(msgspec.Struct, frozen=True, gc=False):
    """Items of one lane may share a batch."""

    model: str
    level: str


class State(IntEnum):
    """Where an item is; it only moves forward, but for a retry."""

    WAITING = 0
    DECODING = 1
    QUEUED = 2
    RUNNING = 3
    ANSWERED = 4


class Item(msgspec.Struct, eq=False):
    """One image under way. Times are seconds of the injected clock."""

    id: int
    lane: LaneKey
    deadline: float
    priority: int
    admitted_at: float
    state: State = State.WAITING
    strikes: int = 0
    """Processes that died while they held this item."""
    queued_at: float = 0.0
    started_at: float = 0.0
    ticket: int = 0
    """The live heap entry of this item, 0 for none."""


class DeadlineQueue:
    """A heap of items with lazy removal."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, float, int, Item]] = []
        self._tickets = 0
        self._live = 0

    def __len__(self) -> int:
        return self._live

    def push(self, item: Item) -> None:
        """Add an item that is in no queue."""
        self._tickets += 1
        item.ticket = self._tickets
        self._live += 1
        heapq.heappush(self._heap, (item.priority, item.deadline, item.ticket, item))

    def remove(self, item: Item) -> None:
        """Take out an item wherever it stands; nothing happens when it is not queued."""
        if item.ticket:
            item.ticket = 0
            self._live -= 1
            if len(self._heap) > 2 * self._live + _STALE:
                self._heap = [entry for entry in self._heap if entry[3].ticket == entry[2]]
                heapq.heapify(self._heap)

    def head(self) -> Item | None:
        """The item that would be popped."""
        heap = self._heap
        while heap:
            _, _, ticket, item = heap[0]
            if item.ticket == ticket:
                return item
            heapq.heappop(heap)
        return None

    def pop(self) -> Item | None:
        """Take the most urgent item."""
        item = self.head()
        if item is not None:
            heapq.heappop(self._heap)
            item.ticket = 0
            self._live -= 1
        return item
