"""The small decisions of the core, each with its numbers worked out by hand."""

from __future__ import annotations

import pytest

from service.core import isolation, levels
from service.core.admission import HELD, MARGIN, Load, check_room, check_time
from service.core.batching import ENOUGH, Profile, share
from service.core.drain import Drain
from service.core.levels import Choice, Level
from service.core.restart import MAX_DELAY, Restart
from service.errors import Refusal


@pytest.mark.parametrize(
    ("a", "b", "cap"), [(0.0, 1.0, 1), (0.1, 1.0, 1), (0.3, 1.0, 3), (0.002, 0.004, 5), (1, 0.1, 45)]
)
def test_cap_is_the_smallest_with_enough_of_the_throughput(a: float, b: float, cap: int) -> None:
    profile = Profile(a, b)
    assert profile.cap(100) == cap

    def rate(n: int) -> float:
        return n / profile.seconds(n)

    assert rate(cap) >= ENOUGH * rate(100) * (1 - 1e-9)
    assert cap == 1 or rate(cap - 1) < ENOUGH * rate(100)


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
    check_time(now=10.0, deadline=10.0 + 3.0 * MARGIN, load=load)
    with pytest.raises(Refusal) as refused:
        check_time(now=10.0, deadline=12.0, load=load)
    assert (refused.value.code, refused.value.status, refused.value.retry_after) == ("overloaded", 429, 2)


def test_a_client_may_hold_all_but_what_keeps_room_for_others() -> None:
    load = Load(decode_seconds=0.0, infer_seconds=2.5, own_seconds=0.5)
    check_room(in_flight=88, limit=99, held=87, load=load)
    with pytest.raises(Refusal, match="of this client") as refused:
        check_room(in_flight=88, limit=99, held=HELD * 11, load=load)
    assert refused.value.retry_after == 3.0
    check_room(in_flight=98, limit=99, held=0, load=load)
    with pytest.raises(Refusal, match="too many requests in flight"):
        check_room(in_flight=99, limit=99, held=0, load=load)


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


@pytest.mark.parametrize("asked", [FAST, BELOW])
def test_what_is_asked_is_served(asked: Level) -> None:
    assert levels.resolve(asked, None, [FULL, FAST]) is asked


@pytest.mark.parametrize(("floor", "least"), [(None, FAST), (FAST, FAST), (BETWEEN, FULL), (BELOW, FAST), (FULL, FULL)])
def test_auto_reaches_down_to_the_lowest_offered_level_that_is_not_below_the_floor(
    floor: Level | None, least: Level
) -> None:
    assert levels.resolve(None, floor, [FAST, FULL]) == Choice(least)


def test_a_floor_above_all_that_is_offered_leaves_the_highest() -> None:
    assert levels.resolve(None, FULL, [FAST, BELOW]) == Choice(FAST)


def test_a_floor_is_for_auto_alone() -> None:
    with pytest.raises(Refusal) as refused:
        levels.resolve(FULL, FAST, [FULL, FAST])
    assert refused.value.code == "bad_option"


def test_who_asks_for_an_unknown_level_is_told_all_there_are() -> None:
    told = levels.unknown("no such thing; explicit levels are tome:R", ["full", "fast"], "explicit levels are tome:R")
    assert told == "no such thing; levels are full, fast, auto; explicit levels are tome:R"
    assert levels.unknown("no such thing", ["full"], "") == "no such thing; levels are full, auto"
