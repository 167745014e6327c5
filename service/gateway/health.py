"""What an orchestrator asks: alive, started, ready; and the metrics."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Request, Response

from service.gateway.handler import Gateway
from service.metrics import CONTENT_TYPE

router = APIRouter()


def _state(ok: bool, state: str) -> Response:
    response = Response(
        msgspec.json.encode({"status": state}), status_code=200 if ok else 503, media_type="application/json"
    )
    if not ok:
        response.headers["Retry-After"] = "1"
    return response


@router.get("/livez", summary="Is the gateway's event loop turning?")
async def livez() -> Response:
    """Answers as long as the gateway can answer anything."""
    return _state(True, "alive")


@router.get("/startupz", summary="Has every model been loaded?")
async def startupz(request: Request) -> Response:
    """503 until every model has been loaded once."""
    gateway: Gateway = request.app.state.gateway
    complete = gateway.catalogue.complete()
    return _state(complete, "started" if complete else "starting")


@router.get("/readyz", summary="Would a request be answered now?")
async def readyz(request: Request) -> Response:
    """503 while starting, while no decoder or worker is there, and from the moment the service begins to stop."""
    gateway: Gateway = request.app.state.gateway
    if gateway.leaving():
        return _state(False, "draining")
    if not gateway.catalogue.complete():
        return _state(False, "starting")
    ready = gateway.engine.ready()
    return _state(ready, "ready" if ready else "unavailable")


@router.get("/metrics", summary="Prometheus metrics")
async def metrics(request: Request) -> Response:
    """The Prometheus text format."""
    gateway: Gateway = request.app.state.gateway
    return Response(gateway.metrics.render(), media_type=CONTENT_TYPE)
