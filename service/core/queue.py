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


class _Class:
    """One priority class: a heap of items for each client, and a heap of clients by (turn, deadline)."""

    def __init__(self) -> None:
        self.flows: dict[str, list[tuple[float, int, Item]]] = {}
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
        flow = of.flows.setdefault(item.client, [])
        entry = (item.deadline, item.ticket, item)
        if not flow or entry < flow[0]:
            heapq.heappush(of.order, (self._shares.turn(item.client), item.deadline, item.client))
        heapq.heappush(flow, entry)
        self._entries += 1
        if len(of.order) > 2 * len(of.flows) + _STALE:
            of.order = [(self._shares.turn(client), flow[0][0], client) for client, flow in of.flows.items() if flow]
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
            turn, deadline, client = order[0]
            flow = flows.get(client)
            while flow and flow[0][2].ticket != flow[0][1]:
                heapq.heappop(flow)
                self._entries -= 1
            if not flow:
                flows.pop(client, None)
                heapq.heappop(order)
                continue
            # A client's place only falls behind, but for a new and more urgent item, which has its own entry: the
            # first entry that is true is the first of all.
            true = (self._shares.turn(client), flow[0][0], client)
            if true == (turn, deadline, client):
                return Head(turn, deadline, flow[0][2])
            heapq.heapreplace(order, true)
        return None

    def pop(self, priority: int) -> Item | None:
        """Take the first item of a class."""
        head = self.head(priority)
        if head is None:
            return None
        item, of = head.item, self._classes[priority]
        flow = of.flows[item.client]
        heapq.heappop(flow)
        self._entries -= 1
        if not flow:
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
            for _, ticket, item in flow
            if item.ticket == ticket
        ]
        self._classes = [_Class() for _ in range(CLASSES)]
        self._entries = 0
        for item in live:
            self._insert(item)
