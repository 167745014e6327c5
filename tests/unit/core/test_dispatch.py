"""Single steps of the dispatcher that the simulation cannot single out."""

from __future__ import annotations

import pytest

from service.core.actions import Action, Answer, StartDecode, StartRun
from service.core.batching import Profile
from service.core.dispatch import Dispatcher
from service.core.queue import Item, LaneKey
from service.errors import Refusal

LANE = LaneKey("m", "full")
OTHER = LaneKey("m", "fast")


def service(engines: int = 1, a: float = 1.0, b: float = 0.01, in_flight: int = 100) -> Dispatcher:
    core = Dispatcher(in_flight)
    core.decoder_up(0.0, 0)
    core.worker_up(0.0, 0, engines, {LANE: Profile(a, b), OTHER: Profile(a, b)}, 8)
    return core


def admit(core: Dispatcher, id: int, deadline: float = 1000.0, lane: LaneKey = LANE) -> Item:
    item = core.admit(0.0, id, lane, deadline)
    core.submit(0.0, item)
    return item


def decode(core: Dispatcher, item: Item, now: float = 0.0) -> list[Action]:
    core.decoded(now, 0, item, 0.001)
    return core.take_actions()


def queue(core: Dispatcher, *ids: int) -> list[Item]:
    """Decode these while the only engine is busy with item 0."""
    items = []
    for id in ids:
        items.append(admit(core, id))
        decode(core, items[-1])
    return items


def runs(actions: list[Action]) -> list[list[int]]:
    return [[item.id for item in action.items] for action in actions if isinstance(action, StartRun)]


def answers(actions: list[Action]) -> dict[int, str]:
    return {
        action.item.id: action.refusal.code if action.refusal else "ok"
        for action in actions
        if isinstance(action, Answer)
    }


def test_nothing_is_admitted_before_a_worker_offers_the_lane() -> None:
    core = Dispatcher(10)
    with pytest.raises(Refusal) as refused:
        core.admit(0.0, 1, LANE, 10.0)
    assert (refused.value.code, refused.value.status) == ("starting", 503)


def test_an_idle_engine_never_waits() -> None:
    core = service()
    assert runs(decode(core, admit(core, 0))) == [[0]]


def test_the_next_batch_forms_while_one_runs() -> None:
    core = service()
    queue(core, 0, 1, 2, 3)
    core.ran(1.0, 0, 1, {}, 1.0)
    actions = core.take_actions()
    assert answers(actions) == {0: "ok"}
    assert runs(actions) == [[1, 2, 3]]


def test_a_device_has_batches_ahead_of_the_one_that_runs() -> None:
    core = Dispatcher(100)
    core.decoder_up(0.0, 0)
    core.worker_up(0.0, 0, 1, {LANE: Profile(0.001, 0.001)}, 8, ahead=2)
    started = [runs(decode(core, admit(core, id))) for id in range(6)]
    assert started == [[[0]], [[1]], [[2]], [], [], []]
    core.ran(1.0, 0, 1, {}, 0.002)
    assert runs(core.take_actions()) == [[3, 4, 5]]
    assert core.engines == 1 and core.workers == {0}


def test_lanes_do_not_mix() -> None:
    core = service()
    queue(core, 0)
    for id, lane in ((1, LANE), (2, OTHER), (3, LANE)):
        decode(core, admit(core, id, lane=lane))
    core.ran(1.0, 0, 1, {}, 1.0)
    core.ran(1.0, 0, 2, {}, 1.0)
    assert runs(core.take_actions()) == [[1, 3], [2]]


def test_a_decoder_holds_two_images_and_no_more() -> None:
    core = service()
    items = [admit(core, id) for id in range(3)]
    started = [action.item.id for action in core.take_actions() if isinstance(action, StartDecode)]
    assert started == [0, 1]
    core.decoded(0.0, 0, items[0], 0.001)
    assert [action.item.id for action in core.take_actions() if isinstance(action, StartDecode)] == [2]


def test_expired_items_are_answered_and_never_run() -> None:
    core = service()
    queue(core, 0)
    late = admit(core, 1, deadline=5.0)
    decode(core, late)
    assert core.next_deadline() == 5.0
    core.tick(5.0)
    assert answers(core.take_actions()) == {1: "deadline_exceeded"}
    core.ran(6.0, 0, 1, {}, 1.0)
    assert runs(core.take_actions()) == []


def test_a_client_that_leaves_while_its_image_is_decoded() -> None:
    core = service()
    item = admit(core, 0)
    core.cancel(0.0, item)
    assert answers(core.take_actions()) == {0: "client_closed_request"}
    assert decode(core, item) == []
    assert core.in_flight == 0


