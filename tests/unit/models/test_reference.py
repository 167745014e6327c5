"""Which levels are verified and profiled, and how answers at levels are kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.levels import Trunk, plan
from models.reference import KEPT, THIN, answers_kept, candidate_levels, kept_answers, standard_levels

VIT = Trunk(blocks=8, width=192, hidden=768, patches=196, prefix=1, fixed=0, merge=True, shares=("1/2",))
LARGE = Trunk(blocks=12, width=768, hidden=3072, patches=576, prefix=5, fixed=0, merge=True)
SMALL = Trunk(blocks=1, width=32, hidden=64, patches=4, prefix=0, fixed=0, merge=True)
LOOKUP = Trunk(kind="lookup", blocks=8, width=192, hidden=768, patches=196, prefix=0, fixed=0, grid=(3, 10))


@pytest.mark.parametrize("trunk", [VIT, LARGE, SMALL, LOOKUP])
def test_all_levels_are_levels_of_the_trunk_each_once_and_full_first(trunk: Trunk) -> None:
    levels = standard_levels(trunk)
    assert levels[0] == "full" and len(set(levels)) == len(levels)
    assert [plan(level, trunk).level for level in levels[1:]] == list(levels[1:])
    assert set(candidate_levels(trunk)) <= set(levels) - {"full"}


def test_the_counts_that_break_exports_are_among_them() -> None:
    levels = standard_levels(VIT)
    assert {"tome:1", "tome:7", "tome:8", "tome:13", "tome:16", "tome:196", "tome:16,-1"} <= set(levels)
    assert {"width:1/2", "tome:8+width:1/2"} <= set(levels)
    assert any(sum(plan(level, VIT).inputs["merge"]) % 2 for level in levels)


def test_every_grid_is_verified() -> None:
    levels = standard_levels(LOOKUP)
    assert len(levels) == 1 + 8 * 8 and "lookup:3x10" in levels and "lookup:10x3" in levels


def test_a_model_without_levels_has_full_alone() -> None:
    assert standard_levels(None) == ("full",)


@pytest.mark.parametrize("trunk", [VIT, LARGE])
def test_candidates_share_few_numbers_of_tokens(trunk: Trunk) -> None:
    """Runtimes keep code for every number of tokens they meet."""
    stepped = [level for level in candidate_levels(trunk) if "/0" in level and "+" not in level]
    left = {plan(level, trunk).tokens for level in stepped}
    assert len(stepped) >= 10 and len(left) <= 6
    assert sum(tokens % 32 == 0 for tokens in left) >= len(left) - 2
    costs = [plan(level, trunk).gmacs / plan("full", trunk).gmacs for level in stepped]
    assert min(costs) < 0.5 and max(costs) > 0.75


def test_kept_answers_are_small_and_come_back() -> None:
    mask = np.arange(KEPT * 16 * 16, dtype=np.uint8).reshape(KEPT, 16, 16)
    groups = np.tile(np.arange(196, dtype=np.int32), (KEPT, 1))
    outputs: dict[str, NDArray[Any]] = {"mask": mask, "tokens": groups, "embedding": np.zeros((KEPT, 9))}
    stored = {"images": mask, **kept_answers("tome:1", outputs), **kept_answers("tome:13", outputs)}
    back = answers_kept(stored, "tome:1")
    assert set(back) == {"mask", "tokens"} and answers_kept(stored, "tome:2") == {}
    assert np.array_equal(back["mask"], mask[:, ::THIN, ::THIN])
    assert np.array_equal(back["tokens"], groups) and back["tokens"].dtype == np.int16
