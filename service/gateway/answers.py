"""What a client reads: results, errors and timings as JSON, in the shapes of shapes.py."""

from __future__ import annotations

import base64
import math
from typing import Any

import msgspec
from fastapi import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from models.manifest import Manifest
from service.dispatcher.tickets import Outcome
from service.errors import Refusal
from service.gateway.exchange import Headers
from service.wire.messages.results import Classification, Detections, Result, TokenMap

_CLOSING = ("body_too_large", "slow_upload")
"""After these the rest of the body is not worth waiting for."""


def answer(
    request_id: str, manifest: Manifest, backend: str, outcome: Outcome, seconds: float, batch: bool = False
) -> dict[str, Any]:
    """One image's part of an answer: its result, or its error; with `batch` also what became of it on the way."""
    level = outcome.level
    if outcome.refusal or outcome.result is None or level is None:
        refusal = outcome.refusal or Refusal("internal", "the result was lost")
        return _error(refusal, request_id)
    explain: dict[str, Any] = {"batch": _batch(outcome)} if batch else {}
    if outcome.tokens:
        explain["tokens"] = {**_tokens(outcome.tokens), "box": outcome.box}
    explained = {"explain": explain} if explain else {}
    return {
        "request_id": request_id,
        "model": manifest.name,
        "version": manifest.version,
        "task": manifest.task,
        "level": level.spelled,
        "tokens": level.tokens,
        "gmacs": round(level.gmacs, 4),
        "backend": backend,
        **_result(manifest.labels, outcome.result),
        **explained,
        "timing_ms": {
            "decode": milliseconds(outcome.decode),
            "queue": milliseconds(outcome.queue),
            "infer": milliseconds(outcome.infer),
            "post": milliseconds(outcome.post),
            "total": milliseconds(seconds),
        },
    }


def milliseconds(seconds: float) -> float:
    """As answers and log lines have times."""
    return round(seconds * 1000, 3)


def course(outcome: Outcome) -> dict[str, Any]:
    """What became of one image, for its log line: how long it waited for what, and why its batch closed."""
    return {
        "upload_ms": milliseconds(outcome.upload),
        "decoder_wait_ms": milliseconds(outcome.decoder_wait),
        "decode_ms": milliseconds(outcome.decode),
        "queue_ms": milliseconds(outcome.queue),
        "infer_ms": milliseconds(outcome.infer),
        "batch": outcome.batch,
        "closed": outcome.closed,
        "wide": outcome.wide,
    }


def _batch(outcome: Outcome) -> dict[str, Any]:
    return {
        "items": outcome.batch,
        "closed": outcome.closed,
        "waited_ms": {
            "body": milliseconds(outcome.upload),
            "decoder": milliseconds(outcome.decoder_wait),
            "worker": milliseconds(outcome.queue),
        },
    }


def server_timing(outcome: Outcome, seconds: float) -> bytes:
    """The `Server-Timing` header of an answer (its first image)."""
    return b"decode;dur=%.2f, queue;dur=%.2f, infer;dur=%.2f, post;dur=%.2f, total;dur=%.2f" % (
        outcome.decode * 1000,
        outcome.queue * 1000,
        outcome.infer * 1000,
        outcome.post * 1000,
        seconds * 1000,
    )


def _result(labels: list[str], result: Result) -> dict[str, Any]:
    """The task's own part of an answer, with labels for indices."""
    if isinstance(result, Classification):
        classes = result.predictions
        return {"predictions": [{"label": labels[p.index], "index": p.index, "score": p.score} for p in classes]}
    if isinstance(result, Detections):
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


def _tokens(tokens: TokenMap) -> dict[str, Any]:
    return {"grid": tokens.grid, "groups": {"format": "rle", "runs": tokens.runs}, "sizes": tokens.sizes}


def _error(refusal: Refusal, request_id: str) -> dict[str, Any]:
    return {"error": refusal.message, "code": refusal.code, "request_id": request_id}


def error_body(refusal: Refusal, request_id: str) -> bytes:
    """The one shape of every error."""
    return msgspec.json.encode(_error(refusal, request_id))


def error_headers(refusal: Refusal) -> Headers:
    """What an error's headers say besides its type and the request's id."""
    headers: Headers = []
    if refusal.retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(refusal.retry_after))))
    if refusal.code in _CLOSING:
        headers.append((b"connection", b"close"))
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    return headers


def closing(refusal: Refusal, request_id: str) -> bytes:
    """An error as a whole response to what was not understood; the connection closes after it."""
    body = error_body(refusal, request_id)
    headers = [field for field in error_headers(refusal) if field[0] != b"connection"]
    headers += [
        (b"content-type", b"application/json"),
        (b"connection", b"close"),
        (b"x-request-id", request_id.encode()),
    ]
    parts = [STATUS_LINE[refusal.status]]
    for name, value in headers:
        parts += (name, b": ", value, b"\r\n")
    return b"".join([*parts, b"content-length: %d\r\n\r\n" % len(body), body])


def error(refusal: Refusal, request_id: str) -> Response:
    """An error as a response of the application."""
    response = Response(error_body(refusal, request_id), status_code=refusal.status, media_type="application/json")
    response.headers["X-Request-Id"] = request_id
    for name, value in error_headers(refusal):
        response.headers[name.decode("ascii")] = value.decode("ascii")
    return response
