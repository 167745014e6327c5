"""The three comparisons: saturation, equal load, overload. Each takes its contenders in turns, round after round."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from loadtest.peers.figures import of, rate
from loadtest.peers.session import Contender, Session, say

CONNECTIONS = (1, 16, 64)
CAPACITY_CONNECTIONS, CAPACITY_SHARE = 16, 0.5
SHARE_OF_SLOWEST = 0.7
SERVICE_TIMES = 10
QUEUED_SHARE = 0.5
FACTORS = (0.7, 1.0, 2.0, 5.0)


def turns(session: Session) -> Iterator[tuple[int, Contender]]:
    """Every round takes all contenders, each time beginning with another one."""
    for round_ in range(session.rounds):
        first = round_ % len(session.entries)
        for entry in session.entries[first:] + session.entries[:first]:
            yield round_, entry


def saturation(session: Session) -> None:
    """Closed loop at 1, 16 and 64 connections."""
    session.bare()
    for round_, entry in turns(session):
        with session.started(entry) as running:
            if running is None:
                continue
            for connections in CONNECTIONS:
                load = session.closed(connections, session.seconds)
                session.point(running, entry, "saturation", connections, round_, load)


def capacities(session: Session) -> None:
    """What each answers in a closed loop that keeps it busy, at the level `full`."""
    session.bare()
    seconds = max(2.0, CAPACITY_SHARE * session.seconds)
    for round_, entry in turns(session):
        if entry.name.endswith(("-auto", "-default")):
            continue
        with session.started(entry) as running:
            if running is not None:
                load = session.closed(CAPACITY_CONNECTIONS, seconds)
                session.point(running, entry, "capacity", CAPACITY_CONNECTIONS, round_, load)
    for entry in session.entries:
        found = of(session.record, "capacity", entry.server.name, None, rate)
        if not math.isnan(found) and found > 0:
            session.record["capacities"][entry.name] = found


def equal(session: Session) -> None:
    """Poisson arrivals at 70 % of what the slowest rival can do, the same for all."""
    capacities(session)
    known = [value for name, value in session.record["capacities"].items() if not name.startswith("squint")]
    if not known:
        say("no rival's capacity is known: nothing to compare")
        return
    offered = SHARE_OF_SLOWEST * min(known)
    say(f"all at {offered:.2f} requests/s")
    for round_, entry in turns(session):
        with session.started(entry) as running:
            if running is not None:
                session.point(running, entry, "equal", SHARE_OF_SLOWEST, round_, session.opened(offered, round_))


def overload(deadline_ms: float) -> Callable[[Session], None]:
    """Poisson arrivals at multiples of each server's own capacity; `deadline_ms` 0 is ten service times."""

    def run(session: Session) -> None:
        service = 1000 * session.bare()["service_seconds"]
        deadline = deadline_ms or SERVICE_TIMES * service
        session.record |= {"service_ms": service, "deadline_ms": deadline}
        say(f"deadline {deadline:.0f} ms")
        capacities(session)
        for factor in FACTORS:
            for round_, entry in turns(session):
                _overloaded(session, entry, factor, round_, deadline)

    return run


def _overloaded(session: Session, entry: Contender, factor: float, round_: int, deadline: float) -> None:
    capacity = session.record["capacities"].get(entry.name)
    if capacity is None:
        return
    limits = {}
    if entry.limits and not entry.server.ours:
        workers = entry.server.planned(session.kind, 0).workers
        limits = {"deadline_ms": round(deadline), "queue": queue_limit(capacity, deadline, workers)}
    query = f"timeout_ms={round(deadline)}" if entry.server.ours and entry.limits else ""
    with session.started(entry, **limits) as running:
        if running is not None:
            load = session.opened(factor * capacity, round_, deadline / 1000)
            session.point(running, entry, "overload", factor, round_, load, query)


def queue_limit(capacity: float, deadline_ms: float, workers: int) -> int:
    """The most requests a server is to hold: what it answers in half the deadline, so that the last of them has the
    other half to run; and enough to keep its workers busy."""
    return max(2 * workers, math.floor(capacity * deadline_ms / 1000 * QUEUED_SHARE))
