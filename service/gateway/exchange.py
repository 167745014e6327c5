"""One request of a task and its answer, apart from the connection it came by.

The connection hands over a request's head, its body as it comes, and the news that the client has gone, to whoever
serves it; what comes back is one answer.
"""

from __future__ import annotations

import asyncio
import os
from typing import Protocol

from uvicorn.protocols.http.flow_control import FlowControl

Headers = list[tuple[bytes, bytes]]
"""Names in lower case."""

_random = memoryview(b"")


def new_id() -> str:
    """A request id that cannot be guessed: 32 hexadecimal digits."""
    global _random
    if not _random:
        # One system call for many.
        _random = memoryview(os.urandom(4096))
    one, _random = _random[:16], _random[16:]
    return one.hex()


class Taker(Protocol):
    """Who serves one exchange. Nothing may be raised."""

    def begin(self) -> None:
        """The head is here."""

    def chunk(self, data: bytes) -> None:
        """Some of the body is here."""

    def complete(self) -> None:
        """The whole body is here."""

    def late(self, slow: bool) -> None:
        """The body has not come within `Exchange.body_seconds`, or comes more slowly than it may."""

    def lost(self) -> None:
        """The client has gone; nobody reads an answer."""


class Line(Protocol):
    """What an exchange needs of its connection."""

    client: tuple[str, int] | None
    transport: asyncio.Transport
    flow: FlowControl

    def respond(self, exchange: Exchange, status: int, headers: Headers, body: bytes) -> None:
        """Write a response."""


class Exchange:
    """One request of a task and its answer. Stands where uvicorn has its own request and response cycle."""

    __slots__ = (
        "_held",
        "_protocol",
        "_values",
        "body_seconds",
        "client",
        "disconnected",
        "ended",
        "headers",
        "keep_alive",
        "message_event",
        "query",
        "response_complete",
        "started",
        "taker",
        "waiting",
    )  # fmt: skip

    def __init__(self, protocol: Line, query: bytes, headers: Headers, keep_alive: bool, waiting: bool) -> None:
        self._protocol = protocol
        self._values: dict[bytes, bytes] | None = None
        self._held: list[bytes] = []
        self.query = query
        self.headers = headers
        self.client = protocol.client
        self.keep_alive = keep_alive
        self.waiting = waiting
        """The client waits to be told to send the body."""
        self.body_seconds = 0.0
        self.started = self.ended = self.response_complete = self.disconnected = False
        self.message_event = _NOTHING
        self.taker: Taker = NOBODY

    def header(self, name: bytes) -> str | None:
        """A header's value, the first if it was sent more than once; `name` in lower case."""
        if self._values is None:
            self._values = dict(reversed(self.headers))
        value = self._values.get(name)
        return None if value is None else value.decode("latin-1")

    def pause(self) -> None:
        """Have no more of the body read for now."""
        if not self.disconnected:
            self._protocol.flow.pause_reading()

    def resume(self) -> None:
        """Have it read again."""
        if not self.disconnected:
            self._protocol.flow.resume_reading()

    def send_on(self) -> None:
        """Tell a client that waits to be told (`Expect: 100-continue`) to send the body."""
        if self.waiting and not self.disconnected:
            self.waiting = False
            self._protocol.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Send the response; to be called once."""
        self.waiting = False
        self.response_complete = True
        if not self.disconnected:
            self._protocol.respond(self, status, headers, body)

    def start(self) -> None:
        """Hand over what is here."""
        self.started = True
        self.taker.begin()
        for data in self._held:
            self.taker.chunk(data)
        self._held.clear()
        if self.ended:
            self.taker.complete()

    def feed(self, data: bytes) -> None:
        """Some of the body."""
        if self.response_complete:
            return
        if self.started:
            self.taker.chunk(data)
        else:
            self._held.append(data)

    def end(self) -> None:
        """The end of the body."""
        self.ended = True
        if self.started and not self.response_complete:
            self.taker.complete()


class _Nothing:
    """In the place of an event that nobody waits for."""

    def set(self) -> None: ...


class _Nobody:
    """Serves nothing."""

    def begin(self) -> None: ...

    def chunk(self, data: bytes) -> None: ...

    def complete(self) -> None: ...

    def late(self, slow: bool) -> None: ...

    def lost(self) -> None: ...


_NOTHING, NOBODY = _Nothing(), _Nobody()
