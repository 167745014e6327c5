"""The course of one HTTP request of a task.

Options, model and lane; admission, before the body is read; the body; the engine; the answer, one log line, the
metrics.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from dataclasses import dataclass, field
from typing import Any

import msgspec
from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from service import log
from service.config import Config
from service.core.drain import Drain
from service.core.levels import Level
from service.core.queue import PRIORITIES
from service.errors import Refusal
from service.gateway import answers, body, schemas
from service.gateway.catalogue import Catalogue, Entry
from service.gateway.engine import Ask, Engine, Outcome, Ticket
from service.gateway.schemas import CommonOptions
from service.metrics import Metrics
from service.wire import messages

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(slots=True)
class Gateway:
    """What the routes work with; lives in the application's state."""

    config: Config
    catalogue: Catalogue
    engine: Engine
    metrics: Metrics
    budget: body.Budget
    drain: Drain = field(default_factory=Drain)

    def leaving(self) -> bool:
        """The service is shutting down."""
        return self.drain.phase(self.engine.clock()) != "serving"


@dataclass(slots=True)
class Call:
    """One HTTP request of a task, as far as it has come."""

    gateway: Gateway
    request: Request
    task: str
    started: float
    request_id: str
    asked: str = "none"
    entry: Entry | None = None
    level: Level | None = None
    sizes: list[int] = field(default_factory=list)

    @property
    def model(self) -> str:
        """For logs and metrics: a known model's name, or `none`."""
        return self.entry.manifest.name if self.entry else "none"

    @property
    def level_label(self) -> str:
        """For metrics: the level's label, or `none`."""
        return self.level.label if self.level else "none"


def request_id(request: Request) -> str:
    """The client's `X-Request-Id` if it is well formed, else a new one."""
    given = request.headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


async def handle(request: Request, task: str) -> Response:
    """Answer one request of a task."""
    gateway: Gateway = request.app.state.gateway
    call = Call(gateway, request, task, gateway.engine.clock(), request_id(request))
    try:
        ask = _ask(call)
        outcomes = await _outcomes(call, ask)
    except Refusal as refusal:
        return _refused(call, refusal)
    except Exception as error:
        log.event("bug", severity="error", request_id=call.request_id, trace=log.frames(error))
        return _refused(call, Refusal("internal", "an internal error; the operator can find it by the request id"))
    if len(outcomes) == 1 and outcomes[0].refusal:
        return _refused(call, outcomes[0].refusal, outcomes[0])
    return _answered(call, ask, outcomes)


def _ask(call: Call) -> Ask:
    gateway, request = call.gateway, call.request
    limits = gateway.config.limits
    options = schemas.parse_options(call.task, request.query_params, request.headers)
    entry = gateway.catalogue.pick(options.model, call.task)
    level = entry.level(options.level, options.min_level)
    if options.explain and not entry.explains:
        raise Refusal("bad_option", "explain=tokens: this model merges no tokens")
    call.entry, call.level, call.asked = entry, level, entry.asked_label(options.level)
    body.check_head(request, limits)
    timeout = min(options.timeout_ms or limits.default_timeout_ms, limits.max_timeout_ms) / 1000
    return Ask(entry, level, call.started + timeout, PRIORITIES[options.priority], _result_options(options))


def _result_options(options: CommonOptions) -> messages.Options:
    given = options.model_dump(include=set(messages.Options.__struct_fields__))
    return messages.Options(**given)


async def _outcomes(call: Call, ask: Ask) -> list[Outcome]:
    """Admit, read the body, submit; one outcome per image, in order. However this ends, no ticket is left behind."""
    gateway, engine = call.gateway, call.gateway.engine
    tickets = [engine.admit(ask)]
    watch: asyncio.Future[Any] | None = None
    try:
        with gateway.budget.share() as share:
            seconds = max(0.0, ask.deadline - engine.clock())
            images = await body.read(call.request, gateway.config.limits, share, seconds)
            call.sizes = [len(image) for image in images]
            for _ in images[1:]:
                tickets.append(engine.admit(ask))
            watch = asyncio.ensure_future(call.request.receive())
            watch.add_done_callback(lambda task: None if task.cancelled() else _cancel(engine, tickets))
            submitted = [engine.submit(ticket, image) for ticket, image in zip(tickets, images, strict=True)]
            if len(submitted) == 1:
                return [await submitted[0]]
            return list(await asyncio.gather(*submitted))
    except ClientDisconnect:
        raise Refusal("client_closed_request", "the client closed the connection") from None
    finally:
        if watch is not None:
            watch.cancel()
        _cancel(engine, tickets)


def _cancel(engine: Engine, tickets: list[Ticket]) -> None:
    """Drop what is not answered yet; nothing happens to what is."""
    for ticket in tickets:
        if not ticket.done.done():
            engine.cancel(ticket)


def _answered(call: Call, ask: Ask, outcomes: list[Outcome]) -> Response:
    gateway = call.gateway
    seconds = gateway.engine.clock() - call.started
    for outcome in outcomes:
        if outcome.refusal is None:
            gateway.metrics.stages(outcome.decode, outcome.queue, outcome.infer, outcome.post)
            gateway.metrics.served(call.model, call.level_label, call.asked)
        else:
            gateway.metrics.refused(outcome.refusal.code)
    _finish(call, 200, "ok", seconds, outcomes)
    backend = gateway.catalogue.backend(call.model)
    described = ask.entry.manifest
    given = [answers.answer(call.request_id, described, ask.level, backend, one, seconds) for one in outcomes]
    content = msgspec.json.encode(given[0] if len(given) == 1 else given)
    response = Response(content, media_type="application/json")
    response.headers["X-Squint-Level"] = ask.level.spelled
    response.headers["Server-Timing"] = answers.server_timing(outcomes[0], seconds)
    return _common(call, response)


def _refused(call: Call, refusal: Refusal, outcome: Outcome | None = None) -> Response:
    gateway = call.gateway
    gateway.metrics.refused(refusal.code)
    seconds = gateway.engine.clock() - call.started
    _finish(call, refusal.status, refusal.code, seconds, [outcome] if outcome else [])
    return _common(call, answers.error(refusal, call.request_id))


def _common(call: Call, response: Response) -> Response:
    response.headers["X-Request-Id"] = call.request_id
    if call.gateway.leaving():
        response.headers["Connection"] = "close"
    return response


def _finish(call: Call, status: int, outcome: str, seconds: float, outcomes: list[Outcome]) -> None:
    call.gateway.metrics.request(call.task, call.model, call.level_label, outcome, seconds)
    fields: dict[str, Any] = {"level": "none"}
    if call.level:
        fields = {"level": call.level.spelled, "tokens": call.level.tokens, "gmacs": call.level.gmacs}
    if outcomes:
        first = outcomes[0]
        fields |= {
            "decode_ms": round(first.decode * 1000, 3),
            "queue_ms": round(first.queue * 1000, 3),
            "infer_ms": round(first.infer * 1000, 3),
            "batch": first.batch,
            "closed": first.closed,
        }
    log.event(
        "request",
        request_id=call.request_id,
        task=call.task,
        model=call.model,
        status=status,
        outcome=outcome,
        images=len(call.sizes),
        bytes=sum(call.sizes),
        total_ms=round(seconds * 1000, 3),
        **fields,
    )
