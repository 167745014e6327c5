"""uvicorn's HTTP protocol with what it leaves open: what a request's head must keep to, how long a client is waited
for, how many connections there may be, and a short way for requests that end in the engine.

Those do not pass through ASGI: the protocol hands their head, their body as it comes, and the end of their connection
to whoever serves them, which costs no task of the event loop, no copies of the body and no routing. Everything else
goes uvicorn's way to the application.
"""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import Sized
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.errors import Refusal
from service.gateway import answers, strict
from service.gateway.door import Door, Opening
from service.gateway.exchange import Exchange, Headers, new_id
from service.gateway.patience import Patience, Phase, Taking
from service.gateway.tls import client_of

HEAD_SECONDS = 9.5
"""From a request's first byte (a connection's opening, for the first one) to the end of its head: within ten seconds
the connection is closed."""
_PIPELINED = 100
"""Requests of a connection that may wait for one before them."""
_PARTING_SECONDS = 1.0
"""What a client gets to read an error that ends its connection."""

_CLOSE = (b"connection", b"close")


def protocol(door: Door) -> type[HttpToolsProtocol]:
    """The class of connections behind this door, for uvicorn's configuration."""
    return type("Connection", (Connection,), {"door": door})


class _Flow(FlowControl):
    """Reads no more while requests wait that were read already: else they would be read faster than served."""

    def __init__(self, transport: asyncio.Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        """Read on, unless something waits."""
        if not self._waiting:
            super().resume_reading()


class Connection(HttpToolsProtocol):
    """One connection."""

    door = Door({})

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        limits = self.door.limits
        self._head_bytes = 0
        self._in_head = True
        self._idle_bytes = 0
        """Bytes in a row, after a head, that were part of no body."""
        self._moved = False
        """A head has ended, or some of a body has come."""
        self._deaf = False
        """What comes is not looked at: the connection closes once its answers are sent."""
        self._parted = False
        """Nothing is written any more."""
        self._behind_proxy = False
        self._exchange: Exchange | None = None
        """The request read last, if it takes the short way."""
        self._serving: Exchange | None = None
        self._halted: tuple[Any, Any] | None = None
        """What waits, with its application, until the client reads again."""
        self._patience = Patience(self.loop, limits.upload_rate, self._over)
        self._taking: Taking | None = None
        self.entered: str | None = None
        """The address that is counted for this connection."""

    # -- from the transport ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Let it in if there is room; the first head is due."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        door = self.door
        self._taking = Taking(self.loop, transport, door.limits.upload_rate)
        address = self.client[0] if self.client else ""
        if self.entered is None:
            if not door.room.enter(address):
                self._refuse(Refusal("overloaded", "too many connections", retry_after=1.0))
                return
            self.entered = address
        self._behind_proxy = bool(door.room.proxies) and address in door.room.proxies
        if door.clients is not None:
            try:
                self.client = (client_of(transport, door.clients), 0)
            except Refusal as refusal:
                door.refused(refusal.code)
                transport.abort()
                return
        self._patience.expect("head", HEAD_SECONDS)
        self._patience.arm()

    def data_received(self, data: bytes) -> None:
        """Pass on at most as much of a head as it may have; what follows only once it has ended."""
        if self._deaf:
            return
        most = strict.MAX_HEAD_BYTES
        while self._in_head and self._head_bytes + len(data) > most:
            part, data = data[: most - self._head_bytes], data[most - self._head_bytes :]
            self._head_bytes += len(part)
            super().data_received(part)
            if self._deaf or self.transport.is_closing():
                return
            if self._in_head and self._head_bytes >= most:
                self.send_400_response("the request's head is too long")
                return
        if self._in_head:
            self._head_bytes += len(data)
            super().data_received(data)
        else:
            self._moved = False
            super().data_received(data)
            # Trailers and chunks' extensions have no end of their own.
            self._idle_bytes = 0 if self._moved else self._idle_bytes + len(data)
            if self._idle_bytes > most and not self._in_head and not self.transport.is_closing():
                self.send_400_response("the request's body is too long for what is in it")
                return
        self._patience.arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._patience.stop()
        if self._taking is not None:
            self._taking.stop()
        self._halted = None
        super().connection_lost(exc)
        if self.entered is not None:
            self.door.room.leave(self.entered)
            self.entered = None
        serving, self._serving = self._serving, None
        if serving is not None:
            serving.disconnected = True
            serving.taker.lost()

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered."""
        super().pause_writing()
        if self._taking is not None:
            self._taking.begin()

    def resume_writing(self) -> None:
        """The client reads again: what it asked for meanwhile begins."""
        super().resume_writing()
        halted, self._halted = self._halted, None
        if halted is not None:
            self.flow.resume_reading()
            self._start_asgi_task(*halted)

    def shutdown(self) -> None:
        """The service is leaving: close now, or after the answer that is under way."""
        super().shutdown()
        self._linger()

    # -- from the parser ---------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_head = True
        self._exchange = None
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        if self._patience.phase != "head":
            self._patience.expect("head", HEAD_SECONDS)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head. One after the body, which could pass for one of the head, is left out."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head has ended: the request takes the short way or uvicorn's."""
        if self._deaf:
            return
        method = self.parser.get_method()
        fault = strict.fault(method, self.url, self.parser.get_http_version(), self.headers)
        if fault or len(self.pipeline) >= _PIPELINED:
            self.send_400_response(fault)
            return
        self._in_head, self._moved = False, True
        self._head_bytes = self._patience.received = 0
        self._patience.came()
        if method == b"POST" or method == b"PUT":
            path, _, query = self.url.partition(b"?")
            opening = self.door.by_raw_path.get(path) if method == b"POST" else None
            if opening is None or b"#" in query:
                opening, query = self._spelled_otherwise(method)
            if opening is not None:
                self._take(opening, query)
                return
        url, headers, expected = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.headers, self.expect_100_continue = url, headers, expected
        self.scope["headers"] = headers
        self.scope["client"] = self._asking(headers)
        self.scope["state"]["admin_port"] = self.door.admin
        super().on_headers_complete()
        if self.parser.should_upgrade():
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Some of a body."""
        patience = self._patience
        patience.received += len(body)
        self._moved = True
        if self._deaf:
            return
        if self.cycle.response_complete and patience.received > self.door.limits.body_bytes:
            # It was refused, and the rest is not worth reading.
            self._shut()
        elif self._exchange is None:
            super().on_body(body)
        else:
            self._exchange.feed(body)

    def on_message_complete(self) -> None:
        """The end of a body."""
        if self._patience.phase == "body":
            self._patience.came()
        if self._deaf:
            return
        if self._exchange is None:
            super().on_message_complete()
            if self.cycle.response_complete:
                self._rest()
        else:
            self._exchange.end()

    # -- exchanges ---------------------------------------------------------------------------------------------

    def _asking(self, headers: Headers) -> tuple[str, int] | None:
        """Who asks: the other end of the connection, or whom a trusted proxy names."""
        if not self._behind_proxy or self.entered is None:
            return self.client
        said = b",".join(value for name, value in headers if name == b"x-forwarded-for")
        asking = self.door.room.proxies.forwarded(self.entered, said.decode("latin-1"))
        return self.client if asking == self.entered else (asking, 0)

    def _spelled_otherwise(self, method: bytes) -> tuple[Opening | None, bytes]:
        """Who serves a URL that is not simply a known path, such as one with a host, an escape or a name; its query."""
        url = httptools.parse_url(self.url)
        path = urllib.parse.unquote((url.path or b"").decode("ascii"))
        known = self.door.by_path.get(path) if method == b"POST" else None
        return known or self.door.find(method, path), url.query or b""

    def _take(self, opening: Opening, query: bytes) -> None:
        parser = self.parser
        keep_alive = parser.get_http_version() != "1.0" and parser.should_keep_alive() and not parser.should_upgrade()
        exchange = Exchange(self, query, self.headers, keep_alive, self.expect_100_continue)
        exchange.client = self._asking(self.headers)
        exchange.body_seconds = HEAD_SECONDS
        exchange.taker = opening(exchange)
        former: Any = self.cycle
        self._exchange = exchange
        self.cycle = exchange  # type: ignore[assignment]
        if former is None or former.response_complete:
            self._start_asgi_task(exchange, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, self.app))  # type: ignore[arg-type]

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """Begin what came in, or what waited in the pipeline."""
        if self.flow.write_paused:
            # Whoever does not read the answers gets no more of them.
            self._halted = cycle, app
            self.flow.pause_reading()
        elif isinstance(cycle, Exchange):
            self._begin(cycle)
        else:
            super()._start_asgi_task(cycle, app)
            if cycle is self.cycle and cycle.more_body:
                self._patience.expect("body", self.door.limits.upload_seconds)
        if self._halted is None and not self.transport.is_closing():
            # The rest of its body, if it was the last that waited.
            self.flow.resume_reading()
        self._patience.arm()

    def _begin(self, exchange: Exchange) -> None:
        self._serving = exchange
        exchange.start()
        if not exchange.ended and not exchange.response_complete:
            self._patience.expect("body", exchange.body_seconds)

    # -- answers -----------------------------------------------------------------------------------------------

    def respond(self, exchange: Exchange, status: int, headers: Headers, body: bytes) -> None:
        """Write a response, and go on to what comes next on this connection."""
        if self._parted or self.transport.is_closing():
            return
        parts = [STATUS_LINE[status]]
        if self.door.extra_headers is not None:
            headers += self.door.extra_headers(exchange)
        for name, value in (*self.server_state.default_headers, *headers):
            parts += (name, b": ", value, b"\r\n")
        if _CLOSE in headers:
            exchange.keep_alive = False
        elif not exchange.keep_alive:
            parts.append(b"connection: close\r\n")
        parts += (b"content-length: %d\r\n\r\n" % len(body), body)
        self.transport.write(b"".join(parts))
        self._serving = None
        self.server_state.total_requests += 1
        if not exchange.keep_alive:
            if exchange.ended:
                self._shut()
            else:
                self._part()
            return
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._rest()

    def on_response_complete(self) -> None:
        """The application has answered."""
        super().on_response_complete()
        self._unset_keepalive_if_required()
        if self.transport.is_closing():
            self._linger()
        elif self.cycle.response_complete:
            self._rest()

    def _rest(self) -> None:
        """Wait for the next request, or for the rest of a body that was refused before it came."""
        if self._patience.phase not in ("head", "body"):
            self._patience.expect("idle", self.timeout_keep_alive)
            self._patience.arm()

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that could not be parsed, and close."""
        if self._deaf:
            return
        # uvicorn's own words for a parser's error are replaced: they say less.
        text = msg if msg.startswith("the ") else "this is not a valid HTTP request"
        under_way: Any = self.cycle
        if self.pipeline or (self._in_head and under_way is not None and not under_way.response_complete):
            # What was asked before is answered first: this must not be taken for that answer.
            self._deaf = True
            under_way.keep_alive = False
            self.door.refused("bad_request")
            return
        self._refuse(Refusal("bad_request", text))

    def _refuse(self, refusal: Refusal) -> None:
        """Answer with an error, in the one shape of all, though no request has been understood, and close."""
        self.door.refused(refusal.code)
        self.transport.write(answers.closing(refusal, new_id()))
        self._part()

    # -- the end -----------------------------------------------------------------------------------------------

    def _over(self, phase: Phase, slow: bool) -> None:
        """What was waited for has not come."""
        if phase != "body":
            self._shut()
        elif self._serving is not None and self._serving is self._exchange:
            self._serving.taker.late(slow)
        elif self.cycle.response_complete or getattr(self.cycle, "response_started", True):
            self.transport.abort()
        else:
            limit = self.door.limits.upload_seconds
            how = "came too slowly" if slow else f"did not arrive within {limit:g} seconds"
            self._refuse(Refusal("slow_upload", f"the body {how}"))

    def _part(self) -> None:
        """Close while the client may still be sending: what it is sent would be lost if what it sends met a closed
        door, so that is taken and thrown away for a moment."""
        self._deaf = self._parted = True
        under_way: Any = self.cycle
        if under_way is not None and not under_way.response_complete:
            under_way.disconnected = True
            under_way.message_event.set()
        serving, self._serving = self._serving, None
        if serving is not None:
            serving.disconnected = True
            serving.taker.lost()
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.flow.resume_reading()
            self._patience.expect("idle", _PARTING_SECONDS)
            self._patience.arm()
        else:
            self._shut()

    def _shut(self) -> None:
        """Close, once the client has taken what was written."""
        self.transport.close()
        self._linger()

    def _linger(self) -> None:
        if self._taking is not None and self.transport.is_closing():
            self._taking.begin()
