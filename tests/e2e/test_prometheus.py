"""Every query of every panel and rule that is shipped, put to a real Prometheus that watches a loaded service."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.metrics import Metrics
from tests.deploy.tools import lacking
from tests.e2e import prometheus
from tests.e2e.prometheus import BUSY, CALM, DASHBOARDS, DEPLOY, Query, Seen
from tests.e2e.service import ROOT

QUERIES = [*prometheus.panels(), *prometheus.rules()]
ALERTS = [
    rule for group in yaml.safe_load((DEPLOY / "rules" / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]


def tool(name: str) -> str:
    """The path of a program of the package `prometheus`."""
    return shutil.which(name) or lacking(f"needs {name}")


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, full: bool) -> Iterator[Seen]:
    program = shutil.which("prometheus") or lacking("needs prometheus")
    yield from prometheus.watched(program, tmp_path_factory.mktemp("prometheus"), 30.0 if full else 8.0)


def named(query: Query) -> str:
    return f"{query.where}-{query.panel}-{query.legend}".replace(" ", "_")


@pytest.mark.parametrize("query", QUERIES, ids=named)
def test_every_query_answers_and_moves_with_the_load(seen: Seen, query: Query) -> None:
    found = seen.prometheus.over(query.expression, seen.start, seen.end, prometheus.SCRAPE)
    assert found, "no data"
    moving = 0
    for labels, points in found:
        values = {value for _, value in points if math.isfinite(value)}
        moving += len(values) > 1
        # Whatever a legend shows of a series, it has.
        assert set(re.findall(r"\{\{(\w+)\}\}", query.legend)) <= labels.keys()
    assert moving, f"{len(found)} series, none of which moved"


def mean(seen: Seen, expression: str, phase: str) -> float:
    """Of the last half of a phase, over all series."""
    start, end = seen.span(phase)
    found = seen.prometheus.over(expression, (start + end) / 2, end, prometheus.SCRAPE)
    values = [value for _, points in found for _, value in points if math.isfinite(value)]
    return sum(values) / max(len(values), 1)


def expression(dashboard: str, panel: str) -> str:
    return next(query.expression for query in prometheus.panels() if (query.where, query.panel) == (dashboard, panel))


def test_panels_say_what_was_sent(seen: Seen) -> None:
    """Two rates four times apart, and then more than can be done."""
    requests = expression("squint-service", "Requests")
    assert mean(seen, requests, "calm") == pytest.approx(CALM, rel=0.3)
    assert mean(seen, requests, "busy") == pytest.approx(BUSY, rel=0.3)
    engines = expression("squint-capacity", "Engines busy")
    assert 0 < mean(seen, engines, "calm") < mean(seen, engines, "busy") < mean(seen, engines, "too much")
    refused = expression("squint-service", "Not served")
    assert mean(seen, refused, "calm") == 0.0
    assert mean(seen, refused, "too much") > 0.01
    down = expression("squint-models", "Levels that auto stands below the highest")
    assert mean(seen, down, "calm") == 0.0
    assert mean(seen, down, "too much") > 0.0


def test_stages_are_told_apart_by_model_and_level(seen: Seen) -> None:
    found = seen.prometheus.over(
        expression("squint-models", "p99 by model, level and stage"), seen.start, seen.end, prometheus.SCRAPE
    )
    there = {(labels["model"], labels["level"], labels["stage"]) for labels, _ in found}
    stages = ("decode", "queue", "infer", "post")
    assert {("fake-classify", "full", stage) for stage in stages} <= there
    assert {("fake-classify", "custom", stage) for stage in stages} <= there
    assert {("fake-detect", "full", stage) for stage in stages} <= there


def test_no_rule_fails(seen: Seen) -> None:
    groups = seen.prometheus.get("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) > 20
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []


def test_an_alert_fires_when_it_should(seen: Seen) -> None:
    """Seconds of too much are more than the budgets of an hour allow, when the hour has just begun."""
    firing = 'ALERTS{alertname="SquintNotServedFast", alertstate="firing"}'
    assert not seen.prometheus.over(firing, *seen.span("calm"), prometheus.SCRAPE)
    assert seen.prometheus.over(firing, *seen.span("processes killed"), prometheus.SCRAPE)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_variable_of_a_dashboard_has_values(seen: Seen, path: Path) -> None:
    for variable in json.loads(path.read_text())["templating"]["list"]:
        if variable["type"] != "query":
            continue
        metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"]).groups()  # type: ignore[union-attr]
        values = seen.prometheus.get(f"label/{label}/values", **{"match[]": metric})
        assert values, variable["name"]


# --- without a service ---------------------------------------------------------------------------------------------


def promtool(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([tool("promtool"), *arguments], input=stdin, capture_output=True, timeout=120)


def test_promtool_accepts_configuration_and_rules() -> None:
    done = promtool("check", "config", str(DEPLOY / "prometheus.yml"))
    assert done.returncode == 0, done.stderr.decode()
    assert b"FAILED" not in done.stdout + done.stderr
    for path in (DEPLOY / "rules").glob("*.yml"):
        done = promtool("check", "rules", "--lint-fatal", str(path))
        assert done.returncode == 0, (done.stdout + done.stderr).decode()


def test_every_alert_fires_when_it_should_and_not_when_all_is_well() -> None:
    done = promtool("test", "rules", str(DEPLOY / "tests" / "alerts.yml"))
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


def test_every_alert_is_tested_both_ways() -> None:
    tested: Counter[tuple[str, bool]] = Counter()
    for test in yaml.safe_load((DEPLOY / "tests" / "alerts.yml").read_text())["tests"]:
        for case in test["alert_rule_test"]:
            tested[case["alertname"], bool(case["exp_alerts"])] += 1
    assert {(rule["alert"], fires) for rule in ALERTS for fires in (True, False)} <= tested.keys()


def test_promtool_has_nothing_to_say_about_the_names() -> None:
    done = promtool("check", "metrics", stdin=Metrics("1").render())
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_no_query_makes_up_data() -> None:
    shipped = "\n".join(path.read_text() for path in [*DASHBOARDS, *(DEPLOY / "rules").glob("*.yml")])
    assert not re.search(r"\b(vector|absent|absent_over_time)\s*\(", shipped)


def test_every_alert_says_what_to_do() -> None:
    page = (ROOT / "docs" / "observability.md").read_text()
    for rule in ALERTS:
        assert rule["annotations"].keys() == {"summary", "description"}
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert f"| `{rule['alert']}` |" in page, rule["alert"]


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_sound(path: Path) -> None:
    board = json.loads(path.read_text())
    assert board["uid"] == path.stem
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and place["x"] + place["w"] <= 24
        taken |= cells
        assert panel["title"] and panel["targets"]
        assert panel["fieldConfig"]["defaults"].get("unit") or panel["options"]["yAxis"]["unit"]
        assert _sources(panel) == {"${datasource}"}
    known = {variable["name"] for variable in board["templating"]["list"]} | {"__rate_interval"}
    assert set(re.findall(r"\$(\w+)", json.dumps([panel["targets"] for panel in board["panels"]]))) <= known


def _sources(node: Any) -> set[str]:
    """Every data source that is named in a panel."""
    if isinstance(node, list):
        return {found for each in node for found in _sources(each)}
    if not isinstance(node, dict):
        return set()
    own = {node["datasource"]["uid"]} if "datasource" in node else set()
    return own | {found for each in node.values() for found in _sources(each)}


def test_what_is_provisioned_is_there() -> None:
    folder = DASHBOARDS[0].parents[1] / "provisioning"
    source = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())["datasources"][0]
    scraped = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert source["type"] == "prometheus"
    assert source["jsonData"]["timeInterval"] == scraped
    provider = yaml.safe_load((folder / "dashboards" / "squint.yml").read_text())["providers"][0]
    assert provider["type"] == "file"
    assert len(DASHBOARDS) == 3
