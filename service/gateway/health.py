"""What an orchestrator asks: alive, started, ready; and the metrics."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from service.gateway import openapi
from service.gateway.serving import Gateway
from service.metrics import CONTENT_TYPE

router = APIRouter()


def _state(ok: bool, state: str) -> Response:
    response = Response(
        msgspec.json.encode({"status": state}), status_code=200 if ok else 503, media_type="application/json"
    )
    if not ok:
        response.headers["Retry-After"] = "1"
    return response


@router.get(
    "/livez", summary="Is the gateway's event loop turning?", tags=["health"], responses=openapi.states("alive")
)
async def livez() -> Response:
    """Answers as long as the gateway can answer anything."""
    return _state(True, "alive")


@router.get(
    "/startupz",
    summary="Has every model been loaded?",
    tags=["health"],
    responses=openapi.states("started", "starting"),
)
async def startupz(request: Request) -> Response:
    """503 until every model has been loaded once."""
    gateway: Gateway = request.app.state.gateway
    complete = gateway.catalogue.complete()
    return _state(complete, "started" if complete else "starting")


@router.get(
    "/readyz",
    summary="Would a request be answered now?",
    tags=["health"],
    responses=openapi.states("ready", "starting", "draining", "unavailable"),
)
async def readyz(request: Request) -> Response:
    """503 while starting, while no decoder or worker is there, and from the moment the service begins to stop."""
    gateway: Gateway = request.app.state.gateway
    state = gateway.state()
    return _state(state == "ready", state)


for _path in ("/healthz", "/health", "/ping"):
    # What the clients of other servers ask for it.
    router.add_api_route(_path, readyz, methods=["GET"], include_in_schema=False)


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    tags=["health"],
    response_class=PlainTextResponse,
    responses=openapi.text("The Prometheus text format.", "squint_in_flight 0.0\n"),
)
async def metrics(request: Request) -> Response:
    """The Prometheus text format."""
    gateway: Gateway = request.app.state.gateway
    return Response(await gateway.ledger.scrape(), media_type=CONTENT_TYPE)
