"""The course of one HTTP request that ends in the engine: of a task, or of another protocol's inference.

Options, model and level; admission, before the body is read; the body; the engine; the answer. Each step is a plain
call: from the connection as its bytes come, or from the engine when an image is done.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from service import log
from service.dispatcher.catalogue import Entry
from service.dispatcher.tickets import Image, Outcome
from service.errors import Refusal, bug
from service.gateway import answers, body, schemas
from service.gateway.exchange import Exchange, Headers, new_id
from service.gateway.serving import Gateway, Serving, Speech

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_encoder = msgspec.json.Encoder()
AHEAD = 1 << 17
"""Bytes of a body that are taken before it is known whether it is admitted; the system takes as many from a client
before anybody asks for them. Most bodies are no longer, and then that costs them no time."""
_Found = TypeVar("_Found")


def request_id(given: str | None) -> str:
    """The client's `X-Request-Id` if it is well formed, else a new one."""
    return given if given and _REQUEST_ID.fullmatch(given) else new_id()


class Call:
    """One HTTP request of a task. However it ends, it is answered once.

    What other protocols do differently they say in `_enter`, `_read`, `_answer` and `_status`.
    """

    __slots__ = ("_exchange", "_gateway", "_paused", "_serving", "_share", "_upload")

    def __init__(self, gateway: Gateway, exchange: Exchange, task: str, protocol: Speech = "http") -> None:
        self._gateway = gateway
        self._exchange = exchange
        self._share = gateway.budget.share()
        self._upload: body.Upload | None = None
        self._paused = False
        """No more of the body is read before it is known whether it is admitted."""
        self._serving = Serving(gateway, task, protocol, request_id(exchange.header(b"x-request-id")))

    # -- from the connection -----------------------------------------------------------------------------------

    def begin(self) -> None:
        """The head is here: admit or refuse."""
        exchange, serving = self._exchange, self._serving
        try:
            peer = exchange.client[0] if exchange.client else ""
            keys = exchange.header(b"authorization"), exchange.header(b"x-api-key")
            serving.client = self._gateway.guard.identify(*keys, peer)
            serving.traceparent = exchange.header(b"traceparent")
            self._enter()
            if serving.undecided:
                serving.decided = self._decided
            else:
                exchange.send_on()
        except Exception as error:
            self._fail(error)

    def chunk(self, data: bytes) -> None:
        """Some of the body."""
        if self._upload is not None:
            try:
                self._upload.add(data)
                if self._serving.undecided and self._share.held > AHEAD and not self._paused:
                    self._paused = True
                    self._exchange.pause()
            except Exception as error:
                self._fail(error)

    def complete(self) -> None:
        """The body is whole: its images go to the engine."""
        upload, self._upload = self._upload, None
        if upload is not None:
            try:
                self._read(upload)
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

    def _decided(self, refusal: Refusal | None) -> None:
        """It is known now."""
        if self._paused:
            self._paused = False
            self._exchange.resume()
        if refusal is None:
            self._exchange.send_on()
        else:
            self._refuse(refusal)

    def _enter(self) -> None:
        """Choose model and options, and be ready for the body. Raises Refusal."""
        exchange, serving, limits = self._exchange, self._serving, self._gateway.config.limits
        entry = self._entry()
        serving.understand(*schemas.options(serving.task, exchange.query, exchange.headers), entry=entry)
        body.check_head(exchange.header(b"content-length"), exchange.header(b"content-encoding"), limits)
        serving.admit()
        self._upload = body.Upload(exchange.header(b"content-type"), limits, self._share)
        exchange.body_seconds = min(limits.upload_seconds, serving.left)

    def _entry(self) -> Entry | None:
        """The model where the path says which, else None. Raises Refusal."""
        return None

    def _read(self, upload: body.Upload) -> None:
        """Hand in the images of a body that is whole. Raises Refusal."""
        if upload.slow:
            self._aside(self._submit, upload.images)
        else:
            self._submit(upload.images())

    def _submit(self, images: Sequence[Image]) -> None:
        self._serving.submit(images, self._done)

    def _aside(self, then: Callable[[_Found], None], work: Callable[..., _Found], *given: object) -> None:
        """Have it worked out in a thread, since the event loop would stand still, and go on with what is found, unless
        the request has ended meanwhile."""

        def worked(working: asyncio.Future[_Found]) -> None:
            try:
                found = working.result()
                if self._serving.unanswered:
                    then(found)
            except Exception as error:
                self._fail(error)

        asyncio.get_running_loop().run_in_executor(None, work, *given).add_done_callback(worked)

    def _done(self, outcomes: list[Outcome]) -> None:
        """Every image is answered."""
        try:
            self._answer(outcomes)
        except Exception as error:
            self._fail(error, outcomes)

    # -- answers -----------------------------------------------------------------------------------------------

    def _answer(self, outcomes: list[Outcome]) -> None:
        """Answer with what became of the images. Raises Refusal."""
        serving = self._serving
        if len(outcomes) == 1 and outcomes[0].refusal:
            self._refuse(outcomes[0].refusal, outcomes)
            return
        self._share.release()
        seconds = serving.answered(outcomes)
        model = serving.ask.entry.manifest
        backend = serving.ask.entry.backend
        given = [answers.answer(serving.request_id, model, backend, one, seconds, serving.explain) for one in outcomes]
        level = (outcomes[0].level or serving.ask.level).spelled
        content = _encoder.encode(given[0] if len(given) == 1 else given)
        self._send(200, self._told(level, outcomes[0], seconds), content)

    def _told(self, level: str, outcome: Outcome, seconds: float) -> Headers:
        """What an answer's headers say of how it came about; `outcome` is that of its first image."""
        return [
            (b"x-squint-level", level.encode("ascii")),
            (b"server-timing", answers.server_timing(outcome, seconds)),
        ]

    def _status(self, refusal: Refusal) -> int:
        """The status of a refusal."""
        return refusal.status

    def _refuse(self, refusal: Refusal, outcomes: Sequence[Outcome] = ()) -> None:
        if not self._serving.refused(refusal, outcomes):
            return
        self._upload = None
        self._share.release()
        content = answers.error_body(refusal, self._serving.request_id)
        self._send(self._status(refusal), answers.error_headers(refusal), content)

    def _fail(self, error: Exception, outcomes: Sequence[Outcome] = ()) -> None:
        """A refusal, or a bug of ours: the operator gets the trace, the client only a code."""
        if isinstance(error, Refusal):
            # One that comes after the end, from a body read in a thread, has nobody to tell.
            self._refuse(error, outcomes)
            return
        log.event("bug", severity="error", request_id=self._serving.request_id, trace=log.frames(error))
        told = bug()
        if self._serving.unanswered:
            self._refuse(told, outcomes)
        elif not self._exchange.response_complete:
            content = answers.error_body(told, self._serving.request_id)
            self._send(told.status, answers.error_headers(told), content)

    def _send(self, status: int, headers: Headers, content: bytes, kind: bytes = b"application/json") -> None:
        headers.append((b"x-request-id", self._serving.request_id.encode("ascii")))
        headers.append((b"content-type", kind))
        if self._serving.trace:
            headers.append((b"traceparent", self._serving.trace.encode("ascii")))
        if self._gateway.leaving():
            headers.append((b"connection", b"close"))
        self._exchange.answer(status, headers, content)
