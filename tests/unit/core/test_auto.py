"""What `auto` stands at, by itself and in the dispatcher."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from service.core.actions import StartRun
from service.core.batching import Profile
from service.core.dispatch import Dispatcher
from service.core.levels import DOWN, UP, Auto
from service.core.queue import LaneKey
from service.errors import Refusal

COSTS = (1.0, 0.7, 0.5)
"""Of each level, as a share of the first."""
PROFILES = {LaneKey("m", name): Profile(0.0, cost) for name, cost in zip(("full", "mid", "fast"), COSTS, strict=True)}


def waiting(seconds: float) -> Callable[[int], float]:
    """So much waits, in seconds at the highest level."""
    return lambda at: seconds * COSTS[at]


def auto(budget: float = 1.0) -> Auto:
    made = Auto()
    made.note(budget)
    return made


def test_it_steps_down_one_level_at_a_time_and_not_below_the_last() -> None:
    made = auto()
    assert [made.choose(0.01 * k, 3, waiting(9.0)) for k in range(4)] == [1, 2, 2, 2]


def test_it_stays_where_the_deadlines_are_kept_but_better_would_not_keep_them() -> None:
    made = auto()
    made.choose(0.0, 3, waiting(DOWN + 0.01))
    assert [made.choose(10.0 * k, 3, waiting(UP + 0.01)) for k in range(3)] == [1, 1, 1]


def test_it_steps_up_when_there_is_room_but_not_at_once() -> None:
    made = auto()
    for _ in range(2):
        made.choose(1.0, 3, waiting(9.0))
    quick = [made.choose(1.0 + 0.01 * k, 3, waiting(0.0)) for k in range(8)]
    assert quick == [2] * 8, "a moment's rest is no end of the load"
    later = [made.choose(1.1 + 0.05 * k, 3, waiting(0.0)) for k in range(1, 5)]
    assert later == [1, 0, 0, 0]


def test_after_a_long_rest_it_starts_from_the_highest() -> None:
    made = auto()
    for _ in range(2):
        made.choose(0.0, 3, waiting(9.0))
    assert made.choose(60.0, 3, waiting(0.1)) == 0


def test_a_refusal_is_a_reason_to_step_down() -> None:
    made = auto()
    made.press()
    assert [made.choose(0.01 * k, 3, waiting(0.0)) for k in range(3)] == [1, 1, 1]


def test_what_counts_is_the_time_that_requests_give() -> None:
    hurried, patient = auto(0.1), auto(10.0)
    assert hurried.choose(0.0, 3, waiting(1.0)) == 1
    assert patient.choose(0.0, 3, waiting(1.0)) == 0


def service() -> Dispatcher:
    core = Dispatcher(100)
    core.decoder_up(0.0, 0)
    core.worker_up(0.0, 0, 1, {key: Profile(0.0, profile.b) for key, profile in PROFILES.items()}, 1)
    return core


def run(core: Dispatcher, id: int, lane: LaneKey, deadline: float) -> None:
    item = core.admit(0.0, id, lane, deadline)
    core.submit(0.0, item)
    core.decoded(0.0, 0, item, 0.001)


def started(core: Dispatcher) -> list[tuple[str, list[int]]]:
    return [
        (action.lane.level, [item.id for item in action.items])
        for action in core.take_actions()
        if isinstance(action, StartRun)
    ]


def test_admission_promises_the_lowest_level_that_a_request_accepts() -> None:
    core = service()
    run(core, 0, core.auto("m", "fast"), 100.0)
    for floor in ("full", "mid"):
        with pytest.raises(Refusal):
            core.admit(0.0, 1, core.auto("m", floor), 0.6)
    core.ran(0.0, 0, 1, {}, 1.0)
    core.admit(0.0, 2, core.auto("m", "fast"), 0.6)


def test_a_head_that_would_be_late_is_served_lower_at_once() -> None:
    core = service()
    run(core, 0, core.auto("m", "fast"), 0.6)
    assert started(core) == [("fast", [0])]


def test_a_level_that_no_worker_offers_is_no_floor() -> None:
    core = service()
    assert core.auto("m", "gone") == core.auto("m", "fast")
    with pytest.raises(Refusal):
        core.auto("other", "full")


def test_places_that_stay_free_are_given_to_requests_that_leave_the_choice() -> None:
    core = Dispatcher(100)
    core.decoder_up(0.0, 0)
    # Batches of any size take the same time, so there are places.
    core.worker_up(0.0, 0, 1, {key: Profile(profile.b, 1e-6) for key, profile in PROFILES.items()}, 8)
    full, either = LaneKey("m", "full"), core.auto("m", "fast")
    run(core, 0, full, 1000.0)
    for id, lane in ((1, full), (2, either), (3, either)):
        run(core, id, lane, 1000.0 + id)
    assert started(core) == [("full", [0])]
    core.ran(1.0, 0, 1, {}, 1.0)
    assert started(core) == [("full", [1, 2, 3])]


def test_auto_items_that_fail_together_are_tried_again_at_the_level_they_ran_at() -> None:
    core = Dispatcher(100)
    core.decoder_up(0.0, 0)
    core.worker_up(0.0, 0, 1, {key: Profile(profile.b, 1e-6) for key, profile in PROFILES.items()}, 8)
    lane = core.auto("m", "fast")
    run(core, 0, lane, 1000.0)
    for id in (1, 2):
        run(core, id, lane, 1000.0)
    core.ran(1.0, 0, 1, {}, 1.0)
    core.run_failed(2.0, 0, 2, "batch")
    core.ran(3.0, 0, 3, {}, 1.0)
    core.ran(4.0, 0, 4, {}, 1.0)
    assert started(core) == [("full", [0]), ("full", [1, 2]), ("full", [1]), ("full", [2])]
    assert core.in_flight == 0 and core.queued == 0
