"""The course of one HTTP request of a task.

Options, model and lane; admission, before the body is read; the body; the engine; the answer, one log line, the
metrics. Each step is a plain call: from the connection as its bytes come, or from the engine when an image is done.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import Any

import msgspec

from service import log
from service.config import Config
from service.core.drain import Drain
from service.core.levels import Choice, Level
from service.core.queue import PRIORITIES
from service.errors import Refusal
from service.gateway import answers, body, schemas
from service.gateway.catalogue import Catalogue, Entry
from service.gateway.engine import Ask, Engine, Outcome, Ticket
from service.gateway.exchange import Exchange, Headers, new_id
from service.metrics import Metrics

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_encoder = msgspec.json.Encoder()


@dataclass(slots=True)
class Gateway:
    """What requests are served with; lives in the application's state."""

    config: Config
    catalogue: Catalogue
    engine: Engine
    metrics: Metrics
    budget: body.Budget
    drain: Drain = field(default_factory=Drain)

    def leaving(self) -> bool:
        """The service is shutting down."""
        return self.drain.phase(self.engine.clock()) != "serving"

    def take(self, exchange: Exchange, task: str) -> Call:
        """Serve one request of a task."""
        return Call(self, exchange, task)


def request_id(given: str | None) -> str:
    """The client's `X-Request-Id` if it is well formed, else a new one."""
    return given if given and _REQUEST_ID.fullmatch(given) else new_id()


