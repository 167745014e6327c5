from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models import manifest
from models.manifest import Task
from service.backends import fake
from service.backends.base import BackendError, Images
from service.tasks.registry import TASKS
from service.wire.messages.decoder import Geometry
from service.wire.messages.results import Options
from tests.contract import models

PLACE = Geometry(32, 32, (0.0, 0.0, 32.0, 32.0))


def backend(root: Path, task: Task = "classify") -> fake.Fake:
    return fake.Fake(manifest.load(models.fake(root, task)))


def batch(*colours: fake.Colour, others: int = 0) -> Images:
    return np.stack([*models.images(others, 32), *(fake.solid(colour, 32, 32) for colour in colours)])


def test_an_answer_tells_which_image_it_belongs_to(tmp_path: Path) -> None:
    images = models.images(6, 32)
    outputs = backend(tmp_path).run(images, "full")
    sums = [fake.checksum(image) for image in images]
    assert outputs["logits"].argmax(axis=1).tolist() == [value % len(models.LABELS) for value in sums]
    assert [int(high) << 16 | int(low) for high, low in outputs["embedding"]] == sums
    best = [TASKS["classify"].result({"logits": row}, PLACE, Options(top_k=1)) for row in outputs["logits"]]
    assert len(set(map(str, best))) == 6, "scores tell images of one class apart"


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_the_other_tasks_read_its_answers(task: Task, tmp_path: Path) -> None:
    images = models.images(3, 32)
    outputs = backend(tmp_path, task).run(images, "full")
    for number in range(3):
        own = {name: outputs[name][number] for name in TASKS[task].outputs}
        assert str(TASKS[task].result(own, PLACE, Options())) != ""
    assert TASKS[task].highest(outputs) < len(models.LABELS)


@pytest.mark.parametrize(
    ("colour", "kind", "items"),
    [(fake.FAIL_ITEM, "item", (2,)), (fake.FAIL_BATCH, "batch", ()), (fake.FATAL, "fatal", ())],
)
def test_it_fails_on_command(colour: fake.Colour, kind: str, items: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(BackendError) as caught:
        backend(tmp_path).run(batch(colour, others=2), "full")
    assert caught.value.kind == kind and caught.value.items == items


def test_it_runs_out_of_memory_with_large_batches_only(tmp_path: Path) -> None:
    made = backend(tmp_path)
    made.run(batch(fake.NO_MEMORY, others=fake.MEMORY_LIMIT - 1), "full")
    with pytest.raises(BackendError) as caught:
        made.run(batch(fake.NO_MEMORY, others=fake.MEMORY_LIMIT), "full")
    assert caught.value.kind == "oom"


def test_it_sleeps_leaks_and_strays_on_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("service.backends.fake.time.sleep", slept.append)
    made = fake.Fake(manifest.load(models.fake(tmp_path)), fake.Cost(0.5, 0.25))
    outputs = made.run(batch((*fake.SLEEP_RED_GREEN, 7), fake.LEAK, fake.STRAY), "full")
    assert slept == [1.25, pytest.approx(0.07)]
    assert [bool(np.isfinite(row).all()) for row in outputs["logits"]] == [True, True, False]
    assert sum(map(len, made._leaked)) == fake.LEAK_BYTES
