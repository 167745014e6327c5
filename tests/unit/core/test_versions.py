"""Which versions are served, who gets the canary, and who makes room."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core import versions
from service.core.versions import Holding, Plan, Policy, Split


@pytest.mark.parametrize(
    ("listed", "canary", "there", "wanted"),
    [
        ("latest", None, ["1"], Plan("1", "", ("1",))),
        ("latest", None, ["9", "10", "2"], Plan("10", "", ("10",))),
        ("1", None, ["1", "2"], Plan("1", "", ("1",))),
        ("1,2", None, ["1", "2", "3"], Plan("2", "", ("2", "1"))),
        ("1,2", None, ["1"], Plan("1", "", ("1",))),
        ("latest", "2:0.1", ["1", "2"], Plan("1", "2", ("2", "1"))),
        ("latest", "1:0.5", ["1", "2"], Plan("2", "1", ("2", "1"))),
        ("latest", "3:0.1", ["1", "2"], Plan("2", "", ("2",))),
        ("latest", "2:0.1", ["2"], Plan("2", "", ("2",))),
        ("1", "3:0.1", ["1", "2", "3"], Plan("1", "3", ("3", "1"))),
        ("2", "2:0.1", ["1", "2"], Plan("2", "", ("2",))),
        ("4", "3:0.1", ["1", "2", "3"], None),
        ("latest", None, [], None),
    ],
)
def test_what_is_served(listed: str, canary: str | None, there: list[str], wanted: Plan | None) -> None:
    assert versions.plan(versions.policy(listed, canary), there) == wanted


@pytest.mark.parametrize(("listed", "canary"), [("latest", None), ("1,12", None), ("1", "2:0.25"), ("latest", "3:1")])
def test_a_policy_is_spelled_as_it_was_written(listed: str, canary: str | None) -> None:
    policy = versions.policy(listed, canary)
    assert versions.spelled(policy) == (listed, canary or "")
    assert policy == versions.policy(*versions.spelled(policy))


def test_numbers_are_numbers() -> None:
    assert versions.policy("01,2", "003:0.5") == Policy(("1", "2"), "3", 0.5)


@given(st.floats(0, 1), st.integers(1, 500))
def test_the_canary_gets_its_share_of_any_run_of_requests(share: float, requests: int) -> None:
    split = Split(share)
    taken = [split.turn() for _ in range(requests)]
    for end in range(requests + 1):
        assert abs(sum(taken[:end]) - share * end) <= 1.0 + 1e-6


def test_nothing_and_everything_are_exact() -> None:
    assert not any(Split(0.0).turn() for _ in range(100))
    split = Split(1.0)
    assert all(split.turn() for _ in range(100))


HELD = [Holding("a", 40, used=3), Holding("b", 30, used=1), Holding("c", 20, used=2)]


@pytest.mark.parametrize(
    ("budget", "more", "leaving"),
    [(100, 0, []), (100, 10, []), (100, 11, ["b"]), (100, 50, ["b", "c"]), (100, 60, ["b", "c"]),
     (100, 61, ["b", "c", "a"]), (50, 0, ["b", "c"]), (10, 100, ["b", "c", "a"])],
)  # fmt: skip
def test_those_asked_for_longest_ago_make_room(budget: int, more: int, leaving: list[str]) -> None:
    assert versions.to_unload(HELD, budget, more) == leaving
