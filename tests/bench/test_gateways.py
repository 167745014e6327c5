"""What several gateways cost where one would do: run on an otherwise idle machine (`make bench`)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.bench import stages
from tests.e2e.service import ROOT

pytestmark = [
    pytest.mark.bench,
    pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk sends what is measured"),
]

LEAST_SHARE = 0.9
"""Of the requests that one gateway answers, on two CPUs that all processes and the clients share."""
SECONDS, ROUNDS, CONNECTIONS = 4.0, 5, 64


def test_two_gateways_and_a_dispatcher_cost_a_tenth_at_most(tmp_path: Path) -> None:
    """With a model that costs nothing."""
    stages.free_model(tmp_path / "models")
    load = stages.Load(tmp_path, CONNECTIONS)
    trees = {f"{count} gateways": (ROOT, ["--gateways", str(count)]) for count in (1, 2)}
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:2])
    try:
        with stages.services(trees, tmp_path, []) as running:
            rounds: dict[str, list[stages.Row]] = {name: [] for name in running}
            for _ in range(ROUNDS):
                for name, service in running.items():
                    rounds[name].append(stages.measured(load, service, SECONDS, "/classify"))
    finally:
        os.sched_setaffinity(0, before)
    print("\n" + stages.table(rounds))
    share = stages.of_first(rounds)["2 gateways"]
    print(f"2 gateways: {share:.3f} of the requests per second of one")
    assert share >= LEAST_SHARE
