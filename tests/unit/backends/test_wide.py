from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from models import manifest
from service.backends import wide
from service.backends.base import Backend, Images
from service.backends.fake import Fake
from tests.contract import models

LEVELS = ["full", "fast"]


@pytest.fixture
def backends(tmp_path: Path) -> tuple[Backend, Backend]:
    described = manifest.load(models.fake(tmp_path, name="m"))
    return Fake(described), Fake(described)


def found(
    backends: tuple[Backend, Backend], monkeypatch: pytest.MonkeyPatch, lone: dict[str, float], busy: float
) -> dict[str, float]:
    """What is made of runs that take a second, but `lone` when wide, and of CPU `busy` where that is possible."""
    plain, spreading = backends

    def seconds(backend: Backend, batch: Images, level: str, engines: int, *, wide: bool = False) -> list[float]:
        assert wide == (engines == 1), "a wide run has the machine to itself"
        assert not wide or backend is spreading
        return [lone[level], lone[level], 9.0] if wide else [1.0]

    monkeypatch.setattr(wide, "under_load", seconds)
    monkeypatch.setattr(wide, "_cpu_seconds", lambda backend, *_: busy if backend is spreading else 1.0)
    return wide.shares(plain, spreading, np.zeros((1, 32, 32, 3), np.uint8), LEVELS, 2)


def test_what_pays_is_told_for_each_level(backends: tuple[Backend, Backend], monkeypatch: pytest.MonkeyPatch) -> None:
    shares = found(backends, monkeypatch, {"full": 0.55, "fast": 1.4}, 1.0)
    assert shares == {"full": pytest.approx(0.55), "fast": 1.0}


def test_what_gains_too_little_or_costs_throughput_does_not(
    backends: tuple[Backend, Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found(backends, monkeypatch, {"full": wide.PAYS, "fast": 0.5}, 1.0) == {}
    assert found(backends, monkeypatch, {"full": 0.55, "fast": 0.5}, wide.COSTS) == {}


def test_a_slow_model_is_not_measured_for_ever(
    backends: tuple[Backend, Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    def clock() -> Iterator[float]:
        at = 0.0
        while True:
            yield at
            at += wide.SECONDS + 1

    ticking = clock()
    calls: list[str] = []

    def seconds(backend: Backend, batch: Images, level: str, engines: int, **_: bool) -> list[float]:
        calls.append(level)
        return [1.0]

    monkeypatch.setattr("service.backends.wide.time.monotonic", lambda: next(ticking))
    monkeypatch.setattr(wide, "under_load", seconds)
    wide.shares(*backends, np.zeros((1, 32, 32, 3), np.uint8), LEVELS, 2)
    assert len(calls) == 2 + 2 * len(LEVELS), "one turn"
