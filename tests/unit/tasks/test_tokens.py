from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from models.manifest import Transform
from service.tasks.tokens import token_map
from service.wire.messages.results import TokenMap


def transform(height: int, width: int) -> Transform:
    return Transform(fit="stretch", height=height, width=width)


def test_runs_and_sizes_by_hand() -> None:
    groups = np.array([[0, 0, 1], [1, 2, 2]], np.int32).reshape(-1)
    assert token_map(groups, transform(32, 48)) == TokenMap((2, 3), [(0, 2), (1, 2), (2, 2)], [2, 2, 2])


@pytest.mark.parametrize("kept", [1, 2, 98, 195, 196])
def test_the_map_can_be_read_back(kept: int) -> None:
    random = np.random.default_rng(kept)
    groups = random.permutation(np.concatenate([np.arange(kept), random.integers(0, kept, 196 - kept)]))
    told = token_map(groups.astype(np.int32), transform(224, 224))
    assert told.grid == (14, 14)
    assert [group for group, length in told.runs for _ in range(length)] == groups.tolist()
    assert told.sizes == [int((groups == group).sum()) for group in range(kept)]
    assert all(before[0] != after[0] for before, after in zip(told.runs, told.runs[1:], strict=False))


@pytest.mark.parametrize(
    ("groups", "fault"),
    [
        (np.array([0, 1, 2, 4]), "no group"),
        (np.array([0, -1, 1, 2]), "no group"),
        (np.array([0, 0, 2, 2]), "empty"),
        (np.zeros(5, np.int32), "no grid"),
        (np.zeros(0, np.int32), "no grid"),
    ],
)
def test_what_is_no_map_is_refused(groups: NDArray[np.int32], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        token_map(groups, transform(32, 32))
