"""uvicorn's HTTP protocol with what it leaves open: how long a request's head may be, and how long it may take."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 32_768
"""Request line and headers together."""
HEAD_SECONDS = 10.0
"""From a request's first byte (a connection's opening, for the first one) to the end of its head."""


class Protocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._head_bytes = 0
        self._in_head = True
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first head is due."""
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._too_slow)

    def data_received(self, data: bytes) -> None:
        """Pass on at most as much of a head as it may have; what follows only once it has ended."""
        while self._in_head and self._head_bytes + len(data) > MAX_HEAD_BYTES:
            part, data = data[: MAX_HEAD_BYTES - self._head_bytes], data[MAX_HEAD_BYTES - self._head_bytes :]
            self._head_bytes += len(part)
            super().data_received(part)
            if self.transport.is_closing():
                return
            if self._in_head and self._head_bytes >= MAX_HEAD_BYTES:
                self.send_400_response("the request's head is too long")
                return
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_head = True
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._too_slow)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head has ended."""
        self._in_head = False
        self._head_bytes = 0
        self._stop_timer()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._stop_timer()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that could not be parsed, in the one shape of all errors, and close."""
        # uvicorn's own words for a parser's error are replaced: they say less.
        text = msg if msg.startswith("the ") else "this is not a valid HTTP request"
        error = {"error": text, "code": "bad_request", "request_id": uuid.uuid4().hex}
        body = msgspec.json.encode(error)
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
            f"x-request-id: {error['request_id']}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + body)
        self.transport.close()

    def _too_slow(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
