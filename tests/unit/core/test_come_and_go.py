"""Models come and go while others are served: lanes appear on workers that are there, and vanish once empty."""

from __future__ import annotations

from service.core.actions import StartRun
from service.core.batching import Profile
from service.core.dispatch import Dispatcher
from service.core.queue import Item, LaneKey

OLD, NEW = LaneKey("toy@1:aa", "full"), LaneKey("toy@2:bb", "full")
PROFILE = Profile(1.0, 0.01)


def serving(*workers: int) -> Dispatcher:
    core = Dispatcher(100)
    core.decoder_up(0.0, 0)
    for worker in workers:
        core.worker_up(0.0, worker, 1, {OLD: Profile(1.0, 0.01)}, 8)
    return core


def sent(core: Dispatcher, number: int, lane: LaneKey) -> Item:
    item = core.admit(0.0, number, lane, 100.0)
    core.submit(0.0, item)
    core.decoded(0.0, 0, item, 0.001)
    return item


def runs(core: Dispatcher) -> list[tuple[int, str]]:
    return [(one.worker, one.lane.model) for one in core.take_actions() if isinstance(one, StartRun)]


def test_a_worker_that_is_busy_serves_one_model_more() -> None:
    core = serving(0, 1)
    sent(core, 1, OLD)
    core.worker_serves(1.0, 1, {NEW: Profile(1.0, 0.01)}, 8)
    sent(core, 2, NEW)
    sent(core, 3, NEW)
    started = runs(core)
    assert (0, "toy@1:aa") in started or (1, "toy@1:aa") in started
    assert all(worker == 1 for worker, model in started if model == NEW.model)
    core.worker_serves(2.0, 0, {NEW: Profile(1.0, 0.01)}, 8)
    assert {worker for worker, model in [*started, *runs(core)] if model == NEW.model} <= {0, 1}


def test_a_model_is_forgotten_when_its_last_item_is_answered() -> None:
    core = serving(0)
    core.worker_serves(0.0, 0, {NEW: Profile(1.0, 0.01)}, 8)
    sent(core, 1, OLD)
    assert not core.forget(OLD.model)
    assert core.serves(OLD)
    core.ran(1.0, 0, 1, {}, 1.0)
    assert core.forget(OLD.model)
    assert not core.serves(OLD) and core.serves(NEW)
    assert core.pending() == {NEW.model: 0}
    core.take_actions()
    sent(core, 2, NEW)
    assert runs(core) == [(0, NEW.model)]


def test_a_batch_whose_items_were_answered_early_may_outlive_its_model() -> None:
    core = serving(0)
    item = sent(core, 1, OLD)
    assert runs(core) == [(0, OLD.model)]
    core.cancel(0.5, item)
    assert core.forget(OLD.model)
    core.run_failed(1.0, 0, 1, "batch")
    core.worker_down(2.0, 0)
    assert runs(core) == []


def test_what_was_opened_on_demand_goes_with_its_model() -> None:
    core = serving(0)
    for round_ in range(100):
        key = f"toy@{round_}:cc"
        core.worker_serves(0.0, 0, {LaneKey(key, "full"): PROFILE}, 8)
        for level in range(20):
            core.demand(LaneKey(key, f"tome:{level}"), LaneKey(key, "full"), 0.5)
        assert core.serves(LaneKey(key, "tome:3"))
        core.auto(key, None)
        assert core.forget(key)
        assert not core.serves(LaneKey(key, "tome:3"))
    assert core.pending() == {OLD.model: 0}


def test_what_was_never_there_is_forgotten_already() -> None:
    assert serving().forget("nothing")
