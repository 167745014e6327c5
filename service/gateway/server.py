"""The HTTP ports: the one for clients, and the operator's where there is one."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import uvicorn

from service import log
from service.config import Config
from service.gateway import app
from service.gateway.addresses import Proxies
from service.gateway.door import Door
from service.gateway.http import Connection, protocol
from service.gateway.reception import Reception, Room
from service.gateway.serving import Gateway
from service.gateway.tls import Certificates

_KEEP_ALIVE_SECONDS = 30
_BACKLOG = 2048
_SPARE = 128
"""Descriptors for all that is no connection of a client's."""
_LOOPBACK = ("127.", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class Port:
    """One listening socket, and what is behind it."""

    listener: socket.socket
    door: Door
    certificates: Certificates | None = None


def ports(gateway: Gateway, listeners: Sequence[socket.socket]) -> list[Port]:
    """The ports as configured, in the order of their sockets. Raises StartError."""
    config = gateway.config
    room = Room(config.limits, Proxies(config.trusted_proxies))
    room.limit(_descriptors(config.limits.connections + _SPARE) - _SPARE)
    shown = Certificates(config) if config.tls_cert else None
    found = [Port(listeners[0], app.door(gateway, room, shown.clients if shown else None), shown)]
    if len(listeners) > 1:
        # The operator's way in is not shut by clients that take all the room.
        own = Room(config.limits, Proxies(()))
        door = Door({}, limits=config.limits, room=own, admin=True)
        found.append(Port(listeners[1], door, _admin_certificates(config)))
    return found


def _admin_certificates(config: Config) -> Certificates | None:
    """TLS where others could listen; clients' certificates are not asked for, since probes and scrapers have none."""
    if not config.tls_cert or config.admin_host.startswith(_LOOPBACK):
        return None
    return Certificates(config, ask_clients=False)


def _descriptors(wanted: int) -> int:
    """Have the system allow this process as many open files as it is wanted to, and tell how many it allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    if most < wanted:
        log.event("few_descriptors", severity="warning", allowed=most, wanted=wanted)
    return most


class Server(uvicorn.Server):
    """uvicorn with several ports, and without its signal handling: signals are the supervisor's."""

    def __init__(self, config: uvicorn.Config, behind: Sequence[Port]) -> None:
        super().__init__(config)
        self._ports = behind
        self._classes = [protocol(port.door) for port in behind]
        self._receptions: list[Reception] = []

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the process's signals alone."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open every port."""
        loop = asyncio.get_running_loop()
        self.servers: list[Any] = []
        for port, kind in zip(self._ports, self._classes, strict=True):

            def make(kind: Any = kind) -> Connection:
                made: Connection = kind(self.config, self.server_state, {}, loop)
                return made

            if port.certificates is None:
                self.servers.append(await loop.create_server(make, sock=port.listener, backlog=_BACKLOG))
            else:
                reception = Reception(port.listener, make, port.door.room, port.certificates)
                reception.listen()
                self._receptions.append(reception)
                self.servers.append(reception)
        self.started = True

    def close_first(self) -> None:
        """Accept no more clients; the operator's port stays until the end."""
        self.servers[0].close()

    def silent(self) -> bool:
        """Some connection has been accepted and has not sent a request."""
        agreeing = any(reception.agreeing for reception in self._receptions)
        return agreeing or any(
            getattr(one, "cycle", None) is None and not getattr(one, "door", _ANY).admin
            for one in self.server_state.connections
        )


_ANY = Connection.door


def settings(gateway: Gateway) -> uvicorn.Config:
    """How uvicorn serves the application."""
    return uvicorn.Config(
        app.create(gateway),
        loop="uvloop",
        http=Connection,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=gateway.config.limits.max_timeout_ms // 1000 + 1,
        backlog=_BACKLOG,
    )
