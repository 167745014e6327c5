"""Sends a plan: every request at its time, on a connection that is free, whatever became of those before."""

from __future__ import annotations

import asyncio
import contextlib
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from loadtest import machine
from loadtest.alarm import Alarm, now
from loadtest.connection import Connection
from loadtest.plan import Plan, Target
from loadtest.samples import ERRORS, UNFINISHED, Samples

LEAD_SECONDS = 0.1
"""From the call to the first possible send time, so that the first requests are not late by our own preparation."""
SWEEP_SECONDS = 0.1
TURN = 32
"""Requests written in one turn of the loop when the sender is behind; answers are read between turns."""
IDLE_SECONDS = 2.0
"""A connection idle for longer is not used again: the server may be closing it at this moment."""
INTERRUPT_SECONDS = 2.0
"""After an interruption, how long answers under way are waited for."""
PAUSE_SECONDS = 0.02
"""After an error, before a connection is opened anew."""
NAN = float("nan")
NUMBER = {name: number for number, name in enumerate(ERRORS)}


@dataclass(frozen=True)
class Progress:
    """Counts so far, warm-up included."""

    seconds: float
    sent: int
    done: int
    on_time: int
    refused: int
    errors: int
    behind: float
    """Seconds by which the sender was late when it last looked."""


Report = Callable[[Progress], None]


async def send(
    plan: Plan, target: Target, progress: Report | None = None, stop: asyncio.Event | None = None
) -> Samples:
    """Send all of a plan and wait for every answer; set `stop` to end early with what was measured so far.

    Never raises for what a server does: a request that gets no answer is an error in its row. `progress` is called
    about twice a second.
    """
    sender = Sender(plan, target, asyncio.get_running_loop())
    return await sender.run(progress, stop or asyncio.Event())


