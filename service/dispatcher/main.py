"""The dispatcher process, where there are several gateways: one event loop with the engine and the core.

It hears no client. When it dies, the supervisor starts another and attaches the same gateways, decoders and workers to
it; gateways then hand in again what was not answered.
"""

from __future__ import annotations

import asyncio

from service import child, log
from service.dispatcher import loop
from service.dispatcher.assembly import Assembly
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
        self._background = loop.Background()

    async def run(self) -> None:
        """Serve until told to drain."""
        asyncio.get_running_loop().add_reader(self._birth.control.fileno(), self._on_control)
        self._background.spawn(loop.beat(self._birth))
        self._background.spawn(self._gateways.follow())
        self._here.begin()
        self._birth.control.send(Ready())
        await self._over.wait()

    def _on_control(self) -> None:
        received = loop.heard(self._birth)
        if received is None:
            return
        message, descriptors = received
        if isinstance(message, Drain):
            self._over.set()
        elif isinstance(message, Attach) and message.role == "gateway":
            self._background.spawn(self._gateways.attach(message.index, descriptors[0]))
        elif isinstance(message, Attach):
            self._background.spawn(self._attach(message, descriptors[0]))
        else:
            self._here.heed(message)

    async def _attach(self, message: Attach, descriptor: int) -> None:
        await self._here.attach(message, descriptor)
        self._gateways.look()


def main() -> None:
    """Entry point of the process."""
    birth = child.begin(pixels_writable=False, bodies_writable=False)
    log.configure(birth.config.log_level, process="dispatcher")
    loop.run(Process(birth).run())


if __name__ == "__main__":
    main()
