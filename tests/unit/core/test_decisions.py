"""The small decisions of the core, each with its numbers worked out by hand."""

from __future__ import annotations

import pytest

from service.core import isolation, levels
from service.core.admission import Load, try_admit
from service.core.batching import WORTH, Profile, share
from service.core.drain import Drain
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


@pytest.mark.parametrize(
    ("asked", "floor", "served"), [(None, None, "fast"), ("full", None, "full"), ("auto", "fast", "full")]
)
def test_levels(asked: str | None, floor: str | None, served: str) -> None:
    assert levels.resolve(asked, floor, "fast", ["full", "fast"]) == served


@pytest.mark.parametrize(
    ("asked", "floor", "code"),
    [("tiny", None, "unknown_level"), ("auto", "tiny", "unknown_level"), ("full", "fast", "bad_option")],
)
def test_wrong_levels_are_named(asked: str, floor: str | None, code: str) -> None:
    with pytest.raises(Refusal) as refused:
        levels.resolve(asked, floor, "full", ["full", "fast"])
    assert refused.value.code == code
    if code == "unknown_level":
        assert "full, fast, auto" in refused.value.message
