"""Who is connected: how many connections there may be, and TLS before the first byte of HTTP."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Protocol, cast

from service import log
from service.config import Limits
from service.gateway.addresses import Proxies, place
from service.gateway.tls import Certificates

HANDSHAKE_SECONDS = 10.0
"""From a connection's opening until TLS is agreed on."""
_GOODBYE_SECONDS = 5.0
_TURNS = 100
"""Connections accepted in one go, so that a flood of them leaves room for what is connected."""
_REST_SECONDS = 0.2
"""How long nothing is accepted once the system has no descriptor left."""


class Room:
    """How many connections there are, altogether and from each address."""

    def __init__(self, limits: Limits, proxies: Proxies) -> None:
        self.proxies = proxies
        self._most = limits.connections
        self._each = limits.connections_per_address
        self._from: dict[str, int] = {}
        self.taken = 0

    def limit(self, most: int) -> None:
        """There is room for no more than this, whatever was configured."""
        self._most = min(self._most, most)

    def enter(self, address: str) -> bool:
        """One more from this address, if there is room; then `leave` must follow."""
        where = place(address)
        here = self._from.get(where, 0)
        if self.taken >= self._most or (here >= self._each and address not in self.proxies):
            return False
        self._from[where] = here + 1
        self.taken += 1
        return True

    def leave(self, address: str) -> None:
        """One that entered has gone."""
        where = place(address)
        self.taken -= 1
        self._from[where] -= 1
        if not self._from[where]:
            del self._from[where]


class Newcomer(Protocol):
    """What a connection is, before it has agreed on TLS."""

    entered: str | None
    transport: Any


class Reception:
    """Accepts the connections of a port that speaks TLS; stands where asyncio has its own server.

    Each connection is counted before its handshake, and gets the certificates of that moment.
    """

    def __init__(self, listener: socket.socket, make: Callable[[], Newcomer], room: Room, shown: Certificates) -> None:
        self._listener = listener
        self._make = make
        self._room = room
        self._shown = shown
        self._agreeing: set[asyncio.Task[None]] = set()
        listener.setblocking(False)

    @property
    def agreeing(self) -> int:
        """Connections that have not agreed yet."""
        return len(self._agreeing)

    def listen(self) -> None:
        """Begin to accept."""
        asyncio.get_running_loop().add_reader(self._listener.fileno(), self._accept)

    def close(self) -> None:
        """Accept no more; who is connected stays."""
        if self._listener.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._listener.fileno())
            self._listener.close()

    async def wait_closed(self) -> None:
        """Until those who were agreeing have done so."""
        await asyncio.gather(*self._agreeing, return_exceptions=True)

    def _accept(self) -> None:
        for _ in range(_TURNS):
            try:
                accepted, address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._rest(error)
                return
            if not self._room.enter(address[0]):
                accepted.close()
                continue
            task = asyncio.ensure_future(self._agree(accepted, address[0]))
            self._agreeing.add(task)
            task.add_done_callback(self._agreeing.discard)

    def _rest(self, error: OSError) -> None:
        loop = asyncio.get_running_loop()
        log.event("not_accepting", severity="error", reason=error.strerror)
        loop.remove_reader(self._listener.fileno())
        loop.call_later(_REST_SECONDS, self._open_again)

    def _open_again(self) -> None:
        if self._listener.fileno() >= 0:
            self.listen()

    async def _agree(self, accepted: socket.socket, address: str) -> None:
        """Have one connection agree on TLS; it is served from then on."""
        accepted.setblocking(False)
        connection = self._make()
        connection.entered = address
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: cast("asyncio.Protocol", connection),
                accepted,
                ssl=self._shown.context(),
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=_GOODBYE_SECONDS,
            )
        except OSError as error:
            log.event("no_handshake", severity="debug", reason=getattr(error, "reason", None) or error.strerror)
        finally:
            if connection.transport is None:
                self._room.leave(address)
