"""Ratios and tables against numbers that are known."""

from __future__ import annotations

import math
from typing import Any

import pytest

from loadtest.peers.figures import against, best_rival, of, percentile, points, rate, ratio
from loadtest.peers.phases import queue_limit
from loadtest.peers.table import markdown, number, rows


def point(name: str, load: float, round_: int, answered: float, p99: float = 10.0, **more: Any) -> dict[str, Any]:
    latency = {"p50": p99 / 2, "p99": p99}
    summary = {
        "answered": answered,
        "goodput": answered,
        "offered": 20.0,
        "latency": latency,
        "refusal": {"p99": None},
        "counts": {"on_time": round(answered), "late": 0, "sent": 100},
        "shares": {"on_time": 0.5, "refused": 0.25, "late": 0.1, "error": 0.15},
        "sender": {"cpu_share": 0.1},
    }
    server = {"cpu_seconds": answered / 1000 * 5, "memory_mib": 100.0, "processes": 2}
    base = {"phase": "saturation", "name": name, "load": load, "round": round_, "summary": summary, "server": server}
    return base | {"others": 0.02} | more


def record(what: str, *found: dict[str, Any]) -> dict[str, Any]:
    names = ["squint", "squint-auto", "triton", "mosec"]
    return {
        "what": what,
        "machine": {"cpu": "a CPU", "cores": 2, "date": "2026-01-01"},
        "options": {"seconds": 8.0, "rounds": 2, "warmup": 1.0},
        "photo_kb": 67.0,
        "contenders": {name: {"title": name.title(), "version": "1.0", "query": ""} for name in names},
        "points": list(found),
        "capacities": {"squint": 20.0, "triton": 10.0},
        "pooled": {},
        "failures": {},
        "interrupted": False,
        "deadline_ms": 550.0,
        "service_ms": 55.0,
    }


def test_a_ratio_and_its_interval() -> None:
    found = ratio([4.0, 9.0], [2.0, 3.0])
    # Logs of 2 and 3: mean 0.8959, standard deviation 0.2867, half width 12.706 * 0.2867 / sqrt(2).
    assert found.middle == pytest.approx(math.sqrt(6))
    assert found.low == pytest.approx(math.exp(0.89588 - 2.57588), rel=1e-3)
    assert found.high == pytest.approx(math.exp(0.89588 + 2.57588), rel=1e-3)
    assert str(ratio([2.0, 2.0, 2.0], [1.0, 1.0, 1.0])) == "2.00 (2.00-2.00)"
    assert str(ratio([3.0], [2.0])) == "1.50"
    for wrong in (([], []), ([1.0], [1.0, 2.0]), ([0.0], [1.0])):
        with pytest.raises(ValueError):
            ratio(*wrong)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    held = 0
    for _ in range(2000):
        noise = np.exp(rng.normal(0, 0.1, (2, 5)))
        found = ratio(list(2 * noise[0]), list(noise[1]))
        held += found.low is not None and found.high is not None and found.low <= 2 <= found.high
    assert 0.93 < held / 2000 < 0.97


def test_rounds_are_paired_by_their_number() -> None:
    run = record(
        "free",
        point("squint", 64, 0, 400.0),
        point("squint", 64, 1, 800.0),
        point("triton", 64, 1, 200.0),
        point("mosec", 64, 0, 0.0),
    )
    found = against(run, "saturation", "squint", "triton", 64, rate)
    assert found is not None and found.middle == pytest.approx(4.0) and found.low is None
    assert against(run, "saturation", "squint", "mosec", 64, rate) is None
    assert of(run, "saturation", "squint", 64, rate) == 600.0
    assert math.isnan(of(run, "saturation", "squint", 16, rate))
    assert [one["round"] for one in points(run, "saturation", "squint")] == [0, 1]


def test_the_best_rival_is_no_squint() -> None:
    run = record(
        "vit",
        point("squint", 0.7, 0, 20.0, 50.0, phase="equal"),
        point("triton", 0.7, 0, 20.0, 90.0, phase="equal"),
        point("mosec", 0.7, 0, 19.0, 80.0, phase="equal"),
    )
    assert best_rival(run, "equal", None, percentile("p99"), least=True) == "mosec"
    assert best_rival(run, "equal", None, rate, least=False) == "triton"
    assert best_rival(record("vit"), "equal", None, rate, least=False) == ""
    text = markdown(run)
    assert "over that of the best rival (Mosec): 0.62." in text
    assert "| Triton 1.0 | 20.0 | 20.0 | 45.0 | 90.0 | - | 1.80 |" in text


def test_the_table_of_saturation() -> None:
    run = record("free", *(point(name, load, at, value * load, 8.0) for at in (0, 1) for load in (1, 64)
                           for name, value in (("squint", 10.0), ("triton", 4.0))))  # fmt: skip
    lines = markdown(run).splitlines()
    head = "| server | 1 conn., requests/s | 64 conn., requests/s | p50 at 1, ms | p99 at 64, ms |"
    assert head + " CPU ms per request | memory, MB | Squint / it at 64 |" in lines
    assert "| Squint 1.0 | 10.0 | 640 | 4.00 | 8.00 | 5.00 | 100 |  |" in lines
    assert "| Triton 1.0 | 4.00 | 256 | 4.00 | 8.00 | 5.00 | 100 | 2.50 (2.50-2.50) |" in lines
    assert "load generator took 10 % (at most 10 %), and what has nothing to do with the run 2 %" in lines[2]
    assert "stopped early" not in lines[2]


def test_the_table_of_overload() -> None:
    found = [point("squint", load, 0, value, phase="overload") for load, value in ((0.7, 14.0), (1, 20.0), (2, 18.0))]
    run = record("overload", *found) | {"interrupted": True, "failures": {"mosec": "would not start"}}
    text = markdown(run)
    assert "| Squint 1.0 | 20.0 | 14.0 | 20.0 | 18.0 | 0.90 | 0.90 | - | 10.0 | - | 25 % | 25 % |" in text
    assert "Deadline 550 ms; a service time is 55.0 ms." in text
    assert "stopped early" in text and "Not measured: mosec: would not start" in text


def test_small_things_of_a_table() -> None:
    assert [number(value) for value in (float("nan"), 1234.5, 12.34, 1.234)] == ["-", "1234", "12.3", "1.23"]
    assert rows(["a", "b"], [["x", "1"]]) == "| a | b |\n|---|---:|\n| x | 1 |"


def test_a_full_queue_is_served_within_half_the_deadline_but_workers_stay_busy() -> None:
    assert queue_limit(40.0, 550.0, 2) == 11
    assert queue_limit(0.5, 550.0, 2) == 4


def test_what_others_took_of_the_machine() -> None:
    import numpy as np

    from loadtest.peers.session import others
    from loadtest.samples import Samples, Usage

    nothing = np.empty(0)
    usage = Usage(wall_seconds=10.0, cpu_seconds=1.0, cores=2, machine_busy=0.8)
    samples = Samples(*(nothing,) * 8, seconds=10.0, warmup=0.0, closed=1, kinds=[], usage=usage)  # type: ignore[arg-type]
    assert others(samples, 11.0) == pytest.approx(0.2)
    assert others(samples, 19.0) == 0.0
