"""The small decisions of the core, each with its numbers worked out by hand."""

from __future__ import annotations

import pytest

from service.core import isolation, levels
from service.core.admission import Load, try_admit
from service.core.batching import WORTH, Profile, share
from service.core.drain import Drain
from service.core.levels import Level
from service.core.restart import MAX_DELAY, Restart
from service.errors import Refusal


@pytest.mark.parametrize(("a", "b", "cap"), [(0.0, 1.0, 1), (0.05, 1.0, 1), (0.002, 0.004, 3), (1.0, 0.1, 10)])
def test_cap_is_where_one_more_item_gains_less_than_the_worth(a: float, b: float, cap: int) -> None:
    profile = Profile(a, b)
    assert profile.cap(100) == cap

    def rate(n: int) -> float:
        return n / profile.seconds(n)

    assert rate(cap + 1) / rate(cap) - 1 < WORTH
    if cap > 1:
        assert rate(cap) / rate(cap - 1) - 1 >= WORTH


def test_cap_is_bounded() -> None:
    assert Profile(1.0, 0.001).cap(8) == 8


def test_profile_follows_a_slower_machine() -> None:
    profile = Profile(0.01, 0.01)
    for _ in range(60):
        profile.observe(1, 0.04)
    assert profile.seconds(1) == pytest.approx(0.04, rel=0.02)
    assert profile.seconds(3) == pytest.approx(0.08, rel=0.02)


def test_idle_engines_share_before_one_batches() -> None:
    assert share(queued=4, idle_engines=2, cap=8) == 2
    assert share(queued=5, idle_engines=2, cap=8) == 3
    assert share(queued=40, idle_engines=0, cap=8) == 8


def test_admission_refuses_what_cannot_be_on_time() -> None:
    load = Load(decode_seconds=0.2, infer_seconds=2.5, own_seconds=0.5)
    try_admit(now=10.0, deadline=13.0, in_flight=0, limit=4, load=load)
    with pytest.raises(Refusal) as refused:
        try_admit(now=10.0, deadline=12.0, in_flight=0, limit=4, load=load)
    assert (refused.value.code, refused.value.status, refused.value.retry_after) == ("overloaded", 429, 1)
    with pytest.raises(Refusal, match="too many"):
        try_admit(now=10.0, deadline=99.0, in_flight=4, limit=4, load=load)


def test_halves_cover_the_batch() -> None:
    assert isolation.halves([1, 2, 3, 4, 5]) == [[1, 2, 3], [4, 5]]
    assert isolation.halves([1]) == []


def test_restart_backs_off_and_gives_up() -> None:
    policy = Restart(max_crashes=8)
    delays = [policy.died(now=float(k)) for k in range(7)]
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, MAX_DELAY]
    assert policy.died(now=8.0) is None


def test_a_child_that_was_healthy_starts_again_at_once() -> None:
    policy = Restart(max_crashes=2)
    for start in (0.0, 10.0, 20.0):
        policy.ready(now=start)
        assert policy.died(now=start + 5.0) == 0.0
    assert policy.restarts == 3


def test_drain_in_order() -> None:
    drain = Drain()
    assert drain.phase(100.0) == "serving"
    drain.begin(now=100.0, grace=2.0)
    assert drain.phase(101.9) == "leaving"
    assert drain.phase(102.0) == "closed"


def test_a_second_drain_only_shortens() -> None:
    drain = Drain()
    drain.begin(now=0.0, grace=1.0)
    drain.begin(now=0.5, grace=60.0)
    assert drain.phase(1.0) == "closed"


def level(name: str, gmacs: float) -> Level:
    return Level(name, name, name, gmacs, 10)


FULL, FAST, BETWEEN, BELOW = level("full", 1.0), level("fast", 0.5), level("tome:2", 0.7), level("tome:9", 0.2)


@pytest.mark.parametrize(
    ("asked", "floor", "served"),
    [
        (FAST, None, FAST),
        (BELOW, None, BELOW),
        (None, None, FULL),
        (None, FAST, FULL),
        (None, BETWEEN, FULL),
        (None, BELOW, FULL),
    ],
)
def test_levels(asked: Level | None, floor: Level | None, served: Level) -> None:
    assert levels.resolve(asked, floor, [FAST, FULL]) == served


def test_auto_is_never_below_the_floor() -> None:
    assert levels.resolve(None, FULL, [FAST]) == FULL
    assert levels.resolve(None, BETWEEN, [FAST, BELOW]) == BETWEEN


def test_a_floor_is_for_auto_alone() -> None:
    with pytest.raises(Refusal) as refused:
        levels.resolve(FULL, FAST, [FULL, FAST])
    assert refused.value.code == "bad_option"


def test_who_asks_for_an_unknown_level_is_told_all_there_are() -> None:
    told = levels.unknown("no such thing; explicit levels are tome:R", ["full", "fast"], "explicit levels are tome:R")
    assert told == "no such thing; levels are full, fast, auto; explicit levels are tome:R"
    assert levels.unknown("no such thing", ["full"], "") == "no such thing; levels are full, auto"
