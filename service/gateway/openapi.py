"""The OpenAPI document: what FastAPI cannot know by itself of bodies, headers, errors and keys.

It is written for programs as much as for people: every field is described and bounded, every error a call can answer is
listed with its code, and every operation has a name that a generator can make a function of.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from service.errors import STATUS
from service.gateway import schemas, shapes

Responses = dict[int | str, dict[str, Any]]

ABOUT = """Classify, detect and segment images. An answer always says which model, level and backend served it and
where its time went. Every error has the same shape: a sentence, a code, and the request's id."""

MEANING: dict[str, str] = {
    "bad_request": "the request is not well formed",
    "bad_option": "threshold must be a number from 0 to 1",
    "unknown_level": "unknown level; this model has full, balanced, fast",
    "unauthorized": "an API key is needed",
    "unknown_model": "no model of that name; see /v1/models",
    "unknown_version": "no such version is served; there is 2, 1",
    "slow_upload": "the body did not arrive within 30 seconds",
    "body_too_large": "the body is limited to 20000000 bytes",
    "image_too_large": "the image has more pixels than allowed",
    "unsupported_media_type": "not a JPEG, PNG or WebP image",
    "undecodable_image": "the image is damaged",
    "unprocessable_image": "the model failed on this image",
    "overloaded": "too much is waiting",
    "rate_limited": "this client asks more often than it may",
    "internal": "an internal error; the operator can find it by the request id",
    "starting": "models are still being loaded",
    "model_loading": "the model is being loaded, since it was asked for",
    "unavailable": "a part of the service is being restarted",
    "deadline_exceeded": "the deadline passed before the answer was there",
}
"""Codes that the document tells of, each with a message as one may read it."""
SAID: dict[int, str] = {
    400: "The request or one of its options is wrong; the message says what is accepted.",
    401: "The service asks for an API key, and none or no valid one came.",
    404: "There is no such model, or none for this task.",
    408: "The body did not arrive in time.",
    413: "The body or the image is larger than allowed.",
    415: "Not a JPEG, PNG or WebP image, or no form of body that is known.",
    422: "The image is damaged, or the model fails on it alone.",
    429: "Too much is waiting, or this client asks too often: come back later.",
    500: "A fault of the service.",
    503: "Not ready, or leaving: come back later.",
    504: "The deadline passed.",
}
OF_TASKS = tuple(MEANING)
OF_LISTS = ("bad_request", "unauthorized", "overloaded", "rate_limited", "internal")
PUBLIC = ("/livez", "/startupz", "/readyz")
"""What is answered without a key, whatever the operator sets."""

_ID = {
    "description": "The request's id: the client's own if it sent one, else a new one.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 64, "examples": ["5f0c2a6e9d1b4c7f"]},
}
_RETRY_AFTER = {
    "description": "Seconds after which coming back makes sense.",
    "schema": {"type": "integer", "minimum": 1, "maximum": 3600, "examples": [1]},
}
_OF_ANSWERS = {
    "X-Request-Id": _ID,
    "X-Squint-Level": {
        "description": "The level that was served; that of the first of several images.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 200, "examples": ["full"]},
    },
    "Server-Timing": {
        "description": "Milliseconds in each stage, as browsers show them; those of the first of several images.",
        "schema": {
            "type": "string",
            "maxLength": 200,
            "examples": ["decode;dur=1.10, queue;dur=0.40, infer;dur=6.20, post;dur=0.10, total;dur=8.30"],
        },
    },
}
_OF_REQUESTS: list[dict[str, Any]] = [
    {
        "name": "X-Request-Id",
        "in": "header",
        "required": False,
        "description": "An id of your own for this request: letters, digits, `.`, `_` and `-`.",
        "schema": {
            "type": "string",
            "minLength": 1,
            "maxLength": 64,
            "pattern": "^[A-Za-z0-9._-]+$",
            "examples": ["order-17"],
        },
    },
    {
        "name": "X-Request-Timeout-Ms",
        "in": "header",
        "required": False,
        "description": "As `timeout_ms`, which wins over it.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 3_600_000, "examples": [2000]},
    },
]
_SECURITY = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "`Authorization: Bearer KEY`, where the operator asks for keys.",
    },
    "apiKey": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "`X-API-Key: KEY`, where the operator asks for keys.",
    },
}
_TAGS = [
    {"name": "tasks", "description": "Images in, results out."},
    {"name": "models", "description": "What is served."},
    {"name": "health", "description": "For orchestrators, monitoring, and whoever is new here."},
]


def errors(codes: Iterable[str]) -> Responses:
    """The responses of a call that may answer these errors."""
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(STATUS[code], []).append(code)
    return {status: _error(status, of_it) for status, of_it in sorted(by_status.items())}


