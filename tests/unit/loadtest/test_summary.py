from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from loadtest.samples import ERRORS, Samples, Usage
from loadtest.summary import Counts, latency_of, p99_ranks, summarise, timeline, total

NAN = math.nan


def made(rows: list[tuple[Any, ...]], seconds: float = 10.0, warmup: float = 0.0, **more: Any) -> Samples:
    """Samples of rows (intended, sent, done, status, error, level, retry_after, kind)."""
    names = ("intended", "sent", "done", "status", "error", "level", "retry_after", "kind")
    types = (np.float64, np.float64, np.float64, np.int16, np.int8, np.int16, np.float32, np.int16)
    columns: dict[str, Any] = {
        name: np.array(column, kind) for name, column, kind in zip(names, zip(*rows, strict=True), types, strict=True)
    }
    simple: dict[str, Any] = {"closed": 0, "kinds": ["a", "b"], "levels": ["full", "fast"]}
    return Samples(**columns, seconds=seconds, warmup=warmup, **(simple | more))


ROWS = [
    (0.5, 0.5, 0.6, 200, 0, 0, NAN, 0),  # in the warm-up
    (1.0, 1.0, 1.1, 200, 0, 0, NAN, 0),  # 100 ms
    (2.0, 2.125, 2.25, 200, 0, 1, NAN, 1),  # 250 ms, sent 125 ms late; the deadline itself is in time
    (3.0, 3.0, 3.3, 200, 0, 1, NAN, 0),  # 300 ms: late
    (4.0, 4.0, 4.01, 429, 0, -1, 1.0, 0),
    (5.0, 5.0, 5.03, 503, 0, -1, NAN, 0),
    (6.0, 6.0, 6.5, 500, 0, -1, NAN, 0),
    (7.0, 7.0, 9.0, 0, ERRORS.index("timeout"), -1, NAN, 0),
    (8.0, NAN, NAN, 0, ERRORS.index("unfinished"), -1, NAN, 0),
]


def test_every_outcome_is_counted_once() -> None:
    usage = Usage(wall_seconds=10, cpu_seconds=0.9, cores=2, machine_busy=0.5, steal=0.01)
    found = summarise(made(ROWS, warmup=1.0, usage=usage), 0.25)
    assert found.counts == Counts(sent=7, on_time=2, late=1, refused=2, error=2)
    assert found.seconds == 9
    assert found.offered == pytest.approx(7 / 9)
    assert found.goodput == pytest.approx(2 / 9)
    assert found.answered == pytest.approx(3 / 9)
    assert found.shares == pytest.approx({"on_time": 2 / 7, "late": 1 / 7, "refused": 2 / 7, "error": 2 / 7})
    assert found.statuses == {"200": 3, "429": 1, "500": 1, "503": 1}
    assert found.errors == {"timeout": 1}
    assert found.unfinished == 1
    assert found.latency.count == 3
    assert found.latency.p50 == pytest.approx(250)
    assert found.latency.max == pytest.approx(300)
    assert found.latency.mean == pytest.approx(650 / 3)
    assert found.refusal.count == 2
    assert found.refusal.p50 == pytest.approx(10)
    assert found.refusal.p99 == pytest.approx(30)
    assert found.retry_after == {"share": 0.5, "low": 1.0, "high": 1.0}
    assert found.levels == {"full": 1, "fast": 2}
    assert (found.kinds["a"].count, found.kinds["b"].count) == (2, 1)
    assert found.lag["max"] == pytest.approx(125)
    assert found.lag["p50"] == 0
    assert found.sender["cpu_share"] == pytest.approx(0.045)
    assert found.sender["cpu_ms_per_request"] == pytest.approx(100)


def test_a_part_of_a_run_counts_what_was_due_in_it() -> None:
    found = summarise(made(ROWS), 0.25, 2.0, 4.0)
    assert found.counts == Counts(sent=2, on_time=1, late=1)
    assert found.seconds == 2


def test_without_a_deadline_every_200_is_in_time() -> None:
    assert summarise(made(ROWS), None).counts.late == 0


def test_a_run_without_answers_has_no_percentiles() -> None:
    found = summarise(made(ROWS), 0.25, 6.0, 8.0)
    assert found.latency.p99 is None
    assert found.counts.error == 2


def test_percentiles_are_nearest_ranks() -> None:
    found = latency_of(np.arange(1, 1001)[::-1] / 1000)
    assert [found.p50, found.p90, found.p95, found.p99, found.p99_9] == pytest.approx([500, 900, 950, 990, 999])
    assert latency_of(np.array([0.007])).p99 == pytest.approx(7)


def test_the_interval_of_p99_is_that_of_the_formula() -> None:
    # 10,000: 9900 -+ 1.96 * sqrt(99) = 9880.498 .. 9919.502
    assert p99_ranks(10_000) == (9880, 9920)
    # 1,000: 990 -+ 1.96 * sqrt(9.9) = 983.83 .. 996.17
    assert p99_ranks(1000) == (983, 997)
    found = latency_of(np.arange(1, 1001) / 1000)
    assert (found.p99_low, found.p99_high) == pytest.approx((983, 997))


def test_too_few_requests_have_no_upper_end() -> None:
    # 100: 99 + 1.96 * sqrt(0.99) = 100.95: beyond the slowest
    found = latency_of(np.arange(1, 101) / 1000)
    assert found.p99 == pytest.approx(99)
    assert found.p99_low == pytest.approx(97)
    assert found.p99_high is None


def test_the_interval_holds_the_true_percentile_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    true = -math.log(0.01)
    held = 0
    for _ in range(400):
        found = latency_of(rng.exponential(1.0, 2000) / 1000)
        held += (found.p99_low or 0) <= true <= (found.p99_high or 0)
    assert 0.92 <= held / 400 <= 0.99


def test_the_time_line_adds_up_to_the_summary() -> None:
    samples = made(ROWS, warmup=1.0)
    moments = timeline(samples, 0.25)
    assert [moment.at for moment in moments] == list(range(9))
    assert total(moment.counts for moment in moments) == summarise(samples, 0.25).counts
    assert moments[1].levels == {"fast": 1}
    assert moments[2].p99 == pytest.approx(300)
    assert moments[3].p50 is None


def test_a_time_line_has_no_more_bins_than_asked() -> None:
    assert len(timeline(made(ROWS), 0.25, bins=4)) == 4
    assert len(timeline(made(ROWS, seconds=0.7), 0.25)) == 1
