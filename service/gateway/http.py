"""uvicorn's HTTP protocol with what it leaves open: how long a request's head may be, how long it may take, and a
short way for the requests of tasks.

Those do not pass through ASGI: the protocol hands a task's head, its body as it comes, and the end of its connection
to whoever serves tasks, which costs no task of the event loop, no copies of the body and no routing. Everything else
goes uvicorn's way to the application.
"""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any, Literal

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.gateway.exchange import NOBODY, Exchange, Headers, Taker, new_id

MAX_HEAD_BYTES = 32_768
"""Request line and headers together."""
HEAD_SECONDS = 10.0
"""From a request's first byte (a connection's opening, for the first one) to the end of its head."""

_CLOSE = (b"connection", b"close")


class Door:
    """Where requests of tasks go: `tasks` has the task of each path, `take` makes whoever serves an exchange."""

    def __init__(
        self,
        tasks: Mapping[str, str],
        take: Callable[[Exchange, str], Taker],
        extra_headers: Callable[[Exchange], Headers] | None = None,
    ) -> None:
        self.by_path = dict(tasks)
        self.by_raw_path = {path.encode("ascii"): task for path, task in tasks.items()}
        self.take = take
        self.extra_headers = extra_headers
        """Headers that an answer to this request has besides its own."""


def protocol(door: Door) -> type[HttpToolsProtocol]:
    """The class of connections behind this door, for uvicorn's configuration."""
    return type("Connection", (Connection,), {"door": door})


class Connection(HttpToolsProtocol):
    """One connection."""

    door = Door({}, lambda exchange, task: NOBODY)

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._head_bytes = 0
        self._in_head = True
        self._exchange: Exchange | None = None
        """The request read last, if it is one of a task."""
        self._serving: Exchange | None = None
        self._halted: Exchange | None = None
        # One timer for a connection, which is only moved when it rings too early: most requests need none.
        self._phase: Literal["", "head", "body", "idle"] = ""
        self._due = 0.0
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0.0

    # -- from the transport ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first head is due."""
        super().connection_made(transport)
        self._expect("head", HEAD_SECONDS)
        self._arm()

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
        self._arm_if_due()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._phase = ""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._halted = None
        super().connection_lost(exc)
        serving, self._serving = self._serving, None
        if serving is not None:
            serving.disconnected = True
            serving.taker.lost()

    def resume_writing(self) -> None:
        """The client reads again: what it asked for meanwhile begins."""
        super().resume_writing()
        halted, self._halted = self._halted, None
        if halted is not None:
            self.flow.resume_reading()
            self._begin(halted)
            self._arm_if_due()

    # -- from the parser ---------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_head = True
        self._exchange = None
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        if self._phase != "head":
            self._expect("head", HEAD_SECONDS)

    def on_headers_complete(self) -> None:
        """The head has ended: a task's request takes the short way, any other uvicorn's."""
        self._in_head = False
        self._head_bytes = 0
        self._phase = ""
        if self.parser.get_method() == b"POST":
            path, _, query = self.url.partition(b"?")
            task = self.door.by_raw_path.get(path)
            if task is None or b"#" in query:
                task, query = self._spelled_otherwise()
            if task is not None:
                self._take(task, query)
                return
        url, headers, expected = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.headers, self.expect_100_continue = url, headers, expected
        self.scope["headers"] = headers
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Some of a body."""
        if self._exchange is None:
            super().on_body(body)
        else:
            self._exchange.feed(body)

    def on_message_complete(self) -> None:
        """The end of a body."""
        if self._exchange is None:
            super().on_message_complete()
        else:
            if self._phase == "body":
                self._phase = ""
            self._exchange.end()

    # -- exchanges ---------------------------------------------------------------------------------------------

    def _spelled_otherwise(self) -> tuple[str | None, bytes]:
        """The task and the query of a URL that is not simply a path, such as one with a host or an escape."""
        url = httptools.parse_url(self.url)
        return self.door.by_path.get(urllib.parse.unquote(url.path.decode("ascii"))), url.query or b""

    def _take(self, task: str, query: bytes) -> None:
        keep_alive = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        exchange = Exchange(self, query, self.headers, keep_alive, self.expect_100_continue)
        exchange.body_seconds = HEAD_SECONDS
        exchange.taker = self.door.take(exchange, task)
        former: Any = self.cycle
        self._exchange = exchange
        self.cycle = exchange  # type: ignore[assignment]
        if former is None or former.response_complete:
            self._begin(exchange)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, self.app))  # type: ignore[arg-type]

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """Begin what waited in the pipeline."""
        if isinstance(cycle, Exchange):
            self._begin(cycle)
            self._arm_if_due()
        else:
            super()._start_asgi_task(cycle, app)

    def _begin(self, exchange: Exchange) -> None:
        if self.flow.write_paused:
            # Whoever does not read the answers gets no more of them.
            self._halted = exchange
            self.flow.pause_reading()
            return
        self._serving = exchange
        exchange.start()
        if not exchange.ended and not exchange.response_complete:
            self._expect("body", exchange.body_seconds)

    def respond(self, exchange: Exchange, status: int, headers: Headers, body: bytes) -> None:
        """Write a response, and go on to what comes next on this connection."""
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
            self.transport.close()
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._phase != "head":
            # Also for the rest of a body that was refused before it came.
            self._expect("idle", self.timeout_keep_alive)
            self._arm()

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that could not be parsed, in the one shape of all errors, and close."""
        # uvicorn's own words for a parser's error are replaced: they say less.
        text = msg if msg.startswith("the ") else "this is not a valid HTTP request"
        error = {"error": text, "code": "bad_request", "request_id": new_id()}
        body = msgspec.json.encode(error)
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
            f"x-request-id: {error['request_id']}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + body)
        self.transport.close()

    # -- what is waited for ------------------------------------------------------------------------------------

    def _expect(self, phase: Literal["head", "body", "idle"], seconds: float) -> None:
        self._phase = phase
        self._due = self.loop.time() + seconds

    def _arm_if_due(self) -> None:
        if self._phase:
            self._arm()

    def _arm(self) -> None:
        """Have the alarm ring no later than what is waited for is due."""
        if self._alarm is not None:
            if self._alarm_at <= self._due:
                return
            self._alarm.cancel()
        self._alarm_at = self._due
        self._alarm = self.loop.call_later(max(0.0, self._due - self.loop.time()), self._ring)

    def _ring(self) -> None:
        self._alarm = None
        if not self._phase:
            return
        if self.loop.time() < self._due:
            self._arm()
        elif self._phase == "body":
            self._phase = ""
            if self._serving is not None:
                self._serving.taker.late()
        elif not self.transport.is_closing():
            self.transport.close()
