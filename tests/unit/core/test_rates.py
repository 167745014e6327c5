"""The buckets of clients, by a clock of the test's own."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.rates import MOST, Rates


@pytest.mark.parametrize("rate", [3.0, 10.0, 100.0, 777.0])
@pytest.mark.parametrize("load", [1.5, 5.0, 40.0])
def test_what_is_let_through_is_the_limit_within_two_percent(rate: float, load: float) -> None:
    rates, source = Rates(rate, burst=rate), random.Random(1)
    now, through = 0.0, 0
    while now < 20.0:
        now += source.expovariate(rate * load)
        taken = not rates.take(now, "a")
        # The burst is over when it is counted.
        through += taken and now >= 10.0
    assert abs(through - rate * 10.0) <= max(1.0, 0.02 * rate * 10.0)


def test_who_asks_less_is_never_refused() -> None:
    rates = Rates(10.0, burst=1.0)
    assert not any(rates.take(number * 0.1001, "a") for number in range(1000))


def test_a_burst_and_what_follows_it() -> None:
    rates = Rates(2.0, burst=5.0)
    assert [rates.take(0.0, "a") for _ in range(6)] == [0.0] * 5 + [0.5]
    assert rates.take(0.25, "a") == pytest.approx(0.25)
    assert rates.take(0.5, "a") == 0.0
    assert rates.take(0.5, "a") == pytest.approx(0.5)
    assert [rates.take(1000.0, "a") for _ in range(6)] == [0.0] * 5 + [0.5], "it holds no more than a burst"


def test_a_refusal_costs_nothing_and_its_time_is_right() -> None:
    rates = Rates(1.0, burst=1.0)
    assert rates.take(0.0, "a") == 0.0
    waits = [rates.take(0.1 * number, "a") for number in range(1, 10)]
    assert waits == pytest.approx([1.0 - 0.1 * number for number in range(1, 10)])
    assert rates.take(1.001, "a") == 0.0


def test_clients_have_buckets_of_their_own() -> None:
    rates = Rates(1.0, burst=1.0)
    assert rates.take(0.0, "a") == 0.0
    assert rates.take(0.0, "b") == 0.0
    assert rates.take(0.0, "a") > 0.0


def test_the_table_does_not_grow_and_keeps_who_is_limited() -> None:
    rates = Rates(1.0, burst=1.0)
    rates.take(0.0, "busy")
    refused = 0
    for number in range(100_000):
        rates.take(number * 1e-6, f"stranger {number}")
        if number % 1000 == 0:
            refused += bool(rates.take(number * 1e-6, "busy"))
    assert len(rates) == MOST
    assert refused == 100, "a client that goes on asking keeps its bucket"


ASKED = st.lists(st.tuples(st.floats(0, 10), st.sampled_from("abc")), max_size=200)


@given(ASKED, st.floats(0.1, 50), st.floats(1, 20))
def test_never_more_than_a_burst_and_the_rate(asked: list[tuple[float, str]], rate: float, burst: float) -> None:
    rates = Rates(rate, burst)
    now, through = 0.0, dict.fromkeys("abc", 0)
    for gap, client in asked:
        now += gap / 100
        through[client] += not rates.take(now, client)
    assert all(count <= burst + rate * now + 1e-6 for count in through.values())


def test_what_was_taken_elsewhere_is_charged_here() -> None:
    here, there = Rates(1.0, burst=4.0, shared=True), Rates(1.0, burst=4.0, shared=True)
    assert [here.take(0.0, "a") for _ in range(3)] == [0.0] * 3
    assert here.spent() == {"a": 3.0} and here.spent() == {}
    there.charge(0.0, "a", 3.0)
    assert there.take(0.0, "a") == 0.0
    assert there.take(0.0, "a") == pytest.approx(1.0)
    assert there.take(0.0, "b") == 0.0, "others have buckets of their own"
    assert there.spent() == {"a": 1.0, "b": 1.0}, "neither what was refused nor what was charged is told"


def test_what_came_at_once_to_both_is_owed_and_no_more_than_a_bucket() -> None:
    rates = Rates(1.0, burst=4.0, shared=True)
    assert [rates.take(0.0, "a") for _ in range(4)] == [0.0] * 4
    rates.charge(0.0, "a", 3.0)
    assert rates.take(3.0, "a") == pytest.approx(1.0)
    assert rates.take(4.0, "a") == 0.0
    rates.charge(4.0, "a", 1e9)
    assert rates.take(4.0, "a") == pytest.approx(5.0)
