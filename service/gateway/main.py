"""The gateway process: one event loop with HTTP, the engine and the core.

It owns no model and decodes no image; when it dies, the supervisor starts another and attaches the same decoders
and workers to it.
"""

from __future__ import annotations

import asyncio
import gc
import select
import socket
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING

from service import child, log
from service.core.dispatch import Dispatcher
from service.errors import StartError, WireError
from service.gateway import auth, body, server
from service.gateway.catalogue import Catalogue
from service.gateway.engine import Engine
from service.gateway.observing import Observer
from service.gateway.pool import Pool
from service.gateway.repository import Repository
from service.gateway.server import Server
from service.gateway.serving import Gateway
from service.gateway.turnover import Notes, Turnover
from service.metrics import Metrics
from service.version import VERSION
from service.wire import pulse
from service.wire.messages import Attach, Drain, Failed, Late, Lost, Ready, Reload, Restarts, Role

if TYPE_CHECKING:
    from service.gateway.rpc.server import RpcServer

_TURN = 0.02
_HEAR_OUT = 2.0
"""Seconds that a connection accepted last gets to send its request."""
_STUCK_AFTER = 10.0
"""Seconds without a turn of the event loop after which the gateway counts as hung."""


class Process:
    """Ties the control channel, the pulse, and the server together."""

    def __init__(self, birth: child.Birth) -> None:
        config = birth.config
        self._birth = birth
        metrics = Metrics(VERSION)
        notes = Notes.read(birth.start.notes)
        catalogue = Catalogue(config, birth.start.units, notes.policies)
        dispatcher = Dispatcher(config.limits.in_flight)
        pool = Pool(self._replace)
        engine = Engine(dispatcher, catalogue, pool, birth.pixels, birth.bodies, metrics, config.limits)
        budget = body.Budget(config.limits.pending_bytes)
        self._gateway = Gateway(config, catalogue, engine, metrics, budget, auth.guard(config))
        slot_bytes = birth.start.pixel_slot_bytes
        turnover = Turnover(config, catalogue, engine, metrics, slot_bytes, birth.control.send, notes)
        self._repository = self._gateway.repository = Repository(config, catalogue, engine, metrics, turnover)
        self._observer = Observer(self._gateway)
        self._listeners = [socket.socket(fileno=descriptor) for descriptor in birth.extra]
        self._server = Server(server.settings(self._gateway), server.ports(self._gateway, self._listeners))
        self._rpc = _rpc(self._gateway)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve until drained."""
        loop = asyncio.get_running_loop()
        # What is here now stays: the collector need not look through it again and again.
        gc.collect()
        gc.freeze()
        loop.add_reader(self._birth.control.fileno(), self._on_control)
        beating = asyncio.ensure_future(self._beat())
        self._repository.begin()
        if self._rpc is not None:
            await self._rpc.start()
        self._birth.control.send(Ready())
        await self._server.serve(sockets=self._listeners)
        await asyncio.gather(*self._tasks)
        beating.cancel()
        self._observer.close()

    def _replace(self, role: Role, index: int) -> None:
        """Have the supervisor end a peer that cannot be trusted any more; another takes its place."""
        self._birth.control.send(Lost(role, index))

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
        elif isinstance(message, Late):
            self._gateway.engine.late = frozenset(message.workers)
        elif isinstance(message, Reload):
            self._repository.look_again()
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
        if self._rpc is not None:
            self._spawn(self._rpc.stop(gateway.config.limits.max_timeout_ms / 1000 + 1))
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
        self._server.close_first()
        while self._server.silent() and time.monotonic() < until:
            await asyncio.sleep(_TURN)


def _rpc(gateway: Gateway) -> RpcServer | None:
    """The gRPC port, where there is one: its library takes memory, and is not loaded for nothing."""
    if gateway.config.grpc_port is None:
        return None
    from service.gateway.rpc.server import RpcServer

    return RpcServer(gateway)


def main() -> None:
    """Entry point of the process."""
    birth = child.begin(pixels_writable=False, bodies_writable=True)
    log.configure(birth.config.log_level)
    try:
        process = Process(birth)
    except StartError as error:
        birth.control.send(Failed(str(error)))
        child.leave(1)
    with asyncio.Runner(loop_factory=_loop) as runner:
        runner.run(process.run())
    child.leave(0)


def _loop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


if __name__ == "__main__":
    main()