def _error(status: int, codes: list[str]) -> dict[str, Any]:
    headers = {"X-Request-Id": _ID, **({"Retry-After": _RETRY_AFTER} if status in (429, 503) else {})}
    examples = {
        code: {"summary": code, "value": {"error": MEANING[code], "code": code, "request_id": "5f0c2a6e9d1b4c7f"}}
        for code in codes
    }
    content = {"application/json": {"examples": examples}}
    return {"model": shapes.Error, "description": SAID[status], "headers": headers, "content": content}


def task_responses() -> Responses:
    """Every response of a task."""
    good = {
        "description": "The result; for several images the results and errors of all, in their order.",
        "headers": _OF_ANSWERS,
    }
    return {200: good, **errors(OF_TASKS)}


def task_request(task: str) -> dict[str, Any]:
    """Options and body of a task's request."""
    return {"parameters": schemas.parameters(task) + _OF_REQUESTS, "requestBody": _body()}


def _body() -> dict[str, Any]:
    image = {
        "type": "string",
        "format": "binary",
        "maxLength": 1_000_000_000,
        "description": "A JPEG, PNG or WebP file; 20 MB at most unless the operator set another limit.",
    }
    several = {
        "type": "array",
        "minItems": 1,
        "maxItems": shapes.MAX_IMAGES,
        "items": image,
        "description": "One image or several; 16 at most unless the operator set another limit.",
    }
    one = {
        "type": "string",
        "format": "byte",
        "maxLength": 1_340_000_000,
        "description": "The image in base64.",
        "examples": ["/9j/4AAQSkZJRgABAQ=="],
    }
    form = {
        "type": "object",
        "description": "Parts called `image` (or `file`).",
        "properties": {"image": several},
        "required": ["image"],
    }
    encoded = {
        "type": "object",
        "description": "An image inside JSON.",
        "properties": {"image": one},
        "required": ["image"],
        "additionalProperties": False,
    }
    content: dict[str, Any] = {
        kind: {"schema": image} for kind in ("image/jpeg", "image/png", "image/webp", "application/octet-stream")
    }
    content |= {"multipart/form-data": {"schema": form}, "application/json": {"schema": encoded}}
    return {"required": True, "description": "The image, recognised by its content.", "content": content}


def states(ok: str, *others: str) -> Responses:
    """The responses of a health check."""
    found: Responses = {200: _state("Yes.", [ok])}
    if others:
        found[503] = _state("No.", list(others))
        found[503]["headers"] = {"Retry-After": _RETRY_AFTER}
    return found


def _state(words: str, values: list[str]) -> dict[str, Any]:
    examples = {value: {"summary": value, "value": {"status": value}} for value in values}
    return {"model": shapes.State, "description": words, "content": {"application/json": {"examples": examples}}}


def text(words: str, example: str) -> Responses:
    """A response of plain text."""
    schema = {"type": "string", "maxLength": 10_000_000, "description": words, "examples": [example]}
    return {200: {"description": words, "content": {"text/plain": {"schema": schema}}}}


def document(app: FastAPI) -> dict[str, Any]:
    """The application's OpenAPI document, made once."""
    if app.openapi_schema is None:
        app.openapi_schema = _finished(
            get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                tags=_TAGS,
                servers=[{"url": "/", "description": "This service."}],
                license_info={"name": "Apache License 2.0", "identifier": "Apache-2.0"},
            )
        )
    return app.openapi_schema


def _finished(made: dict[str, Any]) -> dict[str, Any]:
    components = made.setdefault("components", {})
    components["securitySchemes"] = _SECURITY
    # FastAPI's own errors, which this service never sends.
    for name in ("HTTPValidationError", "ValidationError"):
        components.get("schemas", {}).pop(name, None)
    made["paths"].get("/", {}).get("get", {}).update(_root())
    for path, operations in made["paths"].items():
        for operation in operations.values():
            answered = operation.get("responses", {})
            if "HTTPValidationError" in str(answered.get("422")):
                del answered["422"]
            # The last one, without a scheme, says that a key is needed only where the operator asks for one.
            operation["security"] = [] if path in PUBLIC else [{"bearer": []}, {"apiKey": []}, {}]
    return made


def _root() -> dict[str, Any]:
    """What stands at the root, whoever serves it: links, and for browsers a page where there is one."""
    page = {"type": "string", "maxLength": 1_000_000, "description": "A page, where the operator left it on."}
    content = {"application/json": {"schema": shapes.Links.model_json_schema()}, "text/html": {"schema": page}}
    good = {"description": "Links for programs, a page for browsers.", "content": content}
    return {"operationId": "root", "tags": ["health"], "responses": {"200": good}}


def described(kind: type[BaseModel], words: str, codes: Iterable[str]) -> Responses:
    """The responses of a call that answers one kind of thing."""
    return {200: {"model": kind, "description": words}, **errors(codes)}
