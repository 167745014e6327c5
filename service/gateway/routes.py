"""The three tasks over HTTP, and what can be asked about the models.

The way of one request: options, model and lane; admission, before the body is read; the body; the engine; the
answer, one log line, the metrics.
"""

from __future__ import annotations

import asyncio
import base64
import math
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from models.manifest import Manifest
from service import log
from service.config import Config
from service.core.drain import Drain
from service.core.queue import PRIORITIES
from service.errors import Refusal
from service.gateway import body, schemas
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
    asked: str = ""
    entry: Entry | None = None
    level: str = "none"
    sizes: list[int] = field(default_factory=list)

    @property
    def model(self) -> str:
        """For logs and metrics: a known model's name, or `none`."""
        return self.entry.manifest.name if self.entry else "none"


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
    if len(outcomes) == 1 and outcomes[0].refusal:
        return _refused(call, outcomes[0].refusal, outcomes[0])
    return _answered(call, ask, outcomes)


def _ask(call: Call) -> Ask:
    gateway, request = call.gateway, call.request
    limits = gateway.config.limits
    options = schemas.parse_options(call.task, request.query_params, request.headers)
    entry = gateway.catalogue.pick(options.model, call.task)
    call.asked = options.level or "default"
    lane = entry.lane(options.level, options.min_level)
    call.entry, call.level = entry, lane.level
    body.check_head(request, limits)
    timeout = min(options.timeout_ms or limits.default_timeout_ms, limits.max_timeout_ms) / 1000
    return Ask(entry, lane, call.started + timeout, PRIORITIES[options.priority], _result_options(options))


def _result_options(options: CommonOptions) -> messages.Options:
    given = options.model_dump(include=set(messages.Options.__struct_fields__))
    return messages.Options(**given)


async def _outcomes(call: Call, ask: Ask) -> list[Outcome]:
    """Admit, read the body, submit; one outcome per image, in order."""
    gateway, engine = call.gateway, call.gateway.engine
    tickets = [engine.admit(ask)]
    with gateway.budget.share() as share:
        try:
            images = await body.read(call.request, gateway.config.limits, share)
            call.sizes = [len(image) for image in images]
            tickets += [engine.admit(ask) for _ in images[1:]]
        except ClientDisconnect:
            _cancel(engine, tickets)
            raise Refusal("client_closed_request", "the client closed the connection") from None
        except Refusal as refusal:
            for ticket in tickets:
                engine.refuse(ticket, refusal)
            raise
        watch = asyncio.ensure_future(call.request.receive())
        watch.add_done_callback(lambda task: None if task.cancelled() else _cancel(engine, tickets))
        try:
            submitted = [engine.submit(ticket, image) for ticket, image in zip(tickets, images, strict=True)]
            if len(submitted) == 1:
                return [await submitted[0]]
            return list(await asyncio.gather(*submitted))
        finally:
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
    answers = [_answer(call, outcome, seconds) for outcome in outcomes]
    for outcome in outcomes:
        if outcome.refusal is None:
            gateway.metrics.stages(outcome.decode, outcome.queue, outcome.infer, outcome.post)
            gateway.metrics.served(call.model, call.level, "custom" if call.asked not in _KNOWN else call.asked)
        else:
            gateway.metrics.refused(outcome.refusal.code)
    _finish(call, 200, "ok", seconds, outcomes)
    content = msgspec.json.encode(answers[0] if len(answers) == 1 else answers)
    response = Response(content, media_type="application/json")
    response.headers["X-Squint-Level"] = ask.lane.level
    first = outcomes[0]
    response.headers["Server-Timing"] = ", ".join(
        f"{name};dur={value * 1000:.2f}"
        for name, value in (
            ("decode", first.decode),
            ("queue", first.queue),
            ("infer", first.infer),
            ("post", first.post),
            ("total", seconds),
        )
    )
    return _common(call, response)


_KNOWN = {"default", "auto", "full", "high", "balanced", "fast"}


def _answer(call: Call, outcome: Outcome, seconds: float) -> dict[str, Any]:
    if call.entry is None or outcome.refusal or outcome.result is None:
        refusal = outcome.refusal or Refusal("internal", "the result was lost")
        return {"error": refusal.message, "code": refusal.code, "request_id": call.request_id}
    manifest = call.entry.manifest
    timing = {
        "decode": outcome.decode,
        "queue": outcome.queue,
        "infer": outcome.infer,
        "post": outcome.post,
        "total": seconds,
    }
    return {
        "request_id": call.request_id,
        "model": manifest.name,
        "version": manifest.version,
        "task": manifest.task,
        "level": call.level,
        "backend": call.gateway.catalogue.backend(manifest.name),
        **_predictions(manifest, outcome.result),
        "timing_ms": {name: round(value * 1000, 3) for name, value in timing.items()},
    }


