"""Profiles of levels: the front, which levels get a name, what is written, and what is kept."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models import manifest
from models.levels import LevelError
from squint.measure import profile
from squint.measure.plot import Axis, draw
from squint.measure.profile import Point, Profile, choose, front, named_levels, points, rows
from tests.contract import models


def measured(*levels: tuple[str, float, float]) -> list[Point]:
    """Points from (level, share of full's time, top-1)."""
    return [
        Point(
            level, gmacs=share, tokens=9, seconds={1: 0.02 * share, 4: 0.06 * share}, share=share, scores={"top1": top1}
        )
        for level, share, top1 in levels
    ]


FOUND = measured(
    ("full", 1.0, 0.960),
    ("tome:1", 0.97, 0.960),
    ("tome:2", 0.85, 0.9595),
    ("tome:3", 0.80, 0.9586),
    ("tome:4", 0.82, 0.950),
    ("tome:5", 0.60, 0.951),
    ("tome:6", 0.40, 0.900),
)


def names(found: Iterable[Point], max_drop: float) -> dict[str, str]:
    return {name: point.level for name, point in choose(list(found), "classify", max_drop).items()}


def test_the_front_holds_what_nothing_beats() -> None:
    assert [point.level for point in front(FOUND, "classify")] == ["tome:1", "tome:2", "tome:3", "tome:5", "tome:6"]


def test_names_go_to_the_quickest_within_their_part_of_the_drop() -> None:
    assert names(FOUND, 1.0) == {"full": "full", "high": "tome:2", "balanced": "tome:3", "fast": "tome:5"}
    assert names(FOUND, 6.0) == {"full": "full", "high": "tome:3", "balanced": "tome:5", "fast": "tome:6"}


def test_a_level_that_is_hardly_quicker_gets_no_name() -> None:
    assert names(measured(("full", 1.0, 0.9), ("tome:1", 0.97, 0.9)), 5.0) == {"full": "full"}
    few = measured(("full", 1.0, 0.9), ("tome:1", 0.62, 0.9), ("tome:2", 0.60, 0.89))
    assert names(few, 1.0) == {"full": "full", "fast": "tome:2"}, "balanced would be no slower than fast"


def test_nothing_may_be_lost() -> None:
    assert names(FOUND, 0.0) == {"full": "full"}


def test_detection_is_chosen_by_map50_and_described_by_map(tmp_path: Path) -> None:
    model = manifest.load(models.fake(tmp_path, "detect", levels={"fast": "tome:8"}))
    one = Point("full", 2.0, 65, {1: 0.02}, 1.0, {"map": 0.6, "map50": 0.96})
    other = Point("tome:8", 1.0, 33, {1: 0.01}, 0.5, {"map": 0.5, "map50": 0.95})
    chosen = choose([one, other], "detect", 1.1)
    assert [level.accuracy for level in named_levels(model, chosen)] == [0.6, 0.5]


def test_what_was_chosen_becomes_the_manifest(tmp_path: Path) -> None:
    directory = models.fake(tmp_path, levels={"fast": "tome:8"})
    model = manifest.load(directory)
    levels = named_levels(model, choose(FOUND, "classify", 1.0))
    assert [(level.name, level.explicit, level.accuracy, level.agreement) for level in levels] == [
        ("full", "full", 0.96, None),
        ("high", "tome:2", 0.9595, None),
        ("balanced", "tome:3", 0.9586, None),
        ("fast", "tome:5", 0.951, None),
    ]
    judged = [Point(p.level, p.gmacs, p.tokens, p.seconds, p.share, {"agreement": p.scores["top1"]}) for p in FOUND]
    agreed = named_levels(model, choose(judged, "classify", 1.0))
    assert [(level.accuracy, level.agreement) for level in agreed[:2]] == [(None, None), (None, 0.9595)]


def test_times_are_shares_of_full_over_all_batch_sizes(tmp_path: Path) -> None:
    model = manifest.load(models.fake(tmp_path, levels={"fast": "tome:8"}))
    found = points(model, {"full": {1: 0.02, 4: 0.08}, "tome:8": {1: 0.01, 4: 0.02}})
    assert [point.share for point in found] == [1.0, pytest.approx((0.5 * 0.25) ** 0.5)]
    assert found[1].tokens < found[0].tokens and found[1].gmacs < found[0].gmacs


def test_the_table_goes_from_slow_to_quick() -> None:
    table = rows(Profile("m", "onnxruntime/f32", 10, tuple(FOUND)), "classify", choose(FOUND, "classify", 1.0))
    assert (table[0]["level"], table[-1]["level"]) == ("full", "tome:6")
    assert table[-1]["drop"] == 6.0 and table[-1]["faster"] == 2.5 and table[0]["ms_4"] == 15.0
    assert {row["name"]: row["level"] for row in table if row["name"]}["balanced"] == "tome:3"


def test_a_whole_profile_is_measured_and_kept(tmp_path: Path) -> None:
    directory = models.levelled(tmp_path, "classify", levels={"fast": "tome:3"})
    model, store = manifest.load(directory), str(tmp_path / "cache")
    assert profile.levels_of(model)[:2] == ["full", "tome:3"] and "tome:2,-1" not in profile.levels_of(model)
    levels = ["full", "tome:3", "width:1/2"]
    name = profile.store_name(model, "onnxruntime/f32", levels)
    assert profile.stored(store, name) is None
    found = profile.measured_now(directory, model, "onnxruntime/f32", levels, (1, 2), 3, 0, store, name)
    assert [point.level for point in found.points] == levels and found.points[0].share == 1.0
    assert all(set(point.seconds) == {1, 2} and min(point.seconds.values()) > 0 for point in found.points)
    assert found.points[0].scores == {"agreement": 1.0}, "it was not trained on these scenes"
    assert profile.stored(store, name) == found
    assert profile.store_name(model, "openvino/f32", levels) != name
    with pytest.raises(LevelError):
        profile.measured_now(directory, model, "onnxruntime/f32", ["full", "tome:99"], (1,), 1, 0, "", name)


def test_a_profile_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / "plot.png"
    draw(Profile("m", "onnxruntime/f32", 10, tuple(FOUND)), "classify", choose(FOUND, "classify", 1.0), path)
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert image.format == "PNG" and len(np.unique(pixels, axis=0)) > 20
    assert (pixels == (200, 80, 40)).all(axis=1).sum() > 500, "the front is drawn"


@pytest.mark.parametrize(("low", "high"), [(0.0, 24.3), (94.7, 97.1), (-0.4, 0.2), (0.0, 1800.0), (0.91, 0.9105)])
def test_axes_have_a_few_round_ticks_within(low: float, high: float) -> None:
    ticks = Axis(low, high, 0, 100).ticks()
    assert 3 <= len(ticks) <= 8 and low <= min(ticks) and max(ticks) <= high
    assert all(len(f"{tick:g}") <= 7 for tick in ticks)
