from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models import manifest
from service.backends.base import Backend, BackendError, Images, Inputs, Outputs
from service.tasks.registry import TASKS
from service.wire.messages.decoder import Geometry
from service.wire.messages.results import Options
from service.wire.messages.worker import Done, Ran, Run, RunFailed, Timing, Undone, Work
from service.wire.pulse import Pulse
from service.wire.slots import Arena
from service.worker.batch import Bench
from service.worker.guard import Guard
from service.worker.load import Model
from service.worker.shelf import Shelf
from tests.contract import models


class Scripted(Backend):
    """Raises what it is told to, once each, then answers zeros."""

    errors: list[Exception]
    batches: list[int]
    ready = True
    pulse: Pulse
    allowed = 0.0

    def prepared(self, level: str) -> bool:
        return self.ready

    def _run(self, images: Images, inputs: Inputs, wide: bool) -> Outputs:
        self.batches.append(len(images))
        self.allowed = self.pulse.read().limit
        if self.errors:
            raise self.errors.pop(0)
        return {"logits": images[:, 0, 0, :].astype(np.float32)}

    def _close(self) -> None: ...


@pytest.fixture
def backend(tmp_path: Path) -> Scripted:
    scripted = Scripted("scripted/f32", manifest.load(models.fake(tmp_path, name="m")))
    scripted.errors, scripted.batches = [], []
    return scripted


def run(backend: Scripted, tmp_path: Path, items: int) -> Ran | RunFailed:
    described = manifest.load(tmp_path / "m" / "1")
    model = Model(described, backend, TASKS["classify"], {"full": Timing("full", 0.0, 0.001)}, 0.0)
    pixels = Arena.create("pixels", 8, model.image_bytes)
    for slot in range(8):
        pixels.view(slot)[:3] = bytes((1 if slot % 3 == channel else 0) for channel in range(3))
    backend.pulse = Pulse(Arena.create("board", 1, 16), 0)
    guard = Guard(backend.pulse)
    place = Geometry(32, 32, (0.0, 0.0, 32.0, 32.0))
    works = [Work(10 + slot, slot, slot, place, Options(top_k=1)) for slot in range(items)]
    return Bench(pixels, Shelf({"m": model})).run(Run(1, "m", "full", works), guard)


def winners(answer: Ran | RunFailed) -> dict[int, int | str]:
    assert isinstance(answer, Ran)
    found: dict[int, int | str] = {}
    for one in answer.items:
        found[one.id] = one.code if isinstance(one, Undone) else one.result.predictions[0].index  # type: ignore[union-attr]
    return found


def test_results_are_those_of_the_slots(backend: Scripted, tmp_path: Path) -> None:
    answer = run(backend, tmp_path, 4)
    assert winners(answer) == {10: 0, 11: 1, 12: 2, 13: 0}
    assert isinstance(answer, Ran) and [one.generation for one in answer.items if isinstance(one, Done)] == [0, 1, 2, 3]


def test_a_run_that_has_to_compile_first_is_given_the_time(backend: Scripted, tmp_path: Path) -> None:
    run(backend, tmp_path, 1)
    assert backend.allowed == 2.0
    backend.ready = False
    assert winners(run(backend, tmp_path, 1)) == {10: 0}
    assert backend.allowed == 60.0


def test_the_rest_is_run_again_without_the_guilty_ones(backend: Scripted, tmp_path: Path) -> None:
    backend.errors = [BackendError("item", "x", [1]), BackendError("item", "x", [0, 2])]
    assert winners(run(backend, tmp_path, 4)) == {
        10: "unprocessable_image",
        11: "unprocessable_image",
        12: 2,
        13: "unprocessable_image",
    }
    assert backend.batches == [4, 3, 1]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (BackendError("batch", "x"), "batch"),
        (BackendError("oom", "x"), "oom"),
        (MemoryError(), "oom"),
        (BackendError("item", "names none"), "batch"),
        (BackendError("item", "names none of these", [7]), "batch"),
        (RuntimeError("a bug"), "batch"),
    ],
    ids=str,
)
def test_any_other_error_is_the_batchs(error: Exception, kind: str, backend: Scripted, tmp_path: Path) -> None:
    backend.errors = [error]
    answer = run(backend, tmp_path, 2)
    assert isinstance(answer, RunFailed) and answer.kind == kind


def test_a_fatal_error_is_raised(backend: Scripted, tmp_path: Path) -> None:
    backend.errors = [BackendError("fatal", "x")]
    with pytest.raises(BackendError):
        run(backend, tmp_path, 1)


def test_an_error_never_tells_the_client_more_than_a_code(backend: Scripted, tmp_path: Path) -> None:
    backend.errors = [BackendError("item", "/secret/path", [0])]
    answer = run(backend, tmp_path, 1)
    assert isinstance(answer, Ran) and "secret" not in str(answer)
