"""The protocol over HTTP: its paths, but for inferences, which take the short way (`call.py`).

Whatever succeeds is answered 200 and nothing else; whatever fails has `error` in its body, as everywhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from starlette.requests import ClientDisconnect

from service.config import Limits
from service.dispatcher.catalogue import Entry
from service.errors import Refusal
from service.gateway import answers, body, routes
from service.gateway.handler import request_id
from service.gateway.kserve import infer, metadata, repository, status
from service.gateway.serving import Gateway

_encoder = msgspec.json.Encoder()

Endpoint = Callable[[Gateway, Request], Awaitable[Response]]


def add_to(app: FastAPI) -> None:
    """Have the application serve the protocol."""
    for method, path, endpoint in (
        ("GET", "/v2", _server),
        ("GET", "/v2/", _server),
        ("GET", "/v2/health/live", _live),
        ("GET", "/v2/health/ready", _ready),
        ("GET", "/v2/models", _models),
        ("GET", "/v2/models/stats", _statistics),
        ("POST", "/v2/repository/index", _index),
        ("POST", "/v2/repository/models/{model}/load", _load),
        ("POST", "/v2/repository/models/{model}/unload", _unload),
    ):
        _add(app, method, path, endpoint)
    for prefix in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        _add(app, "GET", prefix, _model)
        _add(app, "GET", f"{prefix}/ready", _model_ready)
        _add(app, "GET", f"{prefix}/config", _config)
        _add(app, "GET", f"{prefix}/stats", _statistics)
        app.add_route(f"{prefix}/infer", routes.passed_by, methods=["POST"], include_in_schema=False)


def _add(app: FastAPI, method: str, path: str, endpoint: Endpoint) -> None:
    async def spoken(request: Request) -> Response:
        gateway: Gateway = request.app.state.gateway
        try:
            return await endpoint(gateway, request)
        except Refusal as refusal:
            gateway.metrics.refused(refusal.code)
            return _refused(gateway, refusal, request_id(request.headers.get("x-request-id")))

    # Not in the OpenAPI document: the protocol has one of its own.
    app.add_route(path, spoken, methods=[method], include_in_schema=False)


def _refused(gateway: Gateway, refusal: Refusal, given: str) -> Response:
    """An error in the one shape of all, with the status that the operator chose for clients of this protocol."""
    response = answers.error(refusal, given)
    response.status_code = status.of(gateway.config, refusal)
    return response


# --- questions -------------------------------------------------------------------------------------------------


def _told(what: Any) -> Response:
    return Response(_encoder.encode(what), media_type="application/json")


def _entry(gateway: Gateway, request: Request) -> Entry:
    return infer.find(gateway, request.path_params["model"], request.path_params.get("version", ""))


async def _server(gateway: Gateway, request: Request) -> Response:
    return _told(metadata.server())


async def _live(gateway: Gateway, request: Request) -> Response:
    return _told({"live": True})


async def _ready(gateway: Gateway, request: Request) -> Response:
    state = gateway.state()
    if state != "ready":
        raise Refusal("unavailable", f"the server is not ready: {state}", retry_after=1.0)
    return _told({"ready": True})


async def _models(gateway: Gateway, request: Request) -> Response:
    return _told({"models": list(gateway.catalogue.models)})


async def _model(gateway: Gateway, request: Request) -> Response:
    return _told(metadata.model(gateway, _entry(gateway, request)))


async def _model_ready(gateway: Gateway, request: Request) -> Response:
    entry = _entry(gateway, request)
    if not metadata.ready(gateway, entry):
        raise Refusal("unavailable", "the model is not ready", retry_after=1.0)
    return _told({"name": entry.manifest.name, "ready": True})


async def _config(gateway: Gateway, request: Request) -> Response:
    return _told(metadata.config(gateway, _entry(gateway, request)))


async def _statistics(gateway: Gateway, request: Request) -> Response:
    path = request.path_params
    entries = metadata.asked(gateway, path.get("model", ""), path.get("version", ""))
    counted = await gateway.ledger.statistics()
    return _told({"model_stats": [metadata.statistics(counted, entry) for entry in entries]})


# --- the repository --------------------------------------------------------------------------------------------


async def _index(gateway: Gateway, request: Request) -> Response:
    asked = await _small(gateway, request)
    return _told(await repository.index(gateway, ready_only=asked.get("ready") is True))


async def _load(gateway: Gateway, request: Request) -> Response:
    asked = await _small(gateway, request)
    await repository.load(gateway, request.path_params["model"], bool(asked.get("parameters")))
    return Response(b"{}", media_type="application/json")


async def _unload(gateway: Gateway, request: Request) -> Response:
    await _small(gateway, request)
    await repository.unload(gateway, request.path_params["model"])
    return Response(b"{}", media_type="application/json")


async def _small(gateway: Gateway, request: Request) -> dict[str, Any]:
    """A body that is a JSON object, or nothing. Raises Refusal."""
    share = gateway.budget.share()
    try:
        raw = await _body(request, gateway.config.limits, share)
        return msgspec.json.decode(raw, type=dict[str, Any]) if raw.strip() else {}
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise Refusal("bad_request", "the body must be a JSON object") from None
    finally:
        share.release()


async def _body(request: Request, limits: Limits, share: body.Share) -> bytes | bytearray:
    """The whole body, within its limits. Raises Refusal."""
    body.check_head(request.headers.get("content-length"), None, limits)
    upload = body.Upload(None, limits, share)
    try:
        async with asyncio.timeout(limits.upload_seconds):
            async for chunk in request.stream():
                upload.add(chunk)
    except TimeoutError:
        raise Refusal("slow_upload", f"the body did not arrive within {limits.upload_seconds:g} seconds") from None
    except ClientDisconnect:
        raise Refusal("client_closed_request", "the client closed the connection") from None
    return upload.whole()
