"""What is done here for speed says the same as the libraries that it stands in for."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware

from service.gateway import app
from service.metrics import Metrics


@pytest.mark.parametrize("origins", [("*",), ("http://a.example", "http://b.example")])
@pytest.mark.parametrize("origin", [None, "http://b.example", "http://evil.example"])
def test_answers_carry_what_the_middleware_adds(origins: tuple[str, ...], origin: str | None) -> None:
    async def nothing(*_: Any) -> None: ...

    middleware = CORSMiddleware(nothing, allow_origins=list(origins), expose_headers=app._EXPOSED)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asked = Headers({"origin": origin} if origin else {})
    asyncio.run(middleware.send({"type": "http.response.start", "headers": []}, send, asked))
    exchange: Any = SimpleNamespace(header=lambda name: origin if name == b"origin" else None)
    headers = app._cors_headers(origins)
    assert headers is not None
    assert sorted(headers(exchange)) == sorted(sent[0]["headers"])


def test_no_origins_no_headers() -> None:
    assert app._cors_headers(()) is None


def test_metrics_read_as_the_library_writes_them() -> None:
    ours = Metrics("1")
    registry = CollectorRegistry()
    bounds = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
    theirs = Histogram(
        "squint_request_seconds",
        "Time from the request's first byte to its answer",
        ["task", "model", "level", "outcome"],
        buckets=bounds,
        registry=registry,
    )
    refused = Counter("squint_refused", "Requests refused, by error code", ["code"], registry=registry)
    for seconds in (0.0, 0.001, 0.00100001, 0.3, 60.0, 61.0):
        ours.request("classify", "a", "full", "ok", seconds)
        theirs.labels("classify", "a", "full", "ok").observe(seconds)
    ours.request("detect", 'odd "name"\n', "full", "overloaded", 0.2)
    theirs.labels("detect", 'odd "name"\n', "full", "overloaded").observe(0.2)
    for _ in range(3):
        ours.refused("overloaded")
        refused.labels("overloaded").inc()

    def lines(text: bytes) -> list[str]:
        kept = [line for line in text.decode().splitlines() if "squint_request" in line or "squint_refused" in line]
        return [line for line in kept if "_created" not in line]

    assert lines(ours.render()) == lines(generate_latest(registry))
    assert len(lines(ours.render())) > 30
