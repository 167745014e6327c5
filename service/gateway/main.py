"""The gateway process: one event loop with HTTP, the engine and the core.

It owns no model and decodes no image; when it dies, the supervisor starts another and attaches the same decoders
and workers to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import select
import socket
import time
from collections.abc import Coroutine, Iterator

import uvicorn

from service import child, log
from service.core.dispatch import Dispatcher
from service.errors import WireError
from service.gateway import app, body
from service.gateway.catalogue import Catalogue
from service.gateway.engine import Engine
from service.gateway.handler import Gateway
from service.gateway.http import protocol
from service.gateway.pool import Pool
from service.metrics import Metrics
from service.version import VERSION
from service.wire import pulse
from service.wire.messages import Attach, Drain, Lost, Ready, Restarts, Role

_TURN = 0.02
_HEAR_OUT = 2.0
"""Seconds that a connection accepted last gets to send its request."""
_STUCK_AFTER = 10.0
"""Seconds without a turn of the event loop after which the gateway counts as hung."""


class Server(uvicorn.Server):
    """uvicorn without its signal handling: signals are the supervisor's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the process's signals alone."""
        yield


class Process:
    """Ties the control channel, the pulse, and the server together."""

    def __init__(self, birth: child.Birth) -> None:
        config = birth.config
        self._birth = birth
        metrics = Metrics(VERSION)
        catalogue = Catalogue(config)
        dispatcher = Dispatcher(config.limits.in_flight)
        pool = Pool(self._replace)
        engine = Engine(dispatcher, catalogue, pool, birth.pixels, birth.bodies, metrics, config.limits)
        budget = body.Budget(config.limits.pending_bytes)
        self._gateway = Gateway(config, catalogue, engine, metrics, budget)
        metrics.watch(lambda: engine.in_flight, lambda: engine.queued, self._delays)
        self._server = Server(
            uvicorn.Config(
                app.create(self._gateway),
                loop="uvloop",
                http=protocol(app.door(self._gateway)),
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                server_header=False,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=config.limits.max_timeout_ms // 1000 + 1,
                backlog=2048,
            )
        )
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve until drained."""
        loop = asyncio.get_running_loop()
        # What is here now stays: the collector need not look through it again and again.
        gc.collect()
        gc.freeze()
        loop.add_reader(self._birth.control.fileno(), self._on_control)
        beating = asyncio.ensure_future(self._beat())
        self._birth.control.send(Ready())
        await self._server.serve(sockets=[socket.socket(fileno=self._birth.extra[0])])
        beating.cancel()

    def _replace(self, role: Role, index: int) -> None:
        """Have the supervisor end a peer that cannot be trusted any more; another takes its place."""
        self._birth.control.send(Lost(role, index))

    def _delays(self) -> dict[str, float]:
        engine = self._gateway.engine
        return {name: engine.queue_delay(entry) for name, entry in self._gateway.catalogue.entries.items()}

    async def _beat(self) -> None:
        record = self._birth.pulse()
        while True:
            record.beat(time.monotonic(), _STUCK_AFTER)
            await asyncio.sleep(pulse.REST)

    def _on_control(self) -> None:
        try:
            received = self._birth.control.receive(0)
        except WireError:
            child.leave(1)
            return
        if received is None:
            return
        message, descriptors = received
        if isinstance(message, Attach):
            self._spawn(self._gateway.engine.attach(message.role, message.index, descriptors[0]))
        elif isinstance(message, Restarts):
            self._gateway.metrics.restarted(message.counts)
        elif isinstance(message, Drain):
            self._spawn(self._drain(message.grace))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drain(self, grace: float) -> None:
        """Answer for `grace` seconds more, then close the port; uvicorn waits for what is in flight."""
        gateway = self._gateway
        gateway.drain.begin(gateway.engine.clock(), grace)
        log.event("draining", grace=grace, in_flight=gateway.engine.in_flight)
        while gateway.drain.phase(gateway.engine.clock()) == "leaving":
            await asyncio.sleep(_TURN)
        await self._close_port()
        self._server.should_exit = True

    async def _close_port(self) -> None:
        """Close the port while nobody waits to be accepted, and hear out who was just accepted: uvicorn would close
        a connection on which no request has begun."""
        waiting = select.poll()
        waiting.register(self._birth.extra[0], select.POLLIN)
        until = time.monotonic() + _HEAR_OUT
        while waiting.poll(0) and time.monotonic() < until:
            await asyncio.sleep(0)
        for server in self._server.servers:
            server.close()
        while self._silent() and time.monotonic() < until:
            await asyncio.sleep(_TURN)

    def _silent(self) -> bool:
        """Some connection has been accepted and has not sent a request."""
        return any(getattr(one, "cycle", None) is None for one in self._server.server_state.connections)


def main() -> None:
    """Entry point of the process."""
    birth = child.begin(pixels_writable=False, bodies_writable=True)
    log.configure(birth.config.log_level)
    process = Process(birth)
    with asyncio.Runner(loop_factory=_loop) as runner:
        runner.run(process.run())
    child.leave(0)


def _loop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


if __name__ == "__main__":
    main()
