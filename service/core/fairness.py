"""Who goes next where several share: fair turns between clients or models, and floors between priority classes.

Turns follow start-time fair queueing (Goyal, Vin and Cheng, 1996): each flow has a tag that grows with what it was
given, and the lowest tag goes first. Tags are compared in steps of a quantum, so that within a step the earliest
deadline decides: fairness binds whoever takes much, and costs the others nothing of their urgency.
"""

from __future__ import annotations

from collections.abc import Sequence

CLASSES = 3
"""Priority classes: high, normal, low."""

QUANTUM = 4.0
"""How many ordinary items one flow may be ahead of another before its turn is the later one."""

FLOOR = 0.1
"""The share of the time that a waiting class gets however much waits in the classes above it."""

_SWEEP_ABOVE = 1024
_PACE_WEIGHT = 0.1


class Shares:
    """The turns of flows (clients, or models) that share one resource."""

    def __init__(self, quantum: float = QUANTUM) -> None:
        self._quantum = quantum
        self._virtual = 0.0
        self._tags: dict[str, float] = {}
        self._sweep_above = _SWEEP_ABOVE

    def join(self, flow: str) -> None:
        """`flow` wants something again: it has no claim to what it did not want before, and no debt but a quantum, for
        one that had all it wanted took nothing from others."""
        tag = max(self._tags.get(flow, 0.0), self._virtual)
        self._tags[flow] = min(tag, self._virtual + self._quantum)

    def turn(self, flow: str) -> int:
        """Its place: a lower turn goes first, within a turn the earlier deadline. It does not fall while it waits."""
        return int(self._tags.get(flow, self._virtual) / self._quantum)

    def charge(self, flow: str, units: float, sharers: int) -> None:
        """`flow` was given `units` while `sharers` flows, itself among them, wanted some."""
        self._tags[flow] = self._tags.get(flow, self._virtual) + units
        self._virtual += units / max(sharers, 1)
        if len(self._tags) > self._sweep_above:
            # A flow whose tag the virtual time has passed is as good as a new one.
            self._tags = {name: tag for name, tag in self._tags.items() if tag > self._virtual}
            self._sweep_above = max(_SWEEP_ABOVE, 2 * len(self._tags))


class Floors:
    """Higher classes first, but each waiting class gets its floor."""

    def __init__(self) -> None:
        self._owed = [0.0] * CLASSES

    def pick(self, costs: Sequence[float]) -> int:
        """The class to serve; `costs` holds for each class the seconds its next batch takes, 0 where nothing waits
        (at least one does)."""
        first = next(number for number, cost in enumerate(costs) if cost)
        for number in range(CLASSES - 1, first, -1):
            if costs[number] and self._owed[number] >= costs[number]:
                return number
        return first

    def served(self, chosen: int, seconds: float, costs: Sequence[float]) -> None:
        """A batch of `seconds` of class `chosen` was started while `costs` waited."""
        self._owed[chosen] = max(0.0, self._owed[chosen] - seconds)
        for number in range(chosen + 1, CLASSES):
            self._owed[number] = self._owed[number] + FLOOR * seconds if costs[number] else 0.0


class _Flow:
    """What waits of one client, and how fast it goes on."""

    __slots__ = ("items", "pace", "since")

    def __init__(self) -> None:
        self.items = 0
        self.since = 0.0
        self.pace = 0.0


class Waiting:
    """How many items wait, by class and client, so that what stands before a new one is counted, not searched."""

    def __init__(self) -> None:
        self._flows: list[dict[str, _Flow]] = [{} for _ in range(CLASSES)]
        self._at_least: list[list[int]] = [[] for _ in range(CLASSES)]
        """[class][k]: how many clients have more than k items."""
        self._totals = [0] * CLASSES
        self._clients = 0

    def __len__(self) -> int:
        return sum(self._totals)

    @property
    def clients(self) -> int:
        """Clients with something waiting; who waits in two classes counts twice."""
        return self._clients

    def enter(self, now: float, priority: int, client: str) -> None:
        """One more waits."""
        flow = self._flows[priority].get(client)
        if flow is None:
            flow = self._flows[priority][client] = _Flow()
        if not flow.items:
            flow.since = now
            self._clients += 1
        counts = self._at_least[priority]
        if flow.items == len(counts):
            counts.append(0)
        counts[flow.items] += 1
        flow.items += 1
        self._totals[priority] += 1

    def leave(self, priority: int, client: str) -> None:
        """One that entered waits no more."""
        flow = self._flows[priority][client]
        flow.items -= 1
        if not flow.items:
            self._clients -= 1
            self._sweep(self._flows[priority])
        counts = self._at_least[priority]
        counts[flow.items] -= 1
        if not counts[-1]:
            counts.pop()
        self._totals[priority] -= 1

    def _sweep(self, flows: dict[str, _Flow]) -> None:
        """The pace of a client is kept when nothing of it waits, but not that of everyone who ever came."""
        if len(flows) > 2 * self._clients + _SWEEP_ABOVE:
            for client in [client for client, flow in flows.items() if not flow.items]:
                del flows[client]

    def took(self, now: float, priority: int, client: str, items: int) -> None:
        """So many items of a client were taken, and some more of it may wait."""
        flow = self._flows[priority].get(client)
        if flow is not None:
            gap = (now - flow.since) / items
            flow.pace += (_PACE_WEIGHT if flow.pace else 1.0) * (gap - flow.pace)
            flow.since = now

    def resume(self, now: float) -> None:
        """A worker came: the time without one says nothing of how turns go."""
        for flows in self._flows:
            for flow in flows.values():
                flow.since = now

    def beside(self, priority: int, client: str) -> int:
        """Items of the same class that go before a new one of this client: its own, and of every other client as many
        as its own with the new one."""
        flow = self._flows[priority].get(client)
        return sum(self._at_least[priority][: flow.items + 1 if flow else 1])

    def ahead(self, priority: int, client: str) -> int:
        """Items that go before a new one of this client and class: those of higher classes too."""
        return sum(self._totals[:priority]) + self.beside(priority, client)

    def patience(self, priority: int, client: str) -> float:
        """Seconds until a new item's turn, at the pace at which this client's items were taken of late: others that
        come later and are owed more go first, which no count of what waits now can tell."""
        flow = self._flows[priority].get(client)
        return flow.pace * flow.items if flow else 0.0
