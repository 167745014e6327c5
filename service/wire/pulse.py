"""The pulse board: one record of shared memory per work loop, by which the supervisor sees that it still works.

A loop writes its own record, from the loop itself and never from a helper thread: while it waits (at least every REST
seconds), and before it starts something, with the time that this may take. The supervisor reads; a
record that is late means a hung or stopped process, which it then kills. No message is needed, so a process that
cannot run cannot seem alive.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from service.wire.slots import Arena

REST = 0.25
"""Seconds within which a waiting loop writes again."""

REST_LIMIT = 12 * REST
"""Seconds after which a waiting loop that has not written counts as hung, on a machine whose CPUs are all busy too."""

STUCK_AFTER = 10.0
"""Seconds without a turn of an event loop after which its process counts as hung."""

_RECORD = struct.Struct("<dd")
RECORD_BYTES = _RECORD.size


class Beat(NamedTuple):
    """When the loop last wrote (monotonic seconds) and the seconds it may take until it writes again."""

    at: float
    limit: float

    def overdue(self, now: float) -> bool:
        """True when the loop should have written by `now`. A record never written is not overdue."""
        return self.at > 0 and now > self.at + self.limit

    def late(self, now: float) -> bool:
        """True when it is already unlikely that the loop works: half of its time has passed."""
        return self.at > 0 and now > self.at + self.limit / 2


class Pulse:
    """One record of the board."""

    def __init__(self, board: Arena, record: int) -> None:
        self._view = board.view(record)

    def beat(self, now: float, limit: float) -> None:
        """Write: alive at `now`, and again within `limit` seconds."""
        _RECORD.pack_into(self._view, 0, now, limit)

    def read(self) -> Beat:
        """The record as it stands."""
        return Beat(*_RECORD.unpack_from(self._view, 0))

    def clear(self) -> None:
        """Forget: the loop has not started."""
        _RECORD.pack_into(self._view, 0, 0.0, 0.0)