class Call:
    """One HTTP request of a task. However it ends, it is answered once and no ticket is left behind."""

    __slots__ = (
        "_ask",
        "_exchange",
        "_gateway",
        "_open",
        "_share",
        "_task",
        "_tickets",
        "_upload",
        "_waiting",
        "asked",
        "entry",
        "explain",
        "level",
        "request_id",
        "sizes",
        "started",
    )

    def __init__(self, gateway: Gateway, exchange: Exchange, task: str) -> None:
        self._gateway = gateway
        self._exchange = exchange
        self._task = task
        self._ask: Ask | None = None
        self._share = gateway.budget.share()
        self._upload: body.Upload | None = None
        self._tickets: list[Ticket] = []
        self._waiting = 0
        """Images handed in and not answered."""
        self._open = True
        self.started = gateway.engine.clock()
        self.request_id = request_id(exchange.header(b"x-request-id"))
        self.asked = "none"
        self.explain = False
        """The answer tells about its batch."""
        self.entry: Entry | None = None
        self.level: Level | Choice | None = None
        self.sizes: list[int] = []

    # -- from the connection -----------------------------------------------------------------------------------

    def begin(self) -> None:
        """The head is here: admit or refuse."""
        gateway, exchange = self._gateway, self._exchange
        try:
            self._ask = ask = self._understand()
            self._tickets.append(gateway.engine.admit(ask))
            self._upload = body.Upload(exchange.header(b"content-type"), gateway.config.limits, self._share)
            left = max(0.0, ask.deadline - gateway.engine.clock())
            exchange.body_seconds = min(gateway.config.limits.upload_seconds, left)
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
            self._submit(upload.images())
        except Exception as error:
            self._fail(error)

    def late(self) -> None:
        """The body did not come in time."""
        limit = self._gateway.config.limits.upload_seconds
        if self._exchange.body_seconds < limit:
            self._refuse(Refusal("deadline_exceeded", "the body did not arrive before the deadline"))
        else:
            self._refuse(Refusal("slow_upload", f"the body did not arrive within {limit:g} seconds"))

    def lost(self) -> None:
        """The client left: drop what is not answered yet. The engine then answers what it has, with that reason."""
        if self._waiting:
            self._cancel()
        else:
            self._refuse(Refusal("client_closed_request", "the client closed the connection"))

    # -- inside ------------------------------------------------------------------------------------------------

    def _understand(self) -> Ask:
        gateway, exchange = self._gateway, self._exchange
        limits = gateway.config.limits
        options, result_options = schemas.options(self._task, exchange.query, exchange.headers)
        entry = gateway.catalogue.pick(options.model, self._task)
        level = entry.level(options.level, options.min_level)
        if options.explain == "tokens" and not entry.explains:
            raise Refusal("bad_option", "explain=tokens: this model merges no tokens")
        if not entry.explains:
            result_options = msgspec.structs.replace(result_options, explain=None)
        self.entry, self.level, self.asked = entry, level, entry.asked_label(options.level)
        self.explain = options.explain in ("batch", "all")
        body.check_head(exchange.header(b"content-length"), exchange.header(b"content-encoding"), limits)
        timeout = min(options.timeout_ms or limits.default_timeout_ms, limits.max_timeout_ms) / 1000
        client = exchange.client[0] if exchange.client else ""
        return Ask(entry, level, self.started + timeout, PRIORITIES[options.priority], result_options, client)

    def _read(self, reading: asyncio.Future[list[body.Image]]) -> None:
        """A large body has been read in a thread."""
        try:
            images = reading.result()
            if self._open:
                self._submit(images)
        except Exception as error:
            self._fail(error)

    def _submit(self, images: list[body.Image]) -> None:
        engine = self._gateway.engine
        self.sizes = [len(image) for image in images]
        if self._ask is None:
            raise RuntimeError("a body without a head")
        for _ in images[1:]:
            self._tickets.append(engine.admit(self._ask))
        self._waiting = len(images)
        for ticket, image in zip(self._tickets, images, strict=True):
            engine.submit(ticket, image)
        for ticket in self._tickets:
            ticket.done.add_done_callback(self._done)

    def _done(self, done: asyncio.Future[None]) -> None:
        """One image is answered."""
        self._waiting -= 1
        if self._waiting or not self._open:
            return
        try:
            outcomes = [ticket.outcome for ticket in self._tickets]
            if len(outcomes) == 1 and outcomes[0].refusal:
                self._refuse(outcomes[0].refusal, outcomes[0])
            else:
                self._answer(outcomes)
        except Exception as error:
            self._fail(error)

    def _cancel(self) -> None:
        """Drop what is not answered yet; nothing happens to what is."""
        for ticket in self._tickets:
            if not ticket.done.done():
                self._gateway.engine.cancel(ticket)

    def _end(self) -> None:
        self._open = False
        self._upload = None
        self._cancel()
        self._share.release()

    # -- answers -----------------------------------------------------------------------------------------------

    def _answer(self, outcomes: list[Outcome]) -> None:
        gateway, ask = self._gateway, self._ask
        if ask is None or self.entry is None:
            raise RuntimeError("an answer to nothing")
        self._end()
        seconds = gateway.engine.clock() - self.started
        model = ask.entry.manifest
        for outcome in outcomes:
            if outcome.refusal is None and outcome.level is not None:
                gateway.metrics.stages(outcome.decode, outcome.queue, outcome.infer, outcome.post)
                gateway.metrics.served(model.name, outcome.level.label, self.asked)
            elif outcome.refusal is not None:
                gateway.metrics.refused(outcome.refusal.code)
        self._finish(200, "ok", seconds, outcomes)
        backend = gateway.catalogue.backend(model.name)
        given = [answers.answer(self.request_id, model, backend, one, seconds, self.explain) for one in outcomes]
        headers = [
            (b"x-squint-level", (outcomes[0].level or ask.level).spelled.encode("ascii")),
            (b"server-timing", answers.server_timing(outcomes[0], seconds)),
        ]
        self._send(200, headers, _encoder.encode(given[0] if len(given) == 1 else given))

    def _refuse(self, refusal: Refusal, outcome: Outcome | None = None) -> None:
        if not self._open:
            return
        self._end()
        gateway = self._gateway
        gateway.metrics.refused(refusal.code)
        seconds = gateway.engine.clock() - self.started
        self._finish(refusal.status, refusal.code, seconds, [outcome] if outcome else [])
        self._send(refusal.status, answers.error_headers(refusal), answers.error_body(refusal, self.request_id))

    def _fail(self, error: Exception) -> None:
        """A refusal, or a bug of ours: the operator gets the trace, the client only a code."""
        if isinstance(error, Refusal):
            # One that comes after the end, from a body read in a thread, has nobody to tell.
            self._refuse(error)
            return
        log.event("bug", severity="error", request_id=self.request_id, trace=log.frames(error))
        told = Refusal("internal", "an internal error; the operator can find it by the request id")
        if self._open:
            self._refuse(told)
        elif not self._exchange.response_complete:
            self._send(told.status, answers.error_headers(told), answers.error_body(told, self.request_id))

    def _send(self, status: int, headers: Headers, content: bytes) -> None:
        headers.append((b"x-request-id", self.request_id.encode("ascii")))
        headers.append((b"content-type", b"application/json"))
        if self._gateway.leaving():
            headers.append((b"connection", b"close"))
        self._exchange.answer(status, headers, content)

    def _finish(self, status: int, outcome: str, seconds: float, outcomes: list[Outcome]) -> None:
        """Count it, and write its log line."""
        level = next((one.level for one in outcomes if one.level), self.level)
        model = self.entry.manifest.name if self.entry else "none"
        self._gateway.metrics.request(self._task, model, level.label if level else "none", outcome, seconds)
        fields: dict[str, Any] = {"level": level.spelled if level else "none"}
        if isinstance(level, Level):
            fields |= {"tokens": level.tokens, "gmacs": level.gmacs}
        if outcomes:
            fields |= answers.course(outcomes[0])
        log.event(
            "request",
            request_id=self.request_id,
            task=self._task,
            model=model,
            status=status,
            outcome=outcome,
            images=len(self.sizes),
            bytes=sum(self.sizes),
            total_ms=round(seconds * 1000, 3),
            **fields,
        )
