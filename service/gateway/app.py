"""The FastAPI application: routers, and one shape for every error."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi_swagger import patch_fastapi
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from service import log
from service.errors import Refusal, bug
from service.gateway import admin, answers, health, openapi, playground, predictions, routes
from service.gateway.door import Door, Opening
from service.gateway.exchange import Exchange, Headers
from service.gateway.gate import Gate
from service.gateway.handler import Call, request_id
from service.gateway.kserve import call, rest
from service.gateway.reception import Room
from service.gateway.serving import Gateway
from service.gateway.tls import Clients
from service.version import VERSION

_EXPOSED = ("X-Request-Id", "X-Squint-Level", "Server-Timing", "Retry-After")


def door(gateway: Gateway, room: Room | None = None, clients: Clients | None = None) -> Door:
    """Where requests that end in the engine go in, among as many connections as there is `room` for, of `clients` with
    certificates if they are asked for."""
    return Door(
        {path: functools.partial(Call, gateway, task=task) for path, task in routes.TASK_PATHS.items()},
        functools.partial(_find, gateway),
        _cors_headers(gateway.config.cors_origins),
        limits=gateway.config.limits,
        room=room,
        clients=clients,
        refused=gateway.metrics.refused,
    )


def _find(gateway: Gateway, method: bytes, path: str) -> Opening | None:
    """Who serves a path with the name of a model in it, if it is one that ends in the engine."""
    return call.find(gateway, method, path) or predictions.find(gateway, method, path)


def _cors_headers(origins: Sequence[str]) -> Callable[[Exchange], Headers] | None:
    """What the CORS middleware of `create` adds to answers, for those that it does not see."""
    if not origins:
        return None
    exposed = (b"access-control-expose-headers", ", ".join(_EXPOSED).encode("ascii"))
    vary = (b"vary", b"Origin")
    everyone = "*" in origins

    def headers(exchange: Exchange) -> Headers:
        origin = exchange.header(b"origin")
        if origin is None:
            return [vary]
        if everyone:
            return [vary, exposed, (b"access-control-allow-origin", b"*")]
        if origin not in origins:
            return [vary, exposed]
        return [vary, exposed, (b"access-control-allow-origin", origin.encode("latin-1"))]

    return headers


def create(gateway: Gateway) -> FastAPI:
    """The application around one gateway: everything but the requests that end in the engine, which go in by the
    door."""
    # FastAPI's own page loads its script from elsewhere; here nothing comes from outside.
    app = FastAPI(
        title="Squint",
        version=VERSION,
        description=openapi.ABOUT,
        generate_unique_id_function=lambda route: route.name.strip("_"),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        swagger_ui_oauth2_redirect_url=None,
    )
    patch_fastapi(app, redirect_from_root_to_docs=False)
    _keep_assets(app)
    app.openapi = lambda: openapi.document(app)  # type: ignore[method-assign]
    app.state.gateway = gateway
    app.include_router(routes.router)
    app.include_router(health.router)
    rest.add_to(app)
    for path in predictions.PATHS:
        app.add_route(path, routes.passed_by, methods=list(predictions.METHODS), include_in_schema=False)
    admin.add_to(app)
    app.include_router(playground.router(not gateway.config.no_playground))
    app.add_exception_handler(Refusal, _on_refusal)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(Exception, _on_bug)
    app.add_middleware(Heads)
    # Inside of what answers browsers' preflight requests, which carry no key and reach nothing.
    app.add_middleware(Gate, gateway=gateway)
    if gateway.config.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(gateway.config.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=_EXPOSED,
        )
    return app


class Heads:
    """HEAD is answered wherever GET is, with the same head, which monitors ask for; the server leaves the body out."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; the server keeps a scope of its own, by which it knows the method that was sent."""
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)


def _keep_assets(app: FastAPI) -> None:
    """Have the scripts of /docs read once: megabytes of them for each client that takes its time would add up."""
    for route in [route for route in app.routes if getattr(route, "path", "").startswith("/swagger/")]:
        app.router.routes.remove(route)
        app.add_api_route(
            route.path,  # type: ignore[attr-defined]
            _once(route.endpoint),  # type: ignore[attr-defined]
            name=route.name,  # type: ignore[attr-defined]
            include_in_schema=False,
        )


def _once(endpoint: Callable[[], Awaitable[Response]]) -> Callable[[], Awaitable[Response]]:
    kept: list[Response] = []

    async def answer() -> Response:
        if not kept:
            kept.append(await endpoint())
        return kept[0]

    return answer


def _error(request: Request, refusal: Refusal) -> Response:
    gateway: Gateway = request.app.state.gateway
    gateway.metrics.refused(refusal.code)
    return answers.error(refusal, request_id(request.headers.get("x-request-id")))


async def _on_refusal(request: Request, error: Exception) -> Response:
    if not isinstance(error, Refusal):
        return await _on_bug(request, error)
    return _error(request, error)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 404:
        return _error(request, Refusal("not_found", "no such path; see /docs"))
    if status == 405:
        response = _error(request, Refusal("method_not_allowed", "this path does not take that method"))
        if isinstance(error, HTTPException) and error.headers:
            response.headers.update(error.headers)
        return response
    return _error(request, Refusal("bad_request", "the request is malformed"))


async def _on_invalid(request: Request, error: Exception) -> Response:
    return _error(request, Refusal("bad_request", "the request is malformed"))


async def _on_bug(request: Request, error: Exception) -> Response:
    """A bug of ours: the operator gets the trace, the client only a code."""
    given = request_id(request.headers.get("x-request-id"))
    log.event("bug", severity="error", request_id=given, path=request.url.path, trace=log.frames(error))
    gateway: Gateway = request.app.state.gateway
    gateway.metrics.refused("internal")
    return answers.error(bug(), given)
