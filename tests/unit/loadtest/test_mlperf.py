from __future__ import annotations

import importlib.util

import pytest

from loadtest import mlperf, scenario
from loadtest.scenario import ScenarioError
from tests.unit.loadtest.server import Asked, Server, answer

SAID = """\
================================================
MLPerf Results Summary
================================================
SUT name : PySUT
Scenario : Server
Mode     : PerformanceOnly
Completed samples per second    : 197.54
Result is : INVALID
  Performance constraints satisfied : Yes
  Min duration satisfied : Yes
  Min queries satisfied : Yes
  Early stopping satisfied: NO
Recommendations:
Early Stopping Result:
 * Run unsuccessful.
 * Processed 595 queries.
 * Would need to run at least 243 more queries,
 with the run being successful if every additional
 query were under latency.

================================================
Additional Stats
================================================
Scheduled samples per second : 197.91
99.00 percentile latency (ns)   : 14809902

================================================
Test Parameters Used
================================================
target_qps : 200
target_latency (ns): 20000000
"""
SCENARIO = """
name = "x"
deadline_ms = 200
[[images]]
kind = "thumbnail"
count = 2
[[phases]]
rate = 100
seconds = 1
"""


def test_the_summary_is_read_as_it_is_written() -> None:
    found = mlperf.read(SAID, {"200": 595})
    assert not found.valid
    assert not found.early_stopping
    assert found.advice.startswith("Run unsuccessful. Processed 595 queries. Would need to run at least 243 more")
    rows = {row["what"]: row["value"] for row in found.rows()}
    assert rows["LoadGen's verdict"] == "INVALID"
    assert rows["99.00 percentile latency (ms)"] == "14.81"
    assert rows["target_latency (ms)"] == "20.00"
    assert rows["answers"] == "200: 595"


def test_a_valid_summary() -> None:
    found = mlperf.read(SAID.replace("INVALID", "VALID").replace("satisfied: NO", "satisfied: Yes"), {})
    assert found.valid
    assert found.early_stopping


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SCENARIO.replace("deadline_ms = 200", ""), "needs deadline_ms"),
        (SCENARIO.replace("rate = 100", 'kind = "closed"\nconnections = 1'), "a first phase with a rate"),
    ],
)
def test_a_scenario_that_it_cannot_send(text: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(ScenarioError, match=message):
        mlperf.run(scenario.parse(text), "http://127.0.0.1:9")


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(mlperf.LoadgenFailed, match="install the extra 'loadgen'"):
        mlperf.run(scenario.parse(SCENARIO), "http://127.0.0.1:9")


def test_it_sends_and_judges() -> None:
    with Server() as server:
        found = mlperf.run(scenario.parse(SCENARIO), server.url, least=100)
        assert found.outcomes == {"200": len(server.asked)}
    assert int(found.summary["min_query_count"]) == 100


def test_what_is_refused_counts_as_too_late() -> None:
    def reply(asked: Asked) -> bytes:
        return answer(429) if asked.number % 2 else answer()

    with Server(reply) as server:
        found = mlperf.run(scenario.parse(SCENARIO), server.url, least=100)
    assert not found.valid
    assert found.outcomes["429"] > 30
    assert int(found.summary["99.00 percentile latency (ns)"]) >= 400_000_000
