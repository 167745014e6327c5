"""The endpoints: the three tasks, and what can be asked about the models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from service.errors import Refusal
from service.gateway import schemas
from service.gateway.catalogue import Entry
from service.gateway.handler import Gateway


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

PREFIXES = ("", "/v1")
TASK_PATHS = {f"{prefix}/{task}": task for prefix in PREFIXES for task in schemas.OPTIONS}
"""Requests to these paths are answered by `Gateway.take` and do not come to the application."""

router = APIRouter()


def _add_task(task: str, summary: str) -> None:
    """Have the application know the endpoint: for the OpenAPI document, and to refuse its other methods."""

    async def endpoint() -> Response:
        raise RuntimeError("a task's request came to the application")

    for prefix, shown in zip(PREFIXES, (True, False), strict=True):
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
    offered = {level.spelled for level in entry.offered}
    return {
        "name": manifest.name,
        "version": manifest.version,
        "task": manifest.task,
        "licence": manifest.licence,
        "backend": gateway.catalogue.backend_detail(manifest.name),
        "default_level": entry.default_level,
        "levels": [level for level in manifest.levels if level.name in offered],
        "explicit_levels": entry.grammar or None,
        "labels": manifest.labels,
        "input": manifest.transform,
        "evaluation": manifest.evaluation,
    }
