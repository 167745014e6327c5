"""The gateway process: one event loop with HTTP and gRPC; and, unless it is one of several, the engine and the core.

It owns no model and decodes no image; when it dies, the supervisor starts another and attaches to it the same decoders
and workers, or the same dispatcher.
"""

from __future__ import annotations

import asyncio
import select
import socket
import time
from typing import TYPE_CHECKING

from service import child, log
from service.dispatcher import loop
from service.dispatcher.assembly import Assembly
from service.errors import StartError
from service.gateway import auth, body, server
from service.gateway.apart import Apart
from service.gateway.observing import Observer
from service.gateway.server import Server
from service.gateway.serving import Gateway
from service.wire.messages.control import Attach, Drain, Failed, Ready

if TYPE_CHECKING:
    from service.gateway.rpc.server import RpcServer

_TURN = 0.02
_HEAR_OUT = 2.0
"""Seconds that a connection accepted last gets to send its request."""


class Process:
    """Ties the control channel, the pulse, and the server together."""

    def __init__(self, birth: child.Birth) -> None:
        config = birth.config
        self._birth = birth
        here = self._here = Assembly(birth) if config.gateways == 1 else Apart(birth)
        if isinstance(here, Apart):
            config = here.config
        budget = body.Budget(config.limits.pending_bytes)
        guard = here.guard if isinstance(here, Apart) else auth.guard(config)
        self._gateway = Gateway(
            config, here.catalogue, here.engine, here.metrics, budget, here.ledger, here.repository, guard, here.triton
        )
        here.leaving = self._gateway.leaving
        self._observer = Observer(self._gateway)
        here.counting.traces = self._observer.traces
        self._listeners = [socket.socket(fileno=descriptor) for descriptor in birth.extra]
        self._server = Server(server.settings(self._gateway), server.ports(self._gateway, self._listeners))
        self._rpc = _rpc(self._gateway)
        self._background = loop.Background()

    async def run(self) -> None:
        """Serve until drained."""
        asyncio.get_running_loop().add_reader(self._birth.control.fileno(), self._on_control)
        beating = asyncio.ensure_future(loop.beat(self._birth))
        self._here.begin()
        if self._rpc is not None:
            await self._rpc.start()
        self._birth.control.send(Ready())
        await self._here.connected()
        await self._server.serve(sockets=self._listeners)
        await self._background.ended()
        beating.cancel()
        self._observer.close()

    def _on_control(self) -> None:
        received = loop.heard(self._birth)
        if received is None:
            return
        message, descriptors = received
        if isinstance(message, Attach):
            self._background.spawn(self._here.attach(message, descriptors[0]))
        elif isinstance(message, Drain):
            self._background.spawn(self._drain(message.grace))
        else:
            self._here.heed(message)

    async def _drain(self, grace: float) -> None:
        """Answer for `grace` seconds more, then close the port; uvicorn waits for what is in flight."""
        gateway = self._gateway
        gateway.drain.begin(gateway.engine.clock(), grace)
        self._here.leave()
        log.event("draining", grace=grace, in_flight=gateway.engine.in_flight)
        # A gateway that has just been started may be told before its port is open, and whoever waits there is heard.
        while gateway.drain.phase(gateway.engine.clock()) == "leaving" or not self._server.started:
            await asyncio.sleep(_TURN)
        if self._rpc is not None:
            self._background.spawn(self._rpc.stop(gateway.config.limits.max_timeout_ms / 1000 + 1))
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
    several = {"process": f"gateway {birth.start.index}"} if birth.config.gateways > 1 else {}
    log.configure(birth.config.log_level, **several)
    try:
        process = Process(birth)
    except StartError as error:
        birth.control.send(Failed(str(error)))
        child.leave(1)
    loop.run(process.run())


if __name__ == "__main__":
    main()
