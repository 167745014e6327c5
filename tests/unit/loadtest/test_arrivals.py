from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from loadtest import arrivals


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_constant_is_evenly_spaced() -> None:
    assert arrivals.constant(4, 1.5).tolist() == [0, 0.25, 0.5, 0.75, 1.0, 1.25]


def test_poisson_has_its_rate_and_exponential_gaps() -> None:
    times = arrivals.poisson(rng(), 100, 1000)
    gaps = np.diff(times)
    assert len(times) == pytest.approx(100_000, rel=0.01)
    assert gaps.min() >= 0
    assert gaps.mean() == pytest.approx(0.01, rel=0.01)
    assert gaps.std() == pytest.approx(0.01, rel=0.02)
    assert (gaps > 0.02).mean() == pytest.approx(np.exp(-2), abs=0.005)
    counts = np.histogram(times, 1000, (0, 1000))[0]
    assert counts.var() == pytest.approx(counts.mean(), rel=0.15)


def test_the_same_seed_gives_the_same_times() -> None:
    assert np.array_equal(arrivals.poisson(rng(5), 50, 10), arrivals.poisson(rng(5), 50, 10))
    assert not np.array_equal(arrivals.poisson(rng(5), 50, 10), arrivals.poisson(rng(6), 50, 10))


def test_bursts_have_two_rates() -> None:
    times = arrivals.bursts(rng(), 20, 400, 3, 1, 400)
    within = times % 4
    assert np.all(np.diff(times) >= 0)
    assert (within < 3).sum() == pytest.approx(20 * 300, rel=0.05)
    assert (within >= 3).sum() == pytest.approx(400 * 100, rel=0.05)


def test_bursts_end_with_the_run() -> None:
    times = arrivals.bursts(rng(), 100, 1000, 2, 5, 3)
    assert times.max() < 3
    assert (times > 2).sum() == pytest.approx(1000, rel=0.2)


def test_diurnal_follows_its_sinusoid() -> None:
    times = arrivals.diurnal(rng(), 500, 0.8, 100, 200)
    counts = np.histogram(times % 100, 10, (0, 100))[0] / 20
    fine = 500 * (1 - 0.8 * np.cos(2 * np.pi * np.arange(0.05, 100, 0.1) / 100))
    assert counts == pytest.approx(fine.reshape(10, 100).mean(1), rel=0.06)
    assert len(times) == pytest.approx(100_000, rel=0.02)


def test_replay_counts_from_the_first_time(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("# recorded\n10.5\n\n11  # second\n14.5\n")
    assert arrivals.replay(tmp_path / "t").tolist() == [0, 0.5, 4]
    assert arrivals.replay(tmp_path / "t", speed=2).tolist() == [0, 0.25, 2]


@pytest.mark.parametrize(
    ("text", "line"), [("1\nx\n", "line 2"), ("2\n1\n", "line 2"), ("nan\n", "line 1"), ("#\n", "no times")]
)
def test_replay_says_which_line_is_wrong(tmp_path: Path, text: str, line: str) -> None:
    (tmp_path / "t").write_text(text)
    with pytest.raises(ValueError, match=line):
        arrivals.replay(tmp_path / "t")


def test_too_many_requests_are_refused_before_they_are_drawn() -> None:
    with pytest.raises(ValueError, match="at most"):
        arrivals.poisson(rng(), 1e9, 1e6)
