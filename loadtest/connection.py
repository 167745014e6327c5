"""One HTTP/1.1 keep-alive connection that knows nothing but the request it is answering."""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

import httptools

RETRY_AFTER, LEVEL = b"retry-after", b"x-squint-level"
LENGTHS = {len(RETRY_AFTER), len(LEVEL)}


class Owner(Protocol):
    """Who gives a connection its requests, and is told what became of them."""

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
        """A whole answer to request `number`; `keep` is whether the connection stays open."""

    def failed(self, number: int, why: str) -> None:
        """No answer; `why` is one of samples.ERRORS."""

    def lost(self, connection: Connection) -> None:
        """It is closed."""


class Connection(asyncio.Protocol):
    """Writes a request that is bytes already, reads the answer, and tells its owner.

    A connection is idle exactly while `number` is -1. Parsing is httptools' (C); the callbacks below run once per
    header or answer, so they do as little as they can.
    """

    __slots__ = ("_owner", "_parser", "_transport", "idle_since", "level", "number", "retry_after", "text")

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self.number = -1
        self.idle_since = 0.0
        self.level = b""
        self.retry_after = b""
        self.text = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Open; its owner gives it work once the connect call returns."""
        self._transport = cast(asyncio.Transport, transport)

    def start(self, number: int, request: bytes) -> None:
        """Send a request; `number` is told back with its answer."""
        self.number = number
        if self._transport is not None:
            self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Part of an answer."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.fail("protocol")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header of the answer."""
        if len(name) in LENGTHS:
            lower = name.lower()
            if lower == LEVEL:
                self.level = value
            elif lower == RETRY_AFTER:
                self.retry_after = value

    def on_body(self, body: bytes) -> None:
        """Part of the answer's body; only the first is kept."""
        if not self.text:
            self.text = body

    def on_message_complete(self) -> None:
        """The answer is whole."""
        number, status = self.number, self._parser.get_status_code()
        if status < 200:
            return
        if number < 0:
            self.abort()  # an answer to nothing
            return
        level, retry_after, text = self.level, self.retry_after, self.text
        self.number, self.level, self.retry_after, self.text = -1, b"", b"", b""
        keep = self._parser.should_keep_alive()
        if not keep:
            self.abort()
        self._owner.answered(self, number, status, level, retry_after, text, keep)

    def connection_lost(self, error: Exception | None) -> None:
        """Closed by either side."""
        self._transport = None
        self.fail("reset")
        self._owner.lost(self)

    def fail(self, why: str) -> None:
        """Give up the request under way, if there is one, and the connection with it."""
        number, self.number = self.number, -1
        self.abort()
        if number >= 0:
            self._owner.failed(number, why)

    def abort(self) -> None:
        """Close without waiting."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def usable(self) -> bool:
        """Whether a request can be sent on it."""
        return self._transport is not None and not self._transport.is_closing()
