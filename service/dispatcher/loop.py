"""What the processes with an event loop have in common: the gateways, and the dispatcher behind several of them."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Coroutine
from typing import Any

import uvloop

from service import child
from service.errors import WireError
from service.wire import pulse
from service.wire.messages.control import Control


class Background:
    """Work that goes on beside all else. The event loop by itself would let go of what nobody holds."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Have it carried out, whether anybody waits for it or not."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def ended(self) -> None:
        """Wait for all that was spawned; raises what the first of it that fails raises."""
        await asyncio.gather(*self._tasks)


async def beat(birth: child.Birth) -> None:
    """Write on the pulse board that the event loop turns, for as long as it does."""
    record = birth.pulse()
    while True:
        record.beat(time.monotonic(), pulse.STUCK_AFTER)
        await asyncio.sleep(pulse.REST)


def heard(birth: child.Birth) -> tuple[Control, list[int]] | None:
    """What the supervisor says, if anything; a process whose supervisor is gone ends here."""
    try:
        return birth.control.receive(0)
    except WireError:
        child.leave(1)
        return None


def run(work: Coroutine[Any, Any, None]) -> None:
    """Carry out what this process is there for, and end it."""
    # What is here now stays: the collector need not look through it again and again.
    gc.collect()
    gc.freeze()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)
    child.leave(0)
