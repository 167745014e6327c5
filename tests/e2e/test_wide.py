"""A photo that nobody runs beside has all CPUs of its worker; what comes beside it is answered the same."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract import models
from tests.e2e import images
from tests.e2e.http import once
from tests.e2e.service import Service

PHOTO = images.png((40, 160, 220), 64, 64)
ASK = "/classify?top_k=5"


@pytest.fixture(params=[("--wide",), ()], ids=["wide", "narrow"])
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    models.measured(models.tiny(tmp_path / "zoo", "classify"), "onnxruntime/f32", 2, 0.5, tmp_path / "cache")
    flags = ("--backend", "onnxruntime", "--threads", "2", "--models", str(tmp_path / "zoo"), *request.param)
    with Service(tmp_path, *flags, fake=False) as running:
        yield running


def scores(body: bytes) -> dict[str, float]:
    return {one["label"]: one["score"] for one in json.loads(body)["predictions"]}


def test_one_alone_is_wide_where_asked_for_and_all_get_the_same_answer(
    service: Service, request: pytest.FixtureRequest
) -> None:
    alone = service.request("POST", ASK, PHOTO)
    assert alone.status == 200

    async def together() -> list[Any]:
        return list(await asyncio.gather(*(once(service.port, "POST", ASK, PHOTO) for _ in range(16))))

    for reply in asyncio.run(together()):
        assert reply.status == 200 and scores(reply.body) == pytest.approx(scores(alone.body), abs=1e-4)
    for _ in range(100):
        if len(lines := service.log_lines("request")) == 17:
            break
        time.sleep(0.02)
    assert len(lines) == 17
    if "narrow" in request.node.callspec.id:
        assert not any(line["wide"] for line in lines)
    else:
        assert lines[0]["wide"]
