"""What the scheduler promises when more is asked than can be done, in virtual time."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

from tests.unit.core.simulation import Outcome, World
from tests.unit.core.test_simulation import simulate

LEVELS = (("full", 1.0), ("balanced", 0.7), ("fast", 0.5))
ONE = World(
    requests=4_000, rate=0, timeout=1.0, a=0.005, b=0.095, models=("classify",), levels=LEVELS, priorities=(0, 1, 0)
)
"""A transformer on two cores: a tenth of a second each, ten of them the deadline."""
CAPACITY = ONE.engines / (ONE.a + ONE.b)


def goodput(out: Outcome) -> float:
    """Answers in time per second."""
    return out.on_time / out.seconds


def offered(times: float, **changes: object) -> Outcome:
    """The world at this multiple of its capacity at `full`."""
    requests = int(ONE.requests * max(times, 1.0))
    return simulate(dataclasses.replace(ONE, requests=requests, rate=CAPACITY * times, **changes))  # type: ignore[arg-type]


def share_ok(counts: Counter[str]) -> float:
    return counts["ok"] / counts.total()


@pytest.mark.parametrize(("times", "least"), [(2.0, 0.95), (5.0, 0.95), (10.0, 0.95)])
def test_goodput_stays_at_its_peak_under_overload(times: float, least: float) -> None:
    out = offered(times)
    assert goodput(out) >= least * CAPACITY
    assert set(out.answers) <= {"ok", "overloaded", "deadline_exceeded"}
    assert out.answers["deadline_exceeded"] < 0.01 * out.answers["ok"], "who is admitted is answered in time"


@pytest.mark.parametrize(("times", "least"), [(1.3, 1.25), (2.0, 1.8), (5.0, 1.8)])
def test_auto_squints_before_it_refuses(times: float, least: float) -> None:
    out = offered(times, auto="fast")
    assert goodput(out) >= least * CAPACITY
    assert out.answers["deadline_exceeded"] < 0.01 * out.answers["ok"]


def test_auto_serves_the_highest_level_while_there_is_room() -> None:
    out = offered(0.5, auto="fast")
    assert out.answers == {"ok": ONE.requests}
    assert out.served["full"] > 0.98 * ONE.requests


def test_auto_is_never_below_the_floor() -> None:
    out = offered(3.0, auto="balanced")
    assert out.served["fast"] == 0
    assert out.served["balanced"] > 0.9 * out.on_time
    assert goodput(out) >= 0.95 * CAPACITY / 0.7


def test_an_exact_level_is_served_exactly_whatever_the_load() -> None:
    assert set(offered(5.0).served) == {"full"}


def test_two_seconds_after_a_burst_the_level_is_the_highest_again() -> None:
    rate = 0.4 * CAPACITY
    burst = dataclasses.replace(ONE, rate=rate, auto="fast", bursts=((60.0, 8.0), (80.0, 1.0)))
    out = simulate(burst)
    during = Counter(level for at, level in out.history if 62 < at < 80)
    after = Counter(level for at, level in out.history if at > 82)
    assert during["fast"] > 0.9 * during.total()
    assert after["full"] > 0.95 * after.total() > 1000


def test_a_client_at_twenty_times_its_share_costs_another_nothing() -> None:
    """The modest one takes a tenth of the capacity, the greedy one asks for twenty times half of it."""
    modest, greedy = 0.1, 10.0
    out = offered(modest + greedy, clients=(modest, greedy))
    assert share_ok(out.by_client[0]) >= 0.999
    assert goodput(out) >= 0.95 * CAPACITY, "what the modest one leaves, the greedy one gets"


def test_many_connections_of_one_client_leave_room_for_others() -> None:
    modest, greedy = 0.1, 10.0
    out = offered(modest + greedy, clients=(modest, greedy), in_flight=60, timeout=5.0)
    assert share_ok(out.by_client[0]) >= 0.999


def test_a_flooded_model_costs_another_nothing() -> None:
    out = offered(6.1, models=("quiet", "flooded"), mix=(0.1, 6.0))
    assert share_ok(out.by_model["quiet"]) >= 0.999
    assert goodput(out) >= 0.95 * CAPACITY


def test_high_goes_first_and_low_keeps_its_floor() -> None:
    # A long deadline, so that it is the order and not the admission that decides.
    out = offered(2.0, priorities=(0.7, 1.1, 0.2), timeout=3.0)
    assert share_ok(out.by_priority[0]) > 0.99
    per_second = out.by_priority[2]["ok"] / out.seconds
    assert per_second > 0.05 * CAPACITY
    assert share_ok(out.by_priority[1]) < share_ok(out.by_priority[0])


def test_images_that_take_long_to_decode_delay_no_other() -> None:
    """Two decoders; one in thirty images takes a hundred times as long, sent by a client of its own."""
    world = World(requests=20_000, rate=200, timeout=1.0, a=0.0005, b=0.0005, models=("classify",), decode=0.0015)
    alone = simulate(world)
    mixed = simulate(dataclasses.replace(world, heavy=0.03, in_flight=1000, timeout=10.0))
    usual = sorted(alone.latencies)[int(0.99 * len(alone.latencies))]
    # Heavy ones are the slowest three in a hundred; the one in a hundred of the others ends below them.
    assert sorted(mixed.latencies)[int(0.96 * len(mixed.latencies))] < 2 * usual
    assert share_ok(mixed.answers) > 0.99
