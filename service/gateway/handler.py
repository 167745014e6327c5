"""The course of one HTTP request of a task.

Options, model and level; admission, before the body is read; the body; the engine; the answer. Each step is a plain
call: from the connection as its bytes come, or from the engine when an image is done.
"""

from __future__ import annotations

import asyncio
import re

import msgspec

from service import log
from service.errors import Refusal
from service.gateway import answers, body, schemas
from service.gateway.engine import Outcome
from service.gateway.exchange import Exchange, Headers, new_id
from service.gateway.serving import Gateway, Serving

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_encoder = msgspec.json.Encoder()


def request_id(given: str | None) -> str:
    """The client's `X-Request-Id` if it is well formed, else a new one."""
    return given if given and _REQUEST_ID.fullmatch(given) else new_id()


class Call:
    """One HTTP request of a task. However it ends, it is answered once."""

    __slots__ = ("_exchange", "_gateway", "_serving", "_share", "_upload")

    def __init__(self, gateway: Gateway, exchange: Exchange, task: str) -> None:
        self._gateway = gateway
        self._exchange = exchange
        self._share = gateway.budget.share()
        self._upload: body.Upload | None = None
        self._serving = Serving(gateway, task, "http", request_id(exchange.header(b"x-request-id")))

    # -- from the connection -----------------------------------------------------------------------------------

    def begin(self) -> None:
        """The head is here: admit or refuse."""
        exchange, serving, limits = self._exchange, self._serving, self._gateway.config.limits
        try:
            peer = exchange.client[0] if exchange.client else ""
            keys = exchange.header(b"authorization"), exchange.header(b"x-api-key")
            serving.client = self._gateway.guard.identify(*keys, peer)
            serving.traceparent = exchange.header(b"traceparent")
            serving.understand(*schemas.options(serving.task, exchange.query, exchange.headers))
            body.check_head(exchange.header(b"content-length"), exchange.header(b"content-encoding"), limits)
            serving.admit()
            self._upload = body.Upload(exchange.header(b"content-type"), limits, self._share)
            exchange.body_seconds = min(limits.upload_seconds, serving.left)
            exchange.send_on()
        except Exception as error:
            self._fail(error)

    def chunk(self, data: bytes) -> None:
        """Some of the body."""
        if self._upload is not None:
            try:
                self._upload.add(data)
            except Exception as error:
                self._fail(error)

    def complete(self) -> None:
        """The body is whole: its images go to the engine."""
        upload, self._upload = self._upload, None
        if upload is None:
            return
        if upload.slow:
            reading = asyncio.get_running_loop().run_in_executor(None, upload.images)
            reading.add_done_callback(self._read)
            return
        try:
            self._serving.submit(upload.images(), self._done)
        except Exception as error:
            self._fail(error)

    def late(self, slow: bool) -> None:
        """The body did not come in time, or comes too slowly."""
        limit = self._gateway.config.limits.upload_seconds
        if slow:
            self._refuse(Refusal("slow_upload", "the body came too slowly"))
        elif self._exchange.body_seconds < limit:
            self._refuse(Refusal("deadline_exceeded", "the body did not arrive before the deadline"))
        else:
            self._refuse(Refusal("slow_upload", f"the body did not arrive within {limit:g} seconds"))

    def lost(self) -> None:
        """The client left: drop what is not answered yet. The engine then answers what it has, with that reason."""
        if self._serving.waiting:
            self._serving.cancel()
        else:
            self._refuse(Refusal("client_closed_request", "the client closed the connection"))

    # -- inside ------------------------------------------------------------------------------------------------

    def _read(self, reading: asyncio.Future[list[body.Image]]) -> None:
        """A large body has been read in a thread."""
        try:
            images = reading.result()
            if self._serving.unanswered:
                self._serving.submit(images, self._done)
        except Exception as error:
            self._fail(error)

    def _done(self, outcomes: list[Outcome]) -> None:
        """Every image is answered."""
        try:
            if len(outcomes) == 1 and outcomes[0].refusal:
                self._refuse(outcomes[0].refusal, outcomes[0])
            else:
                self._answer(outcomes)
        except Exception as error:
            self._fail(error)

    # -- answers -----------------------------------------------------------------------------------------------

    def _answer(self, outcomes: list[Outcome]) -> None:
        serving = self._serving
        self._share.release()
        seconds = serving.answered(outcomes)
        model = serving.ask.entry.manifest
        backend = serving.ask.entry.backend
        given = [answers.answer(serving.request_id, model, backend, one, seconds, serving.explain) for one in outcomes]
        headers = [
            (b"x-squint-level", (outcomes[0].level or serving.ask.level).spelled.encode("ascii")),
            (b"server-timing", answers.server_timing(outcomes[0], seconds)),
        ]
        self._send(200, headers, _encoder.encode(given[0] if len(given) == 1 else given))

    def _refuse(self, refusal: Refusal, outcome: Outcome | None = None) -> None:
        if not self._serving.refused(refusal, [outcome] if outcome else []):
            return
        self._upload = None
        self._share.release()
        content = answers.error_body(refusal, self._serving.request_id)
        self._send(refusal.status, answers.error_headers(refusal), content)

    def _fail(self, error: Exception) -> None:
        """A refusal, or a bug of ours: the operator gets the trace, the client only a code."""
        if isinstance(error, Refusal):
            # One that comes after the end, from a body read in a thread, has nobody to tell.
            self._refuse(error)
            return
        log.event("bug", severity="error", request_id=self._serving.request_id, trace=log.frames(error))
        told = Refusal("internal", "an internal error; the operator can find it by the request id")
        if self._serving.unanswered:
            self._refuse(told)
        elif not self._exchange.response_complete:
            content = answers.error_body(told, self._serving.request_id)
            self._send(told.status, answers.error_headers(told), content)

    def _send(self, status: int, headers: Headers, content: bytes) -> None:
        headers.append((b"x-request-id", self._serving.request_id.encode("ascii")))
        headers.append((b"content-type", b"application/json"))
        if self._serving.trace:
            headers.append((b"traceparent", self._serving.trace.encode("ascii")))
        if self._gateway.leaving():
            headers.append((b"connection", b"close"))
        self._exchange.answer(status, headers, content)