def test_a_failed_batch_is_split_until_the_guilty_item_is_alone() -> None:
    core = service()
    queue(core, 0, 1, 2, 3, 4)
    core.ran(1.0, 0, 1, {}, 1.0)
    seen: dict[int, str] = answers(core.take_actions())
    tried = []
    for batch, ids in ((2, [1, 2, 3, 4]), (3, [1, 2]), (4, [3, 4]), (5, [3]), (6, [4])):
        tried.append(ids)
        if 3 in ids:
            core.run_failed(2.0, 0, batch, "batch")
        else:
            core.ran(2.0, 0, batch, {}, 1.0)
        actions = core.take_actions()
        seen |= answers(actions)
        tried_next = runs(actions)
        assert len(tried_next) <= 1
    assert seen == {0: "ok", 1: "ok", 2: "ok", 3: "unprocessable_image", 4: "ok"}


def test_out_of_memory_halves_the_cap_and_loses_nobody() -> None:
    core = service()
    queue(core, *range(9))
    core.ran(1.0, 0, 1, {}, 1.0)
    assert runs(core.take_actions()) == [[1, 2, 3, 4, 5, 6, 7, 8]]
    core.run_failed(2.0, 0, 2, "oom")
    assert runs(core.take_actions()) == [[1, 2, 3, 4]]
    core.ran(3.0, 0, 3, {}, 1.0)
    core.ran(3.0, 0, 4, {}, 1.0)
    core.take_actions()
    queue(core, 20, 21, 22, 23, 24, 25, 26)
    core.ran(4.0, 0, 5, {}, 1.0)
    assert max(len(ids) for ids in runs(core.take_actions())) <= 4


def test_items_of_a_dead_worker_are_tried_once_more_each_alone() -> None:
    core = service()
    queue(core, 0, 1, 2)
    core.ran(1.0, 0, 1, {}, 1.0)
    core.take_actions()
    core.worker_down(2.0, 0)
    assert core.take_actions() == []
    core.worker_up(3.0, 0, 1, {LANE: Profile(1.0, 0.01)}, 8)
    assert runs(core.take_actions()) == [[1]]
    core.worker_down(4.0, 0)
    assert answers(core.take_actions()) == {1: "unprocessable_image"}
    core.worker_up(5.0, 0, 1, {LANE: Profile(1.0, 0.01)}, 8)
    assert runs(core.take_actions()) == [[2]]


def test_who_was_in_flight_beside_a_killer_is_not_blamed_when_it_kills_again() -> None:
    core = service(engines=2, b=1.0)
    profiles = {LANE: Profile(1.0, 1.0)}
    killer, innocent = queue(core, 1, 2)
    core.worker_down(2.0, 0)
    fresh = admit(core, 3)
    decode(core, fresh, 2.5)
    core.worker_up(3.0, 0, 2, profiles, 8)
    first = core.take_actions()
    assert runs(first) == [[1]]  # nothing beside it, on either engine
    core.worker_down(4.0, 0)
    core.worker_up(5.0, 0, 2, profiles, 8)
    after = core.take_actions()
    assert answers(after) == {1: "unprocessable_image"}
    assert runs(after) == [[2]]
    batch = next(action.batch for action in after if isinstance(action, StartRun))
    core.ran(6.0, 0, batch, {}, 1.0)
    done = core.take_actions()
    assert answers(done) == {2: "ok"}
    assert runs(done) == [[3]]
    assert killer.strikes == 2
    assert innocent.strikes == 1


def test_results_of_a_former_worker_are_ignored() -> None:
    core = service()
    queue(core, 0)
    core.worker_down(1.0, 0)
    core.worker_up(1.0, 0, 1, {LANE: Profile(1.0, 0.01)}, 8)
    core.take_actions()
    core.ran(2.0, 0, 1, {}, 1.0)
    assert core.take_actions() == []
    assert core.in_flight == 1


def test_only_the_image_in_work_is_blamed_when_a_decoder_dies() -> None:
    core = service()
    items = [admit(core, 0), admit(core, 1)]
    core.take_actions()
    for _ in range(2):
        core.decoder_down(0.1, 0)
        core.decoder_up(0.1, 0)
    assert answers(core.take_actions()) == {0: "undecodable_image"}
    assert items[1].strikes == 0


def test_an_item_whose_neighbours_left_is_tried_before_it_is_blamed() -> None:
    core = service()
    items = queue(core, 0, 1, 2)
    core.ran(1.0, 0, 1, {}, 1.0)
    core.cancel(1.5, items[1])
    core.take_actions()
    core.run_failed(2.0, 0, 2, "batch")
    assert runs(core.take_actions()) == [[2]]
    core.ran(3.0, 0, 3, {}, 1.0)
    assert answers(core.take_actions()) == {2: "ok"}


def test_a_worker_that_comes_back_without_having_left_gives_its_items_back() -> None:
    core = service()
    queue(core, 0)
    core.worker_up(1.0, 0, 1, {LANE: Profile(1.0, 0.01)}, 8)
    assert runs(core.take_actions()) == [[0]]


def test_it_is_ready_while_some_worker_is_heard_of() -> None:
    core = Dispatcher(10)
    assert not core.ready()
    core = service()
    assert core.ready()
    assert not core.ready(late={0})
    core.worker_up(0.0, 1, 1, {LANE: Profile(1.0, 0.01)}, 8)
    assert core.ready(late={0})
    assert not core.ready(late={0, 1})
