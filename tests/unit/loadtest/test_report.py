from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from loadtest import drive, report, scenario, svg
from loadtest.drive import Outcome
from loadtest.svg import Series
from tests.unit.loadtest.server import Asked, Server, answer

SWEEP = """
name = "two"
deadline_ms = 500
warmup_seconds = 0.1
capacity = 100
[[images]]
kind = "thumbnail"
count = 2
[sweep]
seconds = 0.6
load = [0.5, 1]
pause_seconds = 0
"""


def reply(asked: Asked) -> bytes:
    if asked.number % 5 == 0:
        return answer(429, Retry_After="1")
    return answer(X_Squint_Level="full" if asked.number % 2 else "fast <b>")


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    with Server(reply) as server:
        return drive.run(scenario.parse(SWEEP), server.url)


def test_a_sweep_has_a_point_for_every_load(outcome: Outcome) -> None:
    assert [(point.name, point.rate, point.load) for point in outcome.points] == [("0.5x", 50, 0.5), ("1x", 100, 1)]
    for point in outcome.points:
        counts = point.summary.counts
        assert counts.sent == counts.on_time + counts.late + counts.refused
        assert counts.refused == pytest.approx(counts.sent / 5, abs=3)
        assert set(point.summary.levels) == {"full", "fast <b>"}
    assert outcome.points[0].summary.counts.sent < outcome.points[1].summary.counts.sent


def test_the_json_holds_everything(outcome: Outcome, tmp_path: Path) -> None:
    path, _ = report.write(outcome, tmp_path / "new" / "x")
    found = json.loads(path.read_text())
    assert found["scenario"]["name"] == "two"
    assert found["capacity"] == 100
    assert len(found["images"]["thumbnail"]) == 2
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["packages"]["uvloop"]
    assert [run["points"][0]["name"] for run in found["runs"]] == ["0.5x", "1x"]
    summary = found["runs"][0]["points"][0]["summary"]
    assert summary["latency"]["p99"] >= summary["latency"]["p50"] > 0
    assert sum(moment["counts"]["sent"] for moment in found["runs"][0]["timeline"]) == summary["counts"]["sent"]
    assert sorted(each.name for each in path.parent.iterdir()) == ["x.html", "x.json"]


def test_the_page_stands_alone_and_escapes_what_the_server_said(outcome: Outcome) -> None:
    page = report.page(outcome)
    for part in ("<script", "src=", "href=", "@import", "url("):
        assert part not in page
    assert "fast <b>" not in page
    assert "fast &lt;b&gt;" in page
    for title in ("Latency over load", "Goodput over load", "Outcomes over time", "Levels over time"):
        assert title in page


def test_every_plot_is_well_formed(outcome: Outcome) -> None:
    plots = [*report.over_load(outcome), *(plot for run in outcome.runs for plot in report.over_time(run))]
    assert len(plots) == 3 + 2 * 3
    for plot in plots:
        assert ElementTree.fromstring(plot).tag.endswith("svg")
        assert "nan" not in plot


def test_a_row_per_point(outcome: Outcome) -> None:
    first, second = report.rows(outcome)
    assert (first["run"], second["run"]) == ("0.5x", "1x")
    assert first["on time %"] + first["late %"] + first["refused %"] == pytest.approx(100, abs=0.1)


def test_points_of_a_line_lie_where_their_values_say() -> None:
    plot = ElementTree.fromstring(svg.lines("t", "x", "y", [Series("one", [(0, 0), (5, 50), (10, 100)])]))
    dots = [(float(dot.get("cx", 0)), float(dot.get("cy", 0))) for dot in plot.iter() if dot.tag.endswith("circle")]
    assert len(dots) == 3
    assert dots[0] == pytest.approx((svg.LEFT, svg.HEIGHT - svg.BOTTOM))
    assert dots[1][0] - dots[0][0] == pytest.approx(dots[2][0] - dots[1][0], abs=0.2)
    assert dots[0][1] - dots[1][1] == pytest.approx(dots[1][1] - dots[2][1], abs=0.2)


def test_gaps_and_nothing_at_all_can_be_drawn() -> None:
    parted = svg.lines("t", "x", "y", [Series("a", [(0, 1), (1, None), (2, 3)])], log_y=True)
    assert parted.count("<polyline") == 2
    for empty in (svg.lines("t", "x", "y", []), svg.stacks("t", "x", "y", [0, 1], [("a", [0], "")])):
        assert "nothing was measured" in empty


def test_ticks_are_round_and_inside() -> None:
    assert svg.Scale(0, 60, 0, 1).ticks() == [0, 10, 20, 30, 40, 50, 60]
    assert svg.Scale(3, 250, 0, 1, log=True).ticks() == [5, 10, 20, 50, 100, 200]


def test_a_run_that_fell_behind_or_failed_says_so() -> None:
    def bad(asked: Asked) -> bytes:
        return answer(404, b'{"code": "unknown_model"}')

    text = 'name = "x"\nwarmup_seconds = 0\n[[images]]\nkind = "thumbnail"\n[[phases]]\nrate = 50\nseconds = 0.3'
    with Server(bad) as server:
        found = drive.run(scenario.parse(text), server.url)
    assert any("answers 404, the first: " in note and "unknown_model" in note for note in found.notes)


def test_capacity_is_measured_without_the_deadline() -> None:
    text = (
        SWEEP.replace("capacity = 100", "")
        .replace("load = [0.5, 1]", "load = [0.01]")
        .replace("seconds = 0.6", "seconds = 0.2")
    )
    text += "[capacity]\nconnections = 2\nseconds = 0.2\nwarmup_seconds = 0\n"
    with Server() as server:
        found = drive.run(scenario.parse(text), server.url)
        heads = [asked.head for asked in server.asked]
    assert found.capacity is not None
    assert found.capacity > 5
    assert found.points[0].rate == pytest.approx(0.01 * found.capacity)
    told = ["X-Request-Timeout-Ms: 500" in head for head in heads]
    assert not told[0]
    assert told[-1]


def test_capacity_of_a_server_that_refuses_all_is_an_error() -> None:
    text = SWEEP.replace("capacity = 100", "capacity = {connections = 1, seconds = 0.2, warmup_seconds = 0}")
    with Server(lambda asked: answer(401, b"who?")) as server, pytest.raises(scenario.ScenarioError, match=r"who\?"):
        drive.run(scenario.parse(text), server.url)
