"""What is done here for speed says the same as the library that it stands in for."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware

from service.gateway import app


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
