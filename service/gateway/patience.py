"""How long a client is waited for: for a head, for a body, for its next request, and until it has taken its answer."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Literal

Phase = Literal["", "head", "body", "idle"]

GRACE_SECONDS = 5.0
"""Before this a body may come as slowly as it likes: connections begin slowly."""
_LOOK_SECONDS = 1.0
_AT_ONCE = struct.pack("ii", 1, 0)
TAKE_SECONDS = 5.0
"""How often it is looked at how much of an answer was taken."""


class Patience:
    """What one connection's client is waited for.

    There is one timer, which is only moved when it rings too early: most requests need none.
    """

    __slots__ = ("_alarm", "_alarm_at", "_begun", "_due", "_end", "_loop", "_over", "_rate", "phase", "received")

    def __init__(self, loop: asyncio.AbstractEventLoop, rate: float, over: Callable[[Phase, bool], None]) -> None:
        """`rate` is the least bytes a second of a body. `over` is told what did not come, and, of a body, whether that
        was because it came too slowly."""
        self._loop = loop
        self._rate = rate
        self._over = over
        self.phase: Phase = ""
        self.received = 0
        """Bytes of the body so far."""
        self._begun = self._due = self._end = 0.0
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0.0

    def expect(self, phase: Phase, seconds: float) -> None:
        """This is to come within so many seconds. Nothing happens before `arm`."""
        self.phase = phase
        self._begun = self._loop.time()
        self._due = self._end = self._begun + seconds
        if phase == "body" and seconds > GRACE_SECONDS:
            self._due = self._begun + GRACE_SECONDS

    def came(self) -> None:
        """What was waited for is here."""
        self.phase = ""

    def arm(self) -> None:
        """Have the alarm ring no later than what is waited for is due, if anything is."""
        if not self.phase:
            return
        if self._alarm is not None:
            if self._alarm_at <= self._due:
                return
            self._alarm.cancel()
        self._alarm_at = self._due
        self._alarm = self._loop.call_later(max(0.0, self._due - self._loop.time()), self._ring)

    def stop(self) -> None:
        """Wait for nothing any more."""
        self.phase = ""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _ring(self) -> None:
        self._alarm = None
        if not self.phase:
            return
        now = self._loop.time()
        if now < self._due:
            self.arm()
            return
        phase, slow = self.phase, now < self._end
        if slow and self.received >= self._rate * (now - self._begun):
            self._due = min(self._end, now + _LOOK_SECONDS)
            self.arm()
            return
        self.phase = ""
        self._over(phase, slow)


class Taking:
    """Whether the client takes what is sent to it. To be begun when something is left to send."""

    __slots__ = ("_alarm", "_left", "_loop", "_rate", "_transport")

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, rate: float) -> None:
        self._loop = loop
        self._transport = transport
        self._rate = rate
        self._left = 0
        self._alarm: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Look after a while how much is left; the connection of a client that takes next to nothing is cut off."""
        if self._alarm is None:
            self._left = self._transport.get_write_buffer_size()
            if self._left:
                self._alarm = self._loop.call_later(TAKE_SECONDS, self._look)

    def stop(self) -> None:
        """All is taken, or the connection is gone."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _look(self) -> None:
        self._alarm = None
        left = self._transport.get_write_buffer_size()
        if left and self._left - left < max(1.0, self._rate * TAKE_SECONDS):
            # Else the system would keep the connection, and what is left to send, for whoever does not take it.
            sock = self._transport.get_extra_info("socket")
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            self._transport.abort()
        else:
            self.begin()
