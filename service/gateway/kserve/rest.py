"""The protocol over HTTP: its paths, and the way of one inference through them.

Whatever succeeds is answered 200 and nothing else; whatever fails has `error` in its body, as everywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from starlette.requests import ClientDisconnect

from service.config import Limits
from service.errors import Refusal
from service.gateway import answers, body, schemas
from service.gateway.catalogue import Entry
from service.gateway.engine import Image, Outcome
from service.gateway.handler import request_id
from service.gateway.kserve import infer, message, metadata, packing, repository, status
from service.gateway.serving import Gateway, Serving, Speech

HEADER_LENGTH = "inference-header-content-length"
_LARGE = 1 << 20
"""Bytes of JSON from which it is read in a thread: the event loop would stand still."""
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
        _add(app, "POST", f"{prefix}/infer", _infer)
        # Looked for first: routes are tried in turn.
        app.router.routes.insert(0, app.router.routes.pop())


def _add(app: FastAPI, method: str, path: str, endpoint: Endpoint) -> None:
    async def spoken(request: Request) -> Response:
        gateway: Gateway = request.app.state.gateway
        try:
            return await endpoint(gateway, request)
        except Refusal as refusal:
            gateway.metrics.refused(refusal.code)
            return refused(gateway, refusal, request_id(request.headers.get("x-request-id")))

    # Not in the OpenAPI document: the protocol has one of its own.
    app.add_route(path, spoken, methods=[method], include_in_schema=False)


def refused(gateway: Gateway, refusal: Refusal, given: str) -> Response:
    """An error in the one shape of all, with the status that the operator chose for clients of this protocol."""
    response = answers.error(refusal, given)
    if gateway.config.triton_status_codes:
        response.status_code = status.triton(refusal)
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
    return _told({"model_stats": [metadata.statistics(gateway, entry) for entry in entries]})


# --- the repository --------------------------------------------------------------------------------------------


async def _index(gateway: Gateway, request: Request) -> Response:
    asked = await _small(gateway, request)
    return _told(repository.index(gateway, ready_only=asked.get("ready") is True))


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


# --- inference -------------------------------------------------------------------------------------------------


async def _infer(gateway: Gateway, request: Request) -> Response:
    """The one path that costs something."""
    entry = infer.chosen(gateway, request.path_params["model"], request.path_params.get("version", ""))
    with begun(gateway, request, entry, "kserve-http") as (serving, share):
        try:
            read = await _read(request, gateway.config.limits, share)
            options = schemas.from_headers(serving.task, request.headers) | dict(request.query_params)
            answer = await infer.run(gateway, serving, entry, read.asked, waiting(request), options)
            return await _written(gateway, request, serving, read, answer)
        except Refusal as refusal:
            serving.refused(refusal)
            return refused(gateway, refusal, serving.request_id)


@contextlib.contextmanager
def begun(gateway: Gateway, request: Request, entry: Entry, protocol: Speech) -> Iterator[tuple[Serving, body.Share]]:
    """A request for this model, and its share of the memory for bodies. However it ends, both end with it."""
    client = request.scope.get("state", {}).get("client", "")
    given = request_id(request.headers.get("x-request-id"))
    serving = Serving(gateway, entry.manifest.task, protocol, given, client)
    serving.hold(entry)
    serving.traceparent = request.headers.get("traceparent")
    share = gateway.budget.share()
    try:
        yield serving, share
    except asyncio.CancelledError:
        serving.refused(Refusal("client_closed_request", "the request was dropped"))
        raise
    except Exception:
        serving.refused(Refusal("internal", "an internal error"))
        raise
    finally:
        share.release()


async def _read(request: Request, limits: Limits, share: body.Share) -> message.Read:
    """The request, unpacked. Raises Refusal."""
    headers = request.headers
    length = headers.get(HEADER_LENGTH)
    if length is not None and not (length.isascii() and length.isdigit() and len(length) <= 12):
        raise Refusal("bad_request", "Inference-Header-Content-Length is a number of bytes")
    alone = length is None and headers.get("content-type", "").startswith("image/")
    raw = await _body(request, limits, share)
    encoding = headers.get("content-encoding", "").strip().lower()
    json_bytes = 0 if alone else None if length is None else int(length)
    aside = asyncio.get_running_loop().run_in_executor
    if encoding not in ("", "identity"):
        # However short it is, it may become long.
        raw = await aside(None, packing.unpacked, raw, encoding, limits.body_bytes)
        share.cover(len(raw))
    if len(raw) > _LARGE and (json_bytes is None or json_bytes > _LARGE):
        return await aside(None, message.read, raw, json_bytes, limits)
    read = message.read(raw, json_bytes, limits)
    # Whoever sends an image as an image, and not by the protocol's own rule for that, is told in JSON.
    return msgspec.structs.replace(read, binary=False) if alone else read


async def _body(request: Request, limits: Limits, share: body.Share) -> bytes:
    """The whole body, within its limits. Raises Refusal."""
    body.check_head(request.headers.get("content-length"), None, limits)
    chunks: list[bytes] = []
    size = 0

    def add(chunk: bytes) -> None:
        nonlocal size
        size += len(chunk)
        if size > limits.body_bytes:
            raise Refusal("body_too_large", f"the body is limited to {limits.body_bytes} bytes")
        share.cover(size)
        chunks.append(chunk)

    await receive(request, limits, add)
    return b"".join(chunks)


async def receive(request: Request, limits: Limits, add: Callable[[bytes], None]) -> None:
    """Hand over a body as it comes. Raises Refusal when it does not come, and what `add` raises."""
    try:
        async with asyncio.timeout(limits.upload_seconds):
            async for chunk in request.stream():
                add(chunk)
    except TimeoutError:
        raise Refusal("slow_upload", f"the body did not arrive within {limits.upload_seconds:g} seconds") from None
    except ClientDisconnect:
        raise Refusal("client_closed_request", "the client closed the connection") from None


def waiting(request: Request) -> Callable[[Serving, Sequence[Image]], Awaitable[list[Outcome]]]:
    """Hand in the images and wait; when the client goes away meanwhile, they are dropped wherever they are."""

    async def wait(serving: Serving, images: Sequence[Image]) -> list[Outcome]:
        finished: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
        serving.submit(images, finished.set_result)

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            serving.cancel()

        watching = asyncio.ensure_future(watch())
        try:
            return await finished
        finally:
            watching.cancel()

    return wait


async def _written(
    gateway: Gateway, request: Request, serving: Serving, read: message.Read, answer: infer.Answer
) -> Response:
    content, json_bytes = message.written(answer, read)
    headers = {
        "X-Request-Id": serving.request_id,
        "X-Squint-Level": answer.parameters["level"],
        "Server-Timing": answers.server_timing(answer.first, answer.seconds).decode("ascii"),
        **({"traceparent": serving.trace} if serving.trace else {}),
    }
    kind = "application/json"
    if json_bytes is not None:
        kind = "application/octet-stream"
        headers["Inference-Header-Content-Length"] = str(json_bytes)
    encoding = packing.accepted(request.headers.get("accept-encoding"))
    if encoding and len(content) >= packing.LEAST_BYTES:
        if len(content) > _LARGE:
            content = await asyncio.get_running_loop().run_in_executor(None, packing.packed, content, encoding)
        else:
            content = packing.packed(content, encoding)
        headers["Content-Encoding"] = encoding
    if gateway.leaving():
        headers["Connection"] = "close"
    return Response(content, headers=headers, media_type=kind)
