"""Which batches are wide, and what the core expects of them."""

from __future__ import annotations

import dataclasses
import statistics

import pytest

from service.core.actions import StartRun
from service.core.batching import Profile
from service.core.dispatch import Dispatcher
from service.core.queue import LaneKey
from service.errors import Refusal
from tests.unit.core.simulation import EVERY_FAULT, Outcome, World
from tests.unit.core.test_dispatch import admit, answers, decode
from tests.unit.core.test_simulation import simulate

LANE, OTHER = LaneKey("m", "full"), LaneKey("n", "full")


def service(wide: float = 0.6, engines: int = 2) -> Dispatcher:
    """A batch of one takes a second with one CPU."""
    core = Dispatcher(100)
    core.decoder_up(0.0, 0)
    core.worker_up(0.0, 0, engines, {key: Profile(0.0, 1.0, wide) for key in (LANE, OTHER)}, 1)
    return core


def started(core: Dispatcher, id: int, now: float = 0.0, lane: LaneKey = LANE) -> StartRun:
    """An image comes and is decoded; its batch begins at once."""
    (run,) = [action for action in decode(core, admit(core, id, lane=lane), now) if isinstance(action, StartRun)]
    return run


@pytest.mark.parametrize(
    ("engines", "cpus", "share"), [(2, 2, 0.6), (2, 1, 1.0), (4, 4, 0.6), (4, 2, 1 - 0.4 * 2 / 3), (1, 1, 1.0)]
)
def test_between_one_and_all_cpus_the_time_goes_as_amdahl_has_it(engines: int, cpus: int, share: float) -> None:
    assert Profile(0.0, 1.0, 0.6).spread(engines, cpus) == pytest.approx(share)


def test_a_model_that_gains_nothing_takes_its_time_on_any_cpus() -> None:
    assert Profile(0.0, 1.0).spread(4, 4) == 1.0
    assert Profile(0.0, 1.0, -1.0).wide == 1.0


def test_a_batch_that_is_alone_is_wide_and_one_that_comes_meanwhile_is_not() -> None:
    core = service()
    assert started(core, 1).wide
    assert not started(core, 2).wide


@pytest.mark.parametrize(("wide", "engines"), [(1.0, 2), (0.6, 1)])
def test_where_it_gains_nothing_no_batch_is_wide(wide: float, engines: int) -> None:
    assert not started(service(wide, engines), 1).wide


@pytest.mark.parametrize("second", [LANE, OTHER])
def test_nor_is_one_beside_which_another_begins_at_once(second: LaneKey) -> None:
    core = Dispatcher(100)
    core.decoder_up(0.0, 0)
    profiles = {key: Profile(0.0, 1.0, 0.6) for key in (LANE, OTHER)}
    core.worker_up(0.0, 0, 2, profiles, 1)
    core.worker_down(0.0, 0)
    for id, lane in ((1, LANE), (2, second)):
        decode(core, admit(core, id, lane=lane))
    core.worker_up(0.0, 0, 2, profiles, 1)
    assert [action.wide for action in core.take_actions() if isinstance(action, StartRun)] == [False, False]


def test_who_can_be_in_time_only_wide_is_taken_while_the_worker_is_idle() -> None:
    core = service()
    decode(core, admit(core, 1, deadline=0.8))
    assert not answers(core.take_actions())
    with pytest.raises(Refusal, match="before its deadline"):
        core.admit(0.0, 2, LANE, 0.8)


@pytest.mark.parametrize("meets", [None, 0.3])
def test_what_a_wide_batch_takes_does_not_look_like_a_faster_machine(meets: float | None) -> None:
    """Alone it is through after 0.6 s. When another comes after 0.3 s, half of it is done, and the rest takes 0.5 s."""
    core = service()
    run, took = started(core, 1), 0.6
    if meets is not None:
        started(core, 2, now=meets)
        took = 0.8
        assert core.load(took, LANE).infer_seconds == pytest.approx(0.5 / 2), "what is left of the second"
    core.ran(took, 0, run.batch, {}, took)
    assert core.load(took, LANE).own_seconds == pytest.approx(1.0 if meets else 0.6)


def test_a_slow_machine_is_seen_through_a_wide_batch() -> None:
    core = service()
    for number in range(60):
        at = 10.0 * number
        item = core.admit(at, number, LANE, at + 10)
        core.submit(at, item)
        (run,) = [action for action in decode(core, item, at) if isinstance(action, StartRun)]
        core.ran(at + 1.2, 0, run.batch, {}, 1.2)
    assert core.load(1000.0, LANE).own_seconds == pytest.approx(1.2, rel=0.02)


ONE = World(requests=4_000, rate=0, timeout=2.0, a=0.005, b=0.095, models=("classify",), priorities=(0, 1, 0))
"""A transformer on two cores: a tenth of a second each."""
CAPACITY = ONE.engines / (ONE.a + ONE.b)


def both(load: float, requests: int = 4_000) -> tuple[Outcome, Outcome]:
    """Without and with wide batches, at a share of the capacity."""
    world = dataclasses.replace(ONE, rate=load * CAPACITY, requests=requests)
    return simulate(world), simulate(dataclasses.replace(world, wide=0.58))


def percentiles(out: Outcome) -> tuple[float, float]:
    ordered = sorted(out.latencies)
    return statistics.median(ordered), ordered[int(0.99 * len(ordered))]


@pytest.mark.parametrize(("load", "most"), [(0.1, 0.65), (0.33, 0.9), (0.7, 1.0)])
def test_answers_come_sooner_at_low_load_and_never_later(load: float, most: float) -> None:
    before, after = both(load)
    assert before.answers == after.answers == {"ok": 4_000}
    (p50, p99), (wide_p50, wide_p99) = percentiles(before), percentiles(after)
    assert wide_p50 <= most * p50
    assert wide_p99 <= 1.01 * p99
    assert before.wide == 0 < after.wide


def test_overload_gives_what_it_gave() -> None:
    before, after = both(2.0, requests=8_000)
    assert after.on_time / after.seconds >= 0.99 * before.on_time / before.seconds
    assert after.answers["deadline_exceeded"] < 0.01 * after.answers["ok"]


def test_wide_batches_through_every_fault() -> None:
    out = simulate(dataclasses.replace(EVERY_FAULT, requests=20_000, rate=300, wide=0.58))
    assert out.wide > 100 and out.answers["ok"] > 10_000