def _predictions(manifest: Manifest, result: messages.Result) -> dict[str, Any]:
    """The task's own part of an answer, with labels for indices."""
    labels = manifest.labels
    if isinstance(result, messages.Classification):
        classes = result.predictions
        return {"predictions": [{"label": labels[p.index], "index": p.index, "score": p.score} for p in classes]}
    if isinstance(result, messages.Detections):
        return {
            "predictions": [
                {"label": labels[found.index], "index": found.index, "score": found.score, "box": found.box}
                for found in result.objects
            ]
        }
    mask: dict[str, Any] = {"format": result.format}
    if result.format == "png":
        mask["data"] = base64.b64encode(result.png).decode("ascii")
    elif result.format == "rle":
        mask["counts"] = result.rle
    segments = []
    for segment in result.segments:
        entry: dict[str, Any] = {"label": labels[segment.index], "index": segment.index, "area": segment.area}
        if result.format == "rle":
            entry["counts"] = segment.rle
        elif result.format == "polygons":
            entry["polygons"] = segment.polygons
        segments.append(entry)
    return {"size": result.size, "mask": mask, "segments": segments}


def _refused(call: Call, refusal: Refusal, outcome: Outcome | None = None) -> Response:
    gateway = call.gateway
    gateway.metrics.refused(refusal.code)
    seconds = gateway.engine.clock() - call.started
    _finish(call, refusal.status, refusal.code, seconds, [outcome] if outcome else [])
    return _common(call, error_response(refusal, call.request_id))


def error_response(refusal: Refusal, request_id: str) -> Response:
    """The one shape of every error."""
    content = {"error": refusal.message, "code": refusal.code, "request_id": request_id}
    response = Response(msgspec.json.encode(content), status_code=refusal.status, media_type="application/json")
    response.headers["X-Request-Id"] = request_id
    if refusal.retry_after is not None:
        response.headers["Retry-After"] = str(max(1, math.ceil(refusal.retry_after)))
    if refusal.code in ("body_too_large", "slow_upload"):
        response.headers["Connection"] = "close"
    return response


def _common(call: Call, response: Response) -> Response:
    response.headers["X-Request-Id"] = call.request_id
    if call.gateway.leaving():
        response.headers["Connection"] = "close"
    return response


def _finish(call: Call, status: int, outcome: str, seconds: float, outcomes: list[Outcome]) -> None:
    call.gateway.metrics.request(call.task, call.model, call.level, outcome, seconds)
    fields: dict[str, Any] = {}
    if outcomes:
        first = outcomes[0]
        fields = {
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
        level=call.level,
        status=status,
        outcome=outcome,
        images=len(call.sizes),
        bytes=sum(call.sizes),
        total_ms=round(seconds * 1000, 3),
        **fields,
    )


def _documented(task: str) -> dict[str, Any]:
    """What the OpenAPI document says of a task's endpoint."""
    binary = {"schema": {"type": "string", "format": "binary", "maxLength": 20_000_000}}
    many = {"type": "array", "maxItems": 16, "items": {"type": "string", "format": "binary", "maxLength": 20_000_000}}
    form = {"schema": {"type": "object", "properties": {"image": many}}}
    encoded = {"type": "string", "format": "byte", "maxLength": 27_000_000}
    json_body = {"schema": {"type": "object", "properties": {"image": encoded}, "required": ["image"]}}
    content = {
        "image/jpeg": binary,
        "image/png": binary,
        "image/webp": binary,
        "multipart/form-data": form,
        "application/json": json_body,
    }
    return {"parameters": schemas.parameters(task), "requestBody": {"required": True, "content": content}}


_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.Error} for status in (400, 404, 408, 413, 415, 422, 429, 500, 503, 504)
}

router = APIRouter()


def _add_task(task: str, summary: str) -> None:
    async def endpoint(request: Request) -> Response:
        return await handle(request, task)

    for prefix, shown in (("", True), ("/v1", False)):
        router.add_api_route(
            f"{prefix}/{task}",
            endpoint,
            methods=["POST"],
            summary=summary,
            name=task,
            response_model=schemas.ANSWERS[task],
            responses=_ERRORS,
            openapi_extra=_documented(task),
            include_in_schema=shown,
        )


_add_task("classify", "Name the main thing in an image")
_add_task("detect", "Find the things in an image and where they are")
_add_task("segment", "Say for every pixel what it shows")


@router.get("/v1/models", summary="All models")
async def list_models(request: Request) -> Response:
    """Every model with its task, levels and backend."""
    gateway: Gateway = request.app.state.gateway
    entries: Mapping[str, Entry] = gateway.catalogue.entries
    return Response(
        msgspec.json.encode({"models": [_describe(gateway, entry) for entry in entries.values()]}),
        media_type="application/json",
    )


@router.get("/v1/models/{name}", summary="One model", responses={404: {"model": schemas.Error}})
async def show_model(request: Request, name: schemas.Name) -> Response:
    """One model in full."""
    gateway: Gateway = request.app.state.gateway
    entry = gateway.catalogue.entries.get(name)
    if entry is None:
        raise Refusal("unknown_model", "no model of that name; see /v1/models")
    return Response(msgspec.json.encode(_describe(gateway, entry)), media_type="application/json")


def _describe(gateway: Gateway, entry: Entry) -> dict[str, Any]:
    manifest = entry.manifest
    return {
        "name": manifest.name,
        "version": manifest.version,
        "task": manifest.task,
        "licence": manifest.licence,
        "backend": gateway.catalogue.backend_detail(manifest.name),
        "default_level": entry.default_level,
        "levels": manifest.levels,
        "labels": manifest.labels,
        "input": manifest.transform,
        "evaluation": manifest.evaluation,
    }
