from __future__ import annotations

import time

import pytest

from service.wire.messages.worker import Timing
from service.wire.pulse import REST, Pulse
from service.wire.slots import Arena
from service.worker.guard import Guard


def test_each_step_says_how_long_it_may_take() -> None:
    pulse = Pulse(Arena.create("board", 1, 16), 0)
    guard = Guard(pulse)
    limits = []
    for step in (
        guard.rest,
        lambda: guard.run(Timing("full", 0.001, 0.002), 4),
        lambda: guard.run(Timing("full", 0.1, 0.05), 4),
        guard.result,
        guard.send,
        lambda: guard.load(120.0),
    ):
        before = time.monotonic()
        step()
        beat = pulse.read()
        assert before <= beat.at <= time.monotonic()
        limits.append(beat.limit)
    assert limits == pytest.approx([3.0, 2.0, 3.0, 2.0, 10.0, 120.0])
    assert limits[0] > REST, "a waiting thread has several chances to be heard"


def test_a_thread_that_has_ended_is_never_late() -> None:
    pulse = Pulse(Arena.create("board", 1, 16), 0)
    guard = Guard(pulse)
    guard.rest()
    assert pulse.read().overdue(time.monotonic() + 10)
    guard.done()
    assert not pulse.read().overdue(time.monotonic() + 10)


def test_a_thread_is_late_before_it_is_given_up() -> None:
    pulse = Pulse(Arena.create("board", 1, 16), 0)
    assert not pulse.read().late(time.monotonic())
    pulse.beat(100.0, 2.0)
    beat = pulse.read()
    assert [(beat.late(at), beat.overdue(at)) for at in (100.9, 101.1, 102.1)] == [
        (False, False),
        (True, False),
        (True, True),
    ]
