"""Accuracy by level, and what of it is written down."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from models import manifest
from squint.client import Unreachable
from squint.measure.evaluate import evaluate, record
from tests.contract import models


def test_every_level_sees_the_same_scenes_and_named_ones_are_written_down(tmp_path: Path) -> None:
    directory = models.levelled(tmp_path, "classify", levels={"same": "tome:0", "fast": "tome:3"})
    levels = ["full", "same", "fast", "width:1/2"]
    results = evaluate("levels-classify", directory, scenes=12, levels=levels, progress=False)
    assert list(results) == levels and all(0 <= found["top1"] <= 1 for found in results.values())
    assert results["same"] == results["full"]
    record(directory, {**results, "fast": {"top1": 0.87654}}, {"scenes": 12, "seed": 0})
    written = manifest.load(directory)
    assert {level.name: level.accuracy for level in written.levels}["fast"] == 0.8765
    assert written.evaluation == {"scenes": 12, "seed": 0, "top1": round(results["full"]["top1"], 4)}
    record(directory, {"fast": {"top1": 0.5}}, {"scenes": 99})
    again = manifest.load(directory)
    assert again.evaluation == written.evaluation and again.levels[0] == written.levels[0]


def test_an_evaluation_that_fails_leaves_no_process_behind(tmp_path: Path) -> None:
    directory = models.levelled(tmp_path, "classify", levels={})
    with pytest.raises(Unreachable) as kept:
        evaluate("levels-classify", directory, scenes=12, url="http://127.0.0.1:1", progress=False)
    assert not multiprocessing.active_children(), "not even while somebody looks at the error"
    assert "no answer" in str(kept.value)
