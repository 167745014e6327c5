"""Levels against reference answers: what counts as near, what as a tie, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from models import manifest
from models.manifest import Manifest, Task
from models.reference import read_reference
from squint.measure.backends import opened
from squint.measure.verify import check, compare, kept_reference, remembered
from tests.contract import models

Outputs = dict[str, NDArray[Any]]


def described(tmp_path: Path, task: Task = "classify", agreement: float = 0.95) -> Manifest:
    model = manifest.load(models.fake(tmp_path, task))
    return msgspec.structs.replace(model, tolerance=manifest.Tolerance(agreement=agreement, score=0.05))


def answers(count: int = 400) -> Outputs:
    logits = np.random.default_rng(0).normal(size=(count, 5)).astype(np.float32)
    return {"logits": logits, "tokens": np.tile(np.arange(9, dtype=np.int32), (count, 1))}


def changed(outputs: Outputs, images: list[int], by: float, groups: bool) -> Outputs:
    other = {name: values.copy() for name, values in outputs.items()}
    other["logits"][images, 0] += by
    if groups:
        other["tokens"][images, 0] = 8
    return other


def test_what_is_the_same_agrees(tmp_path: Path) -> None:
    row = compare(described(tmp_path), "onnxruntime/f32", "tome:1", answers(), changed(answers(), [3], 5e-5, False))
    assert (row.near, row.ties, row.decisions, row.wrong) == (1.0, 0, 1.0, "")
    assert row.worst == pytest.approx(5e-5, rel=0.1)


def test_a_few_images_may_differ_if_other_tokens_were_merged(tmp_path: Path) -> None:
    model = described(tmp_path)
    few = compare(model, "onnxruntime/f32", "tome:1", answers(), changed(answers(), [1, 2], 0.01, groups=True))
    assert (few.ties, few.near, few.wrong) == (2, 0.995, "")
    many = compare(model, "onnxruntime/f32", "tome:1", answers(), changed(answers(), [1, 2, 3], 0.01, groups=True))
    assert many.wrong == "3 images differ, with other tokens merged"


def test_no_image_may_differ_when_the_same_tokens_were_merged(tmp_path: Path) -> None:
    row = compare(described(tmp_path), "openvino/f32", "tome:1", answers(), changed(answers(), [7], 2e-4, groups=False))
    assert row.wrong == "1 images differ, with the same tokens merged"


@pytest.mark.parametrize(("flipped", "wrong"), [(19, ""), (21, "0.9475 of decisions the same, least 0.95")])
def test_half_precision_is_judged_by_decisions(tmp_path: Path, flipped: int, wrong: str) -> None:
    other = answers()
    other["logits"] += 0.001
    other["logits"][:flipped] = -other["logits"][:flipped]
    assert compare(described(tmp_path), "openvino/bf16", "full", answers(), other).wrong == wrong


def test_what_is_no_number_or_missing_is_refused(tmp_path: Path) -> None:
    model, broken = described(tmp_path), answers()
    broken["logits"] = np.full_like(broken["logits"], np.nan)
    assert compare(model, "onnxruntime/f32", "full", answers(), broken).wrong
    del broken["logits"]
    assert compare(model, "onnxruntime/f32", "full", answers(), broken).wrong.startswith("output logits is missing")


def test_boxes_of_nearly_the_same_score_may_change_places(tmp_path: Path) -> None:
    one: Outputs = {
        "boxes": np.array([[[0.1, 0.1, 0.4, 0.4], [0.5, 0.5, 0.9, 0.9], [0, 0, 1, 1]]], np.float32),
        "scores": np.array([[0.8, 0.79999, 0.01]], np.float32),
        "labels": np.array([[1, 2, 3]]),
    }
    swapped = {name: values[:, [1, 0, 2]] for name, values in one.items()}
    swapped["boxes"][0, 2] = 0.5  # scored too low to be compared
    model = described(tmp_path, "detect")
    assert compare(model, "onnxruntime/f32", "full", one, swapped).wrong == ""
    swapped["labels"] = one["labels"]
    assert compare(model, "onnxruntime/f32", "full", one, swapped).wrong


def test_masks_may_differ_where_classes_are_as_likely(tmp_path: Path) -> None:
    model, mask = described(tmp_path, "segment"), np.zeros((4, 64, 64), np.uint8)
    other = mask.copy()
    other[:, 0, :4] = 1
    assert compare(model, "onnxruntime/f32", "full", {"mask": mask}, {"mask": other}).wrong == ""
    other[:, 0, 4] = 1
    assert compare(model, "onnxruntime/f32", "full", {"mask": mask}, {"mask": other}).wrong


@pytest.mark.parametrize("task", ["classify", "detect", "segment"])
def test_a_real_graph_agrees_with_the_answers_its_directory_keeps(task: Task, tmp_path: Path) -> None:
    directory = models.levelled(tmp_path, task)
    model = manifest.load(directory)
    images, reference = kept_reference(read_reference(directory, model))
    for variant in ("onnxruntime/f32", "openvino/f32"):
        backend = opened(directory, model, variant, "")
        rows = list(check(model, backend, images, [*models.LEVELS, "tome:4"], reference))
        backend.close()
        assert [row.level for row in rows] == list(models.LEVELS), "there is no reference for the last"
        if task != "detect":  # a random network gives the same score to boxes of merged patches
            assert [row.wrong for row in rows] == [""] * len(rows)


def test_a_graph_that_merges_wrongly_is_found(tmp_path: Path) -> None:
    directory = models.levelled(tmp_path, "classify")
    model = manifest.load(directory)
    images, reference = kept_reference(read_reference(directory, model))
    backend = opened(directory, model, "onnxruntime/f32", "")

    def shifted(asked: NDArray[np.uint8], level: str) -> Any:
        return reference(asked, "tome:1" if level == "full" else level)

    (row,) = check(model, backend, images, ["full"], shifted)
    assert row.wrong == "4 images differ, with other tokens merged"


def test_a_reference_is_asked_once_for_each_level() -> None:
    asked: list[str] = []

    def reference(images: NDArray[np.uint8], level: str) -> Outputs:
        asked.append(level)
        return {"logits": np.zeros((1, 2))}

    ask = remembered(reference)
    for level in ("full", "tome:1", "full", "tome:1"):
        ask(np.zeros((1, 1, 1, 3), np.uint8), level)
    assert asked == ["full", "tome:1"]
