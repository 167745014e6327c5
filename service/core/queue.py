"""Items and the order in which they are taken: by class, then by the client's turn, then earliest deadline first.

An item that is answered early (cancelled, expired) is taken out of the count at once and out of the heap lazily.
"""

from __future__ import annotations

import heapq
from enum import IntEnum
from typing import NamedTuple

import msgspec

from service.core.fairness import CLASSES, Shares

_STALE = 64
"""Removed entries that a queue may hold before it is built anew."""

PRIORITIES = {"high": 0, "normal": 1, "low": 2}


class LaneKey(msgspec.Struct, frozen=True, gc=False):
    """Items of one lane may share a batch."""

    model: str
    level: str


class State(IntEnum):
    """Where an item is; it only moves forward, but for a retry."""

    ADMITTED = 0
    WAITING = 1
    DECODING = 2
    QUEUED = 3
    RUNNING = 4
    ANSWERED = 5


class Item(msgspec.Struct, eq=False):
    """One image under way. Times are seconds of the injected clock."""

    id: int
    lane: LaneKey
    deadline: float
    priority: int
    admitted_at: float
    client: str = ""
    state: State = State.ADMITTED
    strikes: int = 0
    """Processes that died while they held this item."""
    heavy: bool = False
    """Its decoding takes so long that others are not to wait behind it."""
    submitted_at: float = 0.0
    decode_at: float = 0.0
    queued_at: float = 0.0
    started_at: float = 0.0
    counted: bool = False
    """It is counted among those that wait for a worker."""
    ticket: int = 0
    """The live queue entry of this item, 0 for none."""


class Head(NamedTuple):
    """The item that a queue gives next, and what it is compared by."""

    turn: int
    deadline: float
    item: Item


class _Flow:
    """One client's items of one class, and its place among the others when it was last looked at."""

    __slots__ = ("items", "place")

    def __init__(self) -> None:
        self.items: list[tuple[float, int, Item]] = []
        self.place: tuple[int, float, str] | None = None


class _Class:
    """One priority class: a heap of items for each client, and a heap of places (turn, deadline, client)."""

    __slots__ = ("flows", "order")

    def __init__(self) -> None:
        self.flows: dict[str, _Flow] = {}
        self.order: list[tuple[int, float, str]] = []


class FairQueue:
    """A queue with lazy removal; `shares` holds the clients' turns, which other queues may share."""

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        self._classes = [_Class() for _ in range(CLASSES)]
        self._tickets = 0
        self._live = 0
        self._entries = 0

    def __len__(self) -> int:
        return self._live

    def push(self, item: Item) -> None:
        """Add an item that is in no queue."""
        self._tickets += 1
        item.ticket = self._tickets
        self._live += 1
        if item.client not in self._classes[item.priority].flows:
            self._shares.join(item.client)
        self._insert(item)

    def _insert(self, item: Item) -> None:
        of = self._classes[item.priority]
        flow = of.flows.get(item.client)
        if flow is None:
            flow = of.flows[item.client] = _Flow()
        entry = (item.deadline, item.ticket, item)
        heapq.heappush(flow.items, entry)
        self._entries += 1
        if flow.items[0] is entry:
            flow.place = (self._shares.turn(item.client), item.deadline, item.client)
            heapq.heappush(of.order, flow.place)
            if len(of.order) > 2 * len(of.flows) + _STALE:
                of.order = [flow.place for flow in of.flows.values() if flow.place is not None]
                heapq.heapify(of.order)

    def remove(self, item: Item) -> None:
        """Take out an item wherever it stands; nothing happens when it is not queued."""
        if item.ticket:
            item.ticket = 0
            self._live -= 1
            if self._entries > 2 * self._live + _STALE:
                self._rebuild()

    def head(self, priority: int) -> Head | None:
        """What `pop` would give."""
        of = self._classes[priority]
        order, flows = of.order, of.flows
        while order:
            place = order[0]
            client = place[2]
            flow = flows.get(client)
            # A client's place only falls behind, but for a new and more urgent item, which brings a place of its own.
            if flow is None or flow.place is not place:
                heapq.heappop(order)
                continue
            items = flow.items
            while items and items[0][2].ticket != items[0][1]:
                heapq.heappop(items)
                self._entries -= 1
            if not items:
                del flows[client]
                heapq.heappop(order)
                continue
            turn, deadline = self._shares.turn(client), items[0][0]
            if turn == place[0] and deadline == place[1]:
                return Head(turn, deadline, items[0][2])
            flow.place = (turn, deadline, client)
            heapq.heapreplace(order, flow.place)
        return None

    def pop(self, priority: int) -> Item | None:
        """Take the first item of a class."""
        head = self.head(priority)
        if head is None:
            return None
        item, of = head.item, self._classes[priority]
        items = of.flows[item.client].items
        heapq.heappop(items)
        self._entries -= 1
        if not items:
            del of.flows[item.client]
            heapq.heappop(of.order)
        item.ticket = 0
        self._live -= 1
        return item

    def _rebuild(self) -> None:
        live = [
            item
            for of in self._classes
            for flow in of.flows.values()
            for _, ticket, item in flow.items
            if item.ticket == ticket
        ]
        self._classes = [_Class() for _ in range(CLASSES)]
        self._entries = 0
        for item in live:
            self._insert(item)
