"""The endpoints: the three tasks, and what can be asked about the models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Request, Response

from service.dispatcher.catalogue import Entry
from service.errors import Refusal
from service.gateway import openapi, schemas, shapes
from service.gateway.serving import Gateway

PREFIXES = ("", "/v1")
TASK_PATHS = {f"{prefix}/{task}": task for prefix in PREFIXES for task in schemas.OPTIONS}
"""Requests to these paths are answered by `handler.Call` and do not come to the application."""

router = APIRouter()
_NAME = Annotated[
    str, Path(min_length=1, max_length=64, description="The model's name.", examples=["toyscape-classify"])
]


async def passed_by(request: Request) -> Response:
    """In the place of what is served before the application, which knows the paths so that it refuses other
    methods."""
    raise RuntimeError("a request that takes the short way came to the application")


def _add_task(task: str, summary: str, description: str) -> None:
    """Have the application know the endpoint: for the OpenAPI document, and to refuse its other methods."""

    for prefix, shown in zip(PREFIXES, (True, False), strict=True):
        router.add_api_route(
            f"{prefix}/{task}",
            passed_by,
            methods=["POST"],
            summary=summary,
            name=task,
            response_model=shapes.ANSWERS[task],
            responses=openapi.task_responses(),
            openapi_extra=openapi.task_request(task),
            description=description,
            tags=["tasks"],
            include_in_schema=shown,
        )


_add_task(
    "classify",
    "Name the main thing in an image",
    "The image is resized and its middle is looked at. Several images in one form are answered as a list.",
)
_add_task(
    "detect",
    "Find the things in an image and where they are",
    "All of the image is looked at; boxes are in its own pixels. Several images in one form are answered as a list.",
)
_add_task(
    "segment",
    "Say for every pixel what it shows",
    "The mask has the size of the image as displayed. Several images in one form are answered as a list.",
)


@router.get(
    "/v1/models",
    summary="All models",
    tags=["models"],
    responses=openapi.described(shapes.ModelList, "Every model that is served.", openapi.OF_LISTS),
)
async def list_models(request: Request) -> Response:
    """Every model with its task, levels and backend."""
    gateway: Gateway = request.app.state.gateway
    entries: Mapping[str, Entry] = gateway.catalogue.entries
    return Response(
        msgspec.json.encode({"models": [_describe(gateway, entry) for entry in entries.values()]}),
        media_type="application/json",
    )


@router.get(
    "/v1/models/{name}",
    summary="One model",
    tags=["models"],
    responses=openapi.described(shapes.ModelDescription, "The model.", (*openapi.OF_LISTS, "unknown_model")),
)
async def show_model(request: Request, name: _NAME) -> Response:
    """One model in full."""
    gateway: Gateway = request.app.state.gateway
    entry = gateway.catalogue.entries.get(name)
    if entry is None:
        raise Refusal("unknown_model", "no model of that name; see /v1/models")
    return Response(msgspec.json.encode(_describe(gateway, entry)), media_type="application/json")


def _describe(gateway: Gateway, entry: Entry) -> dict[str, Any]:
    manifest = entry.manifest
    served = gateway.catalogue.models[manifest.name]
    offered = {level.spelled for level in entry.offered}
    levels = [
        {**msgspec.to_builtins(level), "merges_tokens": level.name in entry.merging}
        for level in manifest.levels
        if level.name in offered
    ]
    return {
        "name": manifest.name,
        "version": manifest.version,
        "versions": sorted(served.versions, key=int),
        "shares": {one.manifest.version: served.share(one) for one in served.versions.values()},
        "task": manifest.task,
        "licence": manifest.licence,
        "backend": entry.loaded.backend if entry.loaded else "",
        "default_level": entry.default_level,
        "levels": levels,
        "explicit_levels": entry.grammar or None,
        "merges_tokens": entry.explains,
        "labels": manifest.labels,
        "input": manifest.transform,
        "evaluation": manifest.evaluation,
    }
