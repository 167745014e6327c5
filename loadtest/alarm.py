"""Wakes an event loop at an exact time; the loop's own timers round to whole milliseconds."""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Callable

CLOCK_MONOTONIC = 1
TFD_NONBLOCK, TFD_CLOEXEC, TFD_TIMER_ABSTIME = 0o4000, 0o2000000, 1
NANOSECONDS = 1_000_000_000


class _Time(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


class _Setting(ctypes.Structure):
    _fields_ = [("interval", _Time), ("value", _Time)]


class Alarm:
    """One pending time at most; `ring` is called in the loop once it has come. Linux only."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._file = self._libc.timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
        if self._file < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._pending = False
        self._setting = _Setting()
        self._at = ctypes.byref(self._setting)
        self._loop = loop
        self._ring = ring
        loop.add_reader(self._file, self._rang)

    def set(self, when: float) -> None:
        """Ring at `when`, on the clock of time.monotonic(); at once if that is past."""
        self._pending = True
        self._settime(*divmod(max(1, int(when * NANOSECONDS)), NANOSECONDS))

    def _settime(self, seconds: int, nanoseconds: int) -> None:
        self._setting.value.seconds, self._setting.value.nanoseconds = seconds, nanoseconds
        if self._libc.timerfd_settime(self._file, TFD_TIMER_ABSTIME, self._at, None) != 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def _rang(self) -> None:
        """Setting a time, or none, also takes back the ringing, so that it need not be read."""
        self._pending = False
        self._ring()
        if not self._pending:
            self._settime(0, 0)

    def close(self) -> None:
        """Ring no more."""
        self._loop.remove_reader(self._file)
        os.close(self._file)


def now() -> float:
    """The clock that an alarm goes by."""
    return time.monotonic()