class Sender:
    """One run. The methods that are not `run` are called by connections."""

    def __init__(self, plan: Plan, target: Target, loop: asyncio.AbstractEventLoop) -> None:
        self._plan, self._target, self._loop = plan, target, loop
        self._times: list[float] = plan.times.tolist()
        self._choice: list[int] = plan.choice.tolist()
        self._context = target.context()
        size = len(self._times)
        self._intended = array("d", self._times)
        self._sent = array("d", [NAN]) * size
        self._done = array("d", [NAN]) * size
        self._status = array("h", bytes(2 * size))
        self._error = array("b", bytes(size))
        self._level = array("h", [-1]) * size
        self._retry_after = array("f", [NAN]) * size
        self._levels: dict[bytes, int] = {}
        self._texts: dict[int, str] = {}
        self._next = 0
        self._finished = 0
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._waiting: deque[int] = deque()
        self._under_way: dict[int, Connection] = {}
        self._opened = self._most_open = 0
        self._on_time = self._refused = self._errors = 0
        self._behind = 0.0
        self._begin = 0.0
        self._sending = True
        self._over = asyncio.Event()

    # --- the run ---------------------------------------------------------------------------------------------------

    async def run(self, progress: Report | None, stop: asyncio.Event) -> Samples:
        """Until everything is answered, failed, or `stop` is set."""
        clocks = machine.read()
        self._begin = now() + LEAD_SECONDS
        alarm = Alarm(self._loop, lambda: self._ring(alarm))
        watcher = self._loop.create_task(self._watch(progress))
        stopping = self._loop.create_task(stop.wait())
        ending = self._loop.create_task(self._over.wait())
        try:
            await self._start(alarm)
            await asyncio.wait({stopping, ending}, return_when=asyncio.FIRST_COMPLETED)
            interrupted = not self._over.is_set()
            length = min(self._clock(), self._plan.seconds) if interrupted else self._plan.seconds
            if interrupted:
                await self._interrupt(ending)
        finally:
            alarm.close()
            for task in (watcher, stopping, ending, *self._opening):
                task.cancel()
            for connection in list(self._open):
                connection.number = -1
                connection.abort()
        await asyncio.gather(watcher, stopping, ending, *self._opening, return_exceptions=True)
        await asyncio.sleep(0)  # aborted connections leave the loop in its next turn
        samples = self._samples(length, interrupted)
        samples.usage = machine.between(clocks, machine.read())
        return samples

    async def _start(self, alarm: Alarm) -> None:
        if not self._plan.closed:
            if self._times:
                alarm.set(self._begin + self._times[0])
            else:
                self._loop.call_at(self._begin + self._plan.seconds, self._over.set)
            return
        for _ in range(self._plan.closed):
            self._loop.call_at(self._begin, self._another)
        self._loop.call_at(self._begin + self._plan.seconds, self._close)

    async def _interrupt(self, ending: asyncio.Task[bool]) -> None:
        """Send no more; wait a little for what is under way."""
        self._sending = False
        self._waiting.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(ending), INTERRUPT_SECONDS if self._under_way else 0)

    async def _watch(self, progress: Report | None) -> None:
        """Time out what takes too long; report."""
        turn = 0
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self._sweep(self._clock() - self._plan.timeout)
            turn += 1
            if progress is not None and turn % 5 == 0:
                counts = (self._next, self._finished, self._on_time, self._refused, self._errors)
                progress(Progress(self._clock(), *counts, self._behind))

    def _sweep(self, before: float) -> None:
        """Both are in the order of time, so the oldest is first."""
        while self._under_way:
            number, connection = next(iter(self._under_way.items()))
            if self._sent[number] > before:
                break
            connection.fail("timeout")
        while self._waiting and self._intended[self._waiting[0]] < before:
            self.failed(self._waiting.popleft(), "no connection")

    def _clock(self) -> float:
        return now() - self._begin

    # --- open loop -------------------------------------------------------------------------------------------------

    def _ring(self, alarm: Alarm) -> None:
        """Send what is due and set the alarm for the next."""
        if not self._sending:
            return
        clock, times, at, end = self._clock(), self._times, self._next, len(self._times)
        self._behind = clock - times[at] if at < end else 0.0
        for _ in range(TURN):
            if at == end or times[at] > clock:
                break
            self._dispatch(at)
            at += 1
        self._next = at
        if at < end:
            alarm.set(self._begin + times[at])

    def _dispatch(self, number: int) -> None:
        """On a free connection, or on the next one that is free; a new one is opened while that is allowed."""
        connection = self._free()
        if connection is not None:
            self._write(connection, number)
            return
        self._waiting.append(number)
        if len(self._open) + len(self._opening) < self._plan.connections:
            self._connect()

    def _free(self) -> Connection | None:
        """The one used last, so that as few as possible are kept busy."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                if now() - connection.idle_since < IDLE_SECONDS:
                    return connection
                connection.abort()
        return None

    def _write(self, connection: Connection, number: int) -> None:
        self._sent[number] = self._clock()
        self._under_way[number] = connection
        connection.start(number, self._target.requests[self._choice[number % len(self._choice)]])

    # --- closed loop -----------------------------------------------------------------------------------------------

    def _another(self, connection: Connection | None = None) -> None:
        """One more request at once: its intended time is now."""
        if not self._sending:
            return
        number = self._next
        self._next += 1
        self._intended.append(self._clock())
        for column, value in ((self._sent, NAN), (self._done, NAN), (self._retry_after, NAN), (self._level, -1)):
            column.append(value)  # type: ignore[arg-type]
        self._status.append(0)
        self._error.append(0)
        if connection is not None:
            self._write(connection, number)
        else:
            self._waiting.append(number)
            self._connect()

    def _close(self) -> None:
        """The time of a closed loop is over; what is under way is waited for."""
        self._sending = False
        self._check_over()

    # --- connections -----------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        task = self._loop.create_task(self._connected())
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _connected(self) -> None:
        connection = Connection(self)
        try:
            async with asyncio.timeout(self._plan.timeout):
                await self._loop.create_connection(
                    lambda: connection,
                    self._target.host,
                    self._target.port,
                    ssl=self._context,
                    local_addr=(self._plan.source, 0) if self._plan.source else None,
                )
        except (OSError, TimeoutError):
            if self._waiting:
                self.failed(self._waiting.popleft(), "connect")
            self._loop.call_later(PAUSE_SECONDS, self._more)
            return
        self._opened += 1
        self._open.add(connection)
        self._most_open = max(self._most_open, len(self._open))
        self._use(connection)

    def _use(self, connection: Connection) -> None:
        """A connection has become free."""
        if self._waiting:
            self._write(connection, self._waiting.popleft())
        elif self._plan.closed and self._sending:
            self._another(connection)
        else:
            connection.idle_since = now()
            self._idle.append(connection)

    def answered(
        self,
        connection: Connection,
        number: int,
        status: int,
        level: bytes,
        retry_after: bytes,
        text: bytes,
        keep: bool,
    ) -> None:
        """A whole answer; `keep` is whether the connection stays open."""
        clock = self._clock()
        self._done[number] = clock
        self._status[number] = status
        del self._under_way[number]
        if level:
            self._level[number] = self._levels.setdefault(level, len(self._levels))
        if retry_after:
            with contextlib.suppress(ValueError):
                self._retry_after[number] = float(retry_after)
        if status == 200:
            deadline = self._plan.deadline
            self._on_time += deadline is None or clock - self._intended[number] <= deadline
        elif status in (429, 503):
            self._refused += 1
        else:
            self._errors += 1
        if status not in self._texts:
            self._texts[status] = text[:300].decode("utf-8", "replace")
        self._finished += 1
        if keep:
            self._use(connection)
        elif self._plan.closed:
            self._another()
        self._check_over()

    def failed(self, number: int, why: str) -> None:
        """A request that gets no answer."""
        self._done[number] = self._clock()
        self._error[number] = NUMBER[why]
        self._under_way.pop(number, None)
        self._finished += 1
        self._errors += 1
        if self._plan.closed:
            self._loop.call_later(PAUSE_SECONDS, self._another)
        self._check_over()

    def lost(self, connection: Connection) -> None:
        """A connection is closed; requests that wait for one get a new one."""
        self._open.discard(connection)
        self._more()

    def _more(self) -> None:
        """One more connection, if requests wait for one and it is allowed."""
        room = len(self._open) + len(self._opening) < max(self._plan.connections, self._plan.closed)
        if self._sending and room and len(self._opening) < len(self._waiting):
            self._connect()

    def _check_over(self) -> None:
        if self._finished == self._next and (
            not self._sending or (not self._plan.closed and self._next == len(self._times))
        ):
            self._loop.call_at(max(self._loop.time(), self._begin + self._plan.seconds), self._over.set)

    # --- the outcome -----------------------------------------------------------------------------------------------

    def _samples(self, seconds: float, interrupted: bool) -> Samples:
        """Rows of everything that was due before the end."""
        number = self._next
        status, error = np.array(self._status[:number], np.int16), np.array(self._error[:number], np.int8)
        error[(status == 0) & (error == 0)] = UNFINISHED
        kinds = np.array(self._target.kind_of, np.int16)
        chosen = np.array(self._choice, np.int32)
        return Samples(
            np.array(self._intended[:number]),
            np.array(self._sent[:number]),
            np.array(self._done[:number]),
            status,
            error,
            np.array(self._level[:number], np.int16),
            np.array(self._retry_after[:number], np.float32),
            kinds[chosen[np.arange(number) % max(1, len(chosen))]] if number else np.empty(0, np.int16),
            seconds,
            self._plan.warmup,
            self._plan.closed,
            list(self._target.kinds),
            [name.decode("latin-1") for name in self._levels],
            self._texts,
            self._opened,
            self._most_open,
            interrupted,
            self._begin,
        )
