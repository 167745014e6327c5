"""Lanes on demand: there when asked for, served by whoever serves the model, and never more than a few."""

from __future__ import annotations

import pytest

from service.core.actions import Answer, StartRun
from service.core.batching import Profile
from service.core.dispatch import Dispatcher
from service.core.lanes import ON_DEMAND, Lanes
from service.core.queue import Item, LaneKey
from service.errors import Refusal

FULL, OTHER = LaneKey("m", "full"), LaneKey("other", "full")


def explicit(number: int, model: str = "m") -> LaneKey:
    return LaneKey(model, f"tome:{number}")


def item(number: int, lane: LaneKey) -> Item:
    return Item(number, lane, 1000.0, 1, 0.0)


@pytest.fixture
def lanes() -> Lanes:
    made = Lanes()
    made.offer(FULL, Profile(0.01, 0.02), 8)
    return made


def test_a_guess_is_the_models_profile_in_proportion(lanes: Lanes) -> None:
    for _ in range(100):
        lanes[FULL].profile.observe(1, 0.06)
    lanes.demand(explicit(8), FULL, 0.5)
    assert lanes[explicit(8)].profile.seconds(3) == pytest.approx(lanes[FULL].profile.seconds(3) / 2)
    assert lanes[explicit(8)].max_batch == 8


def test_what_was_observed_is_kept_while_the_lane_is(lanes: Lanes) -> None:
    lanes.demand(explicit(8), FULL, 0.5)
    for _ in range(100):
        lanes[explicit(8)].profile.observe(1, 0.045)
    lanes.demand(explicit(8), FULL, 0.5)
    assert lanes[explicit(8)].profile.seconds(1) == pytest.approx(0.045, rel=0.01)


def test_a_model_that_nobody_serves_opens_none(lanes: Lanes) -> None:
    lanes.demand(explicit(8, "other"), OTHER, 0.5)
    assert explicit(8, "other") not in lanes


def test_the_longest_idle_gives_its_place_and_offered_lanes_never(lanes: Lanes) -> None:
    for number in range(ON_DEMAND):
        lanes.demand(explicit(number), FULL, 0.5)
    first = item(1, explicit(0))
    lanes.enter(first)
    lanes.leave(first)  # was in use since, so the next one is the longest idle
    for number in range(ON_DEMAND, 1000):
        lanes.demand(explicit(number), FULL, 0.5)
        if number == ON_DEMAND:
            assert explicit(0) in lanes and explicit(1) not in lanes
    assert FULL in lanes
    assert sum(explicit(number) in lanes for number in range(1000)) == ON_DEMAND


def test_a_lane_that_holds_an_item_stays_and_when_all_do_another_is_refused(lanes: Lanes) -> None:
    items = [item(number, explicit(number)) for number in range(ON_DEMAND)]
    for one in items:
        lanes.demand(one.lane, FULL, 0.5)
        lanes.enter(one)
    with pytest.raises(Refusal) as refused:
        lanes.demand(explicit(99), FULL, 0.5)
    assert (refused.value.code, refused.value.retry_after) == ("overloaded", 1.0)
    lanes.demand(explicit(7), FULL, 0.5)
    lanes.leave(items[7])
    lanes.demand(explicit(99), FULL, 0.5)
    assert explicit(99) in lanes and explicit(7) not in lanes


def test_a_worker_serves_what_is_opened_like_a_lane_of_its_own() -> None:
    core = Dispatcher(10)
    core.decoder_up(0.0, 0)
    core.worker_up(0.0, 0, 1, {FULL: Profile(1.0, 0.01)}, 8)
    core.worker_up(0.0, 1, 1, {OTHER: Profile(1.0, 0.01)}, 8)
    core.demand(explicit(8), FULL, 0.5)
    for number in (1, 2):
        admitted = core.admit(0.0, number, explicit(8), 100.0)
        core.submit(0.0, admitted)
        core.decoded(0.0, 0, admitted, 0.001)
    core.demand(explicit(8, "other"), OTHER, 0.5)
    admitted = core.admit(0.0, 3, explicit(8, "other"), 100.0)
    core.submit(0.0, admitted)
    core.decoded(0.0, 0, admitted, 0.001)
    runs = [action for action in core.take_actions() if isinstance(action, StartRun)]
    assert [(run.worker, run.lane.model, [one.id for one in run.items]) for run in runs] == [
        (0, "m", [1]),
        (1, "other", [3]),
    ]
    core.worker_down(1.0, 0)
    core.worker_up(2.0, 0, 1, {FULL: Profile(1.0, 0.01)}, 8)
    again = [action for action in core.take_actions() if isinstance(action, StartRun)]
    assert [[one.id for one in run.items] for run in again] == [[1]], "the lane is served by the worker's next life"


def test_memory_that_is_short_halves_the_lanes_batches_until_a_worker_starts_anew() -> None:
    core = Dispatcher(100)
    core.decoder_up(0.0, 0)
    core.worker_up(0.0, 0, 1, {FULL: Profile(1.0, 0.01)}, 8)
    core.demand(explicit(8), FULL, 1.0)

    def batch_of(first: int, running: int) -> list[int]:
        for number in range(first, first + 8):
            admitted = core.admit(0.0, number, explicit(8), 1000.0)
            core.submit(0.0, admitted)
            core.decoded(0.0, 0, admitted, 0.001)
        core.ran(1.0, 0, running, {}, 1.0)
        started = [action for action in core.take_actions() if isinstance(action, StartRun)]
        return [len(action.items) for action in started]

    assert batch_of(0, 0) == [1]
    assert batch_of(10, 1) == [8]
    core.run_failed(2.0, 0, 2, "oom")
    assert [len(a.items) for a in core.take_actions() if isinstance(a, StartRun)] == [4]
    core.worker_up(3.0, 0, 1, {FULL: Profile(1.0, 0.01)}, 8)
    answered = [action for action in core.take_actions() if isinstance(action, Answer)]
    assert answered == [], "a worker that starts anew costs nobody an answer"
