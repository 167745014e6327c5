"""What a client reads: results, errors and timings as JSON, in the shapes of schemas.py."""

from __future__ import annotations

import base64
import math
from typing import Any

import msgspec
from fastapi import Response

from models.manifest import Manifest
from service.core.levels import Level
from service.errors import Refusal
from service.gateway.engine import Outcome
from service.wire import messages

_CLOSING = ("body_too_large", "slow_upload")
"""After these the rest of the body is not worth waiting for."""


def answer(
    request_id: str, manifest: Manifest, level: Level, backend: str, outcome: Outcome, seconds: float
) -> dict[str, Any]:
    """One image's part of an answer: its result, or its error."""
    if outcome.refusal or outcome.result is None:
        refusal = outcome.refusal or Refusal("internal", "the result was lost")
        return _error(refusal, request_id)
    explained = {"explain": {"tokens": _tokens(outcome.tokens)}} if outcome.tokens else {}
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
        "timing_ms": {name: round(value * 1000, 3) for name, value in _timing(outcome, seconds).items()},
    }


def _timing(outcome: Outcome, seconds: float) -> dict[str, float]:
    return {
        "decode": outcome.decode,
        "queue": outcome.queue,
        "infer": outcome.infer,
        "post": outcome.post,
        "total": seconds,
    }


def server_timing(outcome: Outcome, seconds: float) -> str:
    """The `Server-Timing` header of an answer (its first image)."""
    return ", ".join(f"{name};dur={value * 1000:.2f}" for name, value in _timing(outcome, seconds).items())


def _result(labels: list[str], result: messages.Result) -> dict[str, Any]:
    """The task's own part of an answer, with labels for indices."""
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


def _tokens(tokens: messages.TokenMap) -> dict[str, Any]:
    return {"grid": tokens.grid, "groups": {"format": "rle", "runs": tokens.runs}, "sizes": tokens.sizes}


def _error(refusal: Refusal, request_id: str) -> dict[str, Any]:
    return {"error": refusal.message, "code": refusal.code, "request_id": request_id}


def error(refusal: Refusal, request_id: str) -> Response:
    """The one shape of every error."""
    content = msgspec.json.encode(_error(refusal, request_id))
    response = Response(content, status_code=refusal.status, media_type="application/json")
    response.headers["X-Request-Id"] = request_id
    if refusal.retry_after is not None:
        response.headers["Retry-After"] = str(max(1, math.ceil(refusal.retry_after)))
    if refusal.code in _CLOSING:
        response.headers["Connection"] = "close"
    return response
