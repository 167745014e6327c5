"""The dispatcher under everything at once, in virtual time."""

from __future__ import annotations

import dataclasses

from tests.unit.core.simulation import EVERY_FAULT, Outcome, Simulation, World


def simulate(world: World) -> Outcome:
    """Run, and check what must always hold."""
    simulation = Simulation(world)
    out = simulation.run()
    assert len(out.answered) == world.requests, "every request is answered"
    assert simulation.core.in_flight == 0
    assert out.late == 0, "an answer after the deadline is a 504 instead"
    assert out.runs_with_answered == 0, "answered items never reach a backend"
    assert out.mixed == 0, "who shares a batch shares a level"
    return out


def test_light_load_answers_everyone() -> None:
    out = simulate(World(requests=5_000, rate=100))
    assert out.answers == {"ok": 5_000}


def test_hundred_thousand_requests_through_every_fault() -> None:
    """Overload, disconnects, bad images, failing batches, dying processes: each request answered exactly once."""
    out = simulate(EVERY_FAULT)
    assert out.answers["ok"] > 30_000
    assert out.answers["overloaded"] > 5_000
    for code in ("client_closed_request", "undecodable_image", "unprocessable_image"):
        assert out.answers[code] > 100
    assert set(out.answers) <= {
        "ok", "overloaded", "client_closed_request", "undecodable_image", "unprocessable_image", "deadline_exceeded"
    }  # fmt: skip


def test_a_thousand_schedules_through_every_fault() -> None:
    """A tenth of all requests ask for explicit levels, most of them for one that nobody else asks for just then."""
    out = simulate(dataclasses.replace(EVERY_FAULT, requests=20_000, schedules=1_000))
    assert out.answers["ok"] > 6_000


def test_overload_keeps_goodput() -> None:
    """At four times capacity as many are answered in time as at capacity."""
    at_capacity = simulate(World(requests=10_000, rate=450, timeout=0.2))
    overloaded = simulate(World(requests=40_000, rate=1_800, timeout=0.2))
    rate = at_capacity.on_time / at_capacity.seconds
    assert overloaded.on_time / overloaded.seconds > 0.9 * rate


def test_only_the_guilty_fail() -> None:
    """Poison in batches costs nobody else an answer, and no more than 2 log2(n) + 1 runs each."""
    out = simulate(World(requests=5_000, rate=250, timeout=20.0, guilty=0.01, a=0.02, b=0.002))
    failed = {number for number, code in out.answered.items() if code == "unprocessable_image"}
    assert failed == out.guilty
    assert out.answers["ok"] == 5_000 - len(failed)
    assert max(out.batches) > 2


def test_worker_deaths_cost_nobody_an_answer() -> None:
    out = simulate(World(requests=12_000, rate=100, timeout=10.0, worker_dies_every=5.0))
    assert out.answers == {"ok": 12_000}


def test_decoder_deaths_cost_nobody_an_answer() -> None:
    out = simulate(World(requests=12_000, rate=100, timeout=10.0, decoder_dies_every=1.0))
    assert out.answers["ok"] >= 12_000 - 2
