from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models import manifest
from service.backends.base import Backend, BackendError, Images, Inputs, Outputs
from service.tasks.registry import TASKS
from service.wire.messages.worker import Timing
from service.wire.pulse import Pulse
from service.wire.slots import Arena
from service.worker import doubt
from service.worker.doubt import Doubt
from service.worker.guard import Guard
from service.worker.load import Model
from tests.contract import models


class Tried(Backend):
    """Counts its runs; fails when broken."""

    broken = False
    runs = 0

    def _run(self, images: Images, inputs: Inputs, wide: bool) -> Outputs:
        self.runs += 1
        if self.broken:
            raise BackendError("batch", "broken")
        return {"logits": np.zeros((len(images), 4), np.float32)}

    def _close(self) -> None: ...


class Clock:
    """Time that passes when told to."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(doubt, "time", made)
    return made


@pytest.fixture
def guard() -> Guard:
    return Guard(Pulse(Arena.create("board", 1, 16), 0))


def model(tmp_path: Path) -> Model:
    described = manifest.load(models.fake(tmp_path, name="m"))
    backend = Tried("tried/f32", described)
    return Model(described, backend, TASKS["classify"], {"full": Timing("full", 0.0, 0.001)}, 0.0)


def test_a_worker_on_which_nothing_runs_has_to_go(tmp_path: Path, clock: Clock, guard: Guard) -> None:
    loaded = model(tmp_path)
    loaded.backend.broken = True  # type: ignore[attr-defined]
    with pytest.raises(BackendError) as caught:
        Doubt().failed("m", loaded, "full", guard)
    assert caught.value.kind == "fatal"


def test_bad_images_are_told_from_a_bad_worker_and_cost_little(tmp_path: Path, clock: Clock, guard: Guard) -> None:
    loaded = model(tmp_path)
    doubts = Doubt()
    for _ in range(100):
        doubts.failed("m", loaded, "full", guard)
        clock.now += doubt.BELIEVED / 10
    assert loaded.backend.runs == 10  # type: ignore[attr-defined]


def test_a_worker_that_has_just_answered_is_not_doubted(tmp_path: Path, clock: Clock, guard: Guard) -> None:
    loaded = model(tmp_path)
    loaded.backend.broken = True  # type: ignore[attr-defined]
    doubts = Doubt()
    doubts.passed("m")
    clock.now += doubt.BELIEVED / 2
    doubts.failed("m", loaded, "full", guard)
    clock.now += doubt.BELIEVED
    with pytest.raises(BackendError):
        doubts.failed("m", loaded, "full", guard)
