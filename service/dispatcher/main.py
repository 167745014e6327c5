"""The dispatcher process, where there are several gateways: one event loop with the engine and the core.

It hears no client. When it dies, the supervisor starts another and attaches the same gateways, decoders and workers to
it; gateways then hand in again what was not answered.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any

from service import child, log
from service.dispatcher.assembly import Assembly, beat, heard
from service.dispatcher.gateways import Gateways
from service.dispatcher.questions import Questions
from service.wire.messages.control import Attach, Drain, Ready


class Process:
    """Ties the control channel, the pulse, and the gateways together."""

    def __init__(self, birth: child.Birth) -> None:
        self._birth = birth
        here = self._here = Assembly(birth)
        slots = birth.start.body_slots // birth.config.gateways
        self._gateways = gateways = Gateways(
            here.engine,
            here.pool,
            here.catalogue,
            here.turnover,
            here.counting,
            slots=slots,
            awaited=0 if birth.start.again else birth.config.gateways,
        )
        gateways.questions = Questions(here.repository, here.counting, gateways.gather, gateways.settle)
        here.changed = gateways.look
        here.leaving = lambda: gateways.leaving
        self._over = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve until told to drain."""
        # What is here now stays: the collector need not look through it again and again.
        gc.collect()
        gc.freeze()
        asyncio.get_running_loop().add_reader(self._birth.control.fileno(), self._on_control)
        self._spawn(beat(self._birth))
        self._spawn(self._gateways.follow())
        self._here.begin()
        self._birth.control.send(Ready())
        await self._over.wait()

    def _on_control(self) -> None:
        received = heard(self._birth)
        if received is None:
            return
        message, descriptors = received
        if isinstance(message, Drain):
            self._over.set()
        elif isinstance(message, Attach) and message.role == "gateway":
            self._spawn(self._gateways.attach(message.index, descriptors[0]))
        elif isinstance(message, Attach):
            self._spawn(self._attach(message, descriptors[0]))
        else:
            self._here.heed(message)

    async def _attach(self, message: Attach, descriptor: int) -> None:
        await self._here.attach(message, descriptor)
        self._gateways.look()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def main() -> None:
    """Entry point of the process."""
    birth = child.begin(pixels_writable=False, bodies_writable=False)
    log.configure(birth.config.log_level, process="dispatcher")
    with asyncio.Runner(loop_factory=_loop) as runner:
        runner.run(_run(birth))
    child.leave(0)


async def _run(birth: child.Birth) -> None:
    await Process(birth).run()


def _loop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


if __name__ == "__main__":
    main()
