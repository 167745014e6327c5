"""When a client asks again, with a clock and a chance of the test's own."""

from __future__ import annotations

import pytest

from squint.client.errors import ClientError, DeadlineExceeded, Refused, Unreachable, Unreadable
from squint.client.retries import GRACE, JITTER, NEVER, Budget, Course, Retries


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def course(
    policy: Retries | None = None, timeout: float = 10.0, clock: Clock | None = None, chance: float = 0
) -> Course:
    policy = policy or Retries()
    return Course(policy, Budget(policy), timeout, "r1", clock or Clock(), lambda: chance)


def overloaded(retry_after: float | None = None, status: int = 429) -> Refused:
    return Refused("too much is waiting", "overloaded", status, "r1", retry_after)


def test_waits_double_and_attempts_end() -> None:
    one = course(Retries(attempts=4, first_wait=0.1))
    assert [one.wait(Unreachable("gone")) for _ in range(3)] == pytest.approx([0.1, 0.2, 0.4])
    with pytest.raises(Unreachable):
        one.wait(Unreachable("gone"))


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_kept_and_only_ever_stretched(status: int) -> None:
    assert course().wait(overloaded(1.0, status)) == 1.0
    assert course(chance=1.0).wait(overloaded(1.0, status)) == 1.0 + JITTER
    assert course().wait(overloaded(None, status)) == Retries().first_wait


@pytest.mark.parametrize(
    "failure",
    [
        *(Refused("no", "x", status) for status in (400, 401, 404, 413, 422, 500, 502, 0)),
        DeadlineExceeded("late"),
        Unreadable("what?"),
        ClientError("else"),
    ],
    ids=str,
)
def test_what_would_fail_again_is_not_asked_again(failure: ClientError) -> None:
    with pytest.raises(type(failure)) as caught:
        course().wait(failure)
    assert caught.value is failure


def test_nobody_waits_beyond_the_deadline() -> None:
    clock = Clock()
    one = course(timeout=2.0, clock=clock)
    assert one.wait(overloaded(1.0)) == 1.0
    clock.now += 1.5
    with pytest.raises(Refused):
        one.wait(overloaded(1.0))
    clock.now += 0.6
    assert one.left == 0 and one.patience == pytest.approx(GRACE - 0.1)


def test_a_service_that_wants_long_to_itself_is_not_waited_for() -> None:
    with pytest.raises(Refused):
        course(Retries(longest_wait=5.0), timeout=100.0).wait(overloaded(6.0))


def test_retries_over_many_calls_are_a_tenth() -> None:
    policy = Retries(attempts=2, reserve=10.0, budget=0.1)
    budget = Budget(policy)
    retried = 0
    for _ in range(1000):
        try:
            Course(policy, budget, 10.0, "r", Clock(), lambda: 0.0).wait(Unreachable("gone"))
            retried += 1
        except Unreachable:
            pass
    # The reserve is full in the beginning, so that the first tenth cannot be saved on top of it.
    assert 100 <= retried <= 110


def test_good_calls_earn_what_bad_ones_spend() -> None:
    policy = Retries(reserve=2.0)
    budget = Budget(policy)
    assert budget.spend() and budget.spend() and not budget.spend()
    for _ in range(10):
        budget.earn()
    assert budget.spend() and not budget.spend()
    for _ in range(1000):
        budget.earn()
    assert budget.spend() and budget.spend() and not budget.spend()


def test_never_is_never() -> None:
    with pytest.raises(Unreachable):
        course(NEVER).wait(Unreachable("gone"))


@pytest.mark.parametrize(
    "wrong",
    [{"attempts": 0}, {"attempts": 11}, {"budget": 1.5}, {"reserve": -1}, {"first_wait": 61}, {"longest_wait": -1}],
)
def test_a_policy_has_bounds(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Retries(**wrong)
