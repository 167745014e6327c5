"""What an operator may do to the models while they are served: `/admin/...`. Who may call it is decided in gate.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response

from service.core import versions
from service.errors import Refusal
from service.gateway.serving import Gateway, Models
from service.settings import MODEL_SETTINGS

_SETTINGS = {setting.key: setting for setting in MODEL_SETTINGS if setting.key in ("versions", "canary")}
_NONE = "none"
"""For `canary`: all requests go to the stable version again."""


def add_to(app: FastAPI) -> None:
    """Have the application serve them."""
    for method, path, endpoint in (
        ("GET", "/admin/models", _index),
        ("POST", "/admin/reload", _reload),
        ("POST", "/admin/models/{name}/load", _load),
        ("POST", "/admin/models/{name}/unload", _unload),
        ("POST", "/admin/models/{name}/versions", _choose),
    ):
        # Not in the OpenAPI document, which is for clients.
        app.add_route(path, endpoint, methods=[method], include_in_schema=False)


def _repository(request: Request) -> Models:
    gateway: Gateway = request.app.state.gateway
    return gateway.repository


async def _told(repository: Models, name: str | None = None) -> Response:
    """The index, or its part about one model."""
    rows = [row for row in await repository.index() if name in (None, row.name)]
    told: dict[str, Any] = {"versions": rows}
    if name is not None:
        told |= dict(zip(("policy", "canary"), versions.spelled(await repository.policy(name)), strict=True))
    return Response(msgspec.json.encode(told), media_type="application/json")


async def _index(request: Request) -> Response:
    return await _told(_repository(request))


async def _reload(request: Request) -> Response:
    repository = _repository(request)
    repository.permit()
    await repository.reload()
    return await _told(repository)


async def _load(request: Request) -> Response:
    repository, name = _repository(request), request.path_params["name"]
    await repository.load(name)
    return await _told(repository, name)


async def _unload(request: Request) -> Response:
    repository, name = _repository(request), request.path_params["name"]
    await repository.unload(name)
    return await _told(repository, name)


async def _choose(request: Request) -> Response:
    """`versions` and `canary` in the query, each as in squint.toml; what is not given stays."""
    repository, name = _repository(request), request.path_params["name"]
    repository.permit()
    given = _parsed(request.query_params)
    listed, canary = versions.spelled(await repository.policy(name))
    canary = given.get("canary", canary or _NONE)
    wanted = versions.policy(given.get("versions", listed), None if canary == _NONE else canary)
    await repository.choose(name, wanted)
    return await _told(repository, name)


def _parsed(query: Mapping[str, str]) -> dict[str, str]:
    given: dict[str, str] = {}
    for key, text in query.items():
        setting = _SETTINGS.get(key)
        if setting is None:
            raise Refusal("bad_option", f"unknown option; this takes: {', '.join(_SETTINGS)}")
        try:
            given[key] = text if (key, text) == ("canary", _NONE) else setting.kind.parse(text)
        except ValueError:
            raise Refusal("bad_option", f"{key} must be {setting.kind.accepted}") from None
    if not given:
        raise Refusal("bad_option", f"nothing to change; this takes: {', '.join(_SETTINGS)}")
    return given
