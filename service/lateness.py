"""Which processes are late by the pulse board, and were not merely kept waiting for a CPU.

On a machine with more to do than it has CPUs, a loop that works looks like one that hangs: neither writes its record.
The kernel tells them apart. It counts for how long a thread was ready to run and did not, in the second number of
/proc/PID/task/TID/schedstat; a thread that hangs sleeps, is stopped or spins, and waits for nothing. So the time that a
process was kept waiting is not held against it, up to a share: on any machine a loop that hangs is seen in the end.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from service.wire.pulse import Beat, Pulse
from service.wire.slots import Arena

PARDONED = 0.75
"""Most of the time since a record was written that is not held against its process."""
WATCHED = 0.25
"""From this part of its limit on it is known how long a process waits: looking costs a little."""
_NANOSECONDS = 1e9


class Thread(NamedTuple):
    """What the kernel says of one thread: seconds that it ran, and that it waited to. A wait that goes on counts once
    it is over; until then the thread is `ready` to run and nothing changes."""

    ran: float
    waited: float
    ready: bool


def threads(process: int) -> dict[int, Thread]:
    """The threads of a process by their numbers; none where the kernel does not tell, or the process is gone."""
    found: dict[int, Thread] = {}
    try:
        tasks = os.listdir(f"/proc/{process}/task")
    except OSError:
        return found
    for task in tasks:
        # A thread may end at any time.
        with contextlib.suppress(OSError, ValueError):
            ran, waited, _ = Path(f"/proc/{process}/task/{task}/schedstat").read_text().split()
            state = Path(f"/proc/{process}/task/{task}/stat").read_text().rpartition(")")[2].split()[0]
            found[int(task)] = Thread(int(ran) / _NANOSECONDS, int(waited) / _NANOSECONDS, state == "R")
    return found


class _Look:
    """How long the threads of a process have waited since it was first looked at. A library runs a batch on threads of
    its own, so that of the thread that waited longest counts."""

    def __init__(self, at: float, begin: dict[int, Thread], now: float) -> None:
        self.at = at
        """When the record was written that this is about."""
        self._begin = begin
        self._last = dict.fromkeys(begin, now)
        self._seen = begin

    def waited(self, seen: dict[int, Thread], now: float) -> float:
        """Seconds."""
        longest = 0.0
        for number, one in seen.items():
            begin, before = self._begin.get(number), self._seen.get(number)
            if before is None or one[:2] != before[:2]:
                self._last[number] = now
            going_on = now - self._last[number] if one.ready else 0.0
            longest = max(longest, one.waited - (begin.waited if begin else 0.0) + going_on)
        self._seen = seen
        return longest


class Judgement(NamedTuple):
    """Of one process: it hangs, or it is unlikely that it works."""

    hung: bool
    late: bool


class Lateness:
    """Judges processes by the records that their loops write."""

    def __init__(self, board: Arena, look: Callable[[int], dict[int, Thread]] = threads) -> None:
        self._board = board
        self._look = look
        self._looks: dict[int, _Look] = {}
        """By record: of those that have not been written for a while."""

    def judge(self, process: int, records: range, now: float) -> Judgement:
        """Judge a process by its records on the board."""
        hung = late = False
        for record in records:
            beat = Pulse(self._board, record).read()
            heard = now - self._kept_waiting(process, record, beat, now)
            hung |= beat.overdue(heard)
            late |= beat.late(heard)
        return Judgement(hung, late)

    def _kept_waiting(self, process: int, record: int, beat: Beat, now: float) -> float:
        """Seconds since the record was written that are not held against the process."""
        if beat.at <= 0 or now < beat.at + WATCHED * beat.limit:
            self._looks.pop(record, None)
            return 0.0
        seen = self._look(process)
        known = self._looks.get(record)
        if known is None or known.at != beat.at:
            self._looks[record] = _Look(beat.at, seen, now)
            return 0.0
        return min(known.waited(seen, now), PARDONED * (now - beat.at))
