"""The outcome of a scenario as a file for programs (JSON), a page for people (HTML), and rows for a terminal."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

import msgspec

from loadtest import svg
from loadtest.drive import Outcome, Point, Run
from loadtest.svg import Series

OUTCOMES = (
    ("on time", "on_time", "#2e8b57"),
    ("late", "late", "#e0a030"),
    ("refused", "refused", "#8899aa"),
    ("error", "error", "#b00020"),
)
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1600px; margin: 2em auto; padding: 0 1.5em }
table { border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums }
th, td { padding: .25em .7em; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(560px, 1fr)); gap: 1em }
.plots svg { border: 1px solid #e5e5e5; width: 100%; height: auto }
pre { background: #f6f6f6; padding: 1em; overflow: auto }
.stopped { color: #b00020; font-weight: 600 }
"""


def write(outcome: Outcome, stem: Path) -> tuple[Path, Path]:
    """Write STEM.json and STEM.html, each whole or not at all; returns their paths. Raises OSError."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    plain = json.dumps(msgspec.to_builtins(outcome), indent=1)
    written = []
    for ending, text in ((".json", plain), (".html", page(outcome))):
        path = stem.with_name(stem.name + ending)
        part = path.with_name(path.name + ".part")
        part.write_text(text + "\n", encoding="utf-8")
        part.replace(path)
        written.append(path)
    return written[0], written[1]


def rows(outcome: Outcome) -> list[dict[str, Any]]:
    """One row per point: what a terminal or a table shows. Times in milliseconds, shares in percent."""
    found = []
    for point in outcome.points:
        one, shares = point.summary, point.summary.shares
        found.append(
            {
                "run": point.name,
                "load": None if point.load is None else round(point.load, 2),
                "sent/s": round(one.offered, 1),
                "goodput/s": round(one.goodput, 1),
                "on time %": round(100 * shares["on_time"], 2),
                "late %": round(100 * shares["late"], 2),
                "refused %": round(100 * shares["refused"], 2),
                "error %": round(100 * shares["error"], 2),
                "p50": _short(one.latency.p50),
                "p99": _short(one.latency.p99),
                "p99 from-to": f"{_words(one.latency.p99_low)}-{_words(one.latency.p99_high)}",
                "refusal p99": _short(one.refusal.p99),
                "lag p99": _short(one.lag["p99"]),
                "sender %": round(100 * one.sender["cpu_share"], 1),
                "levels": _mix(one.levels),
            }
        )
    return found


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 1 if value >= 10 else 2)


def _words(value: float | None) -> str:
    return "?" if value is None else f"{_short(value):g}"


def _mix(levels: dict[str, int]) -> str:
    whole = sum(levels.values())
    if len(levels) == 1:
        return next(iter(levels))
    return " ".join(f"{name} {count / whole:.0%}" for name, count in sorted(levels.items(), key=lambda one: -one[1]))


# --- the page --------------------------------------------------------------------------------------------------------


def page(outcome: Outcome) -> str:
    """A self-contained HTML page."""
    name = escape(str(outcome.scenario["name"]))
    stopped = '<p class="stopped">Interrupted: what follows is what was measured until then.</p>'
    plots = [*over_load(outcome), *(plot for run in outcome.runs for plot in over_time(run))]
    return "\n".join(
        [
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Load: {name}</title>',
            f"<style>{STYLE}</style></head><body><h1>Load: {name}</h1>",
            f"<p>{_sentence(outcome)}</p>",
            stopped if outcome.interrupted else "",
            _table(rows(outcome)),
            "<p>Times in milliseconds from the intended send time. Goodput: answers 200 within the deadline, per "
            "second. p99 from-to: its 95 % interval by ranks.</p>",
            _list(outcome.notes),
            f'<div class="plots">{"".join(plots)}</div>',
            "<h2>Machine and sender</h2>",
            f"<pre>{escape(json.dumps(outcome.machine, indent=1))}</pre>",
            "<h2>Scenario</h2>",
            f"<pre>{escape(json.dumps(outcome.scenario, indent=1))}</pre></body></html>",
        ]
    )


def _sentence(outcome: Outcome) -> str:
    words = [f"{escape(outcome.url)}{escape(str(outcome.scenario.get('path', '/classify')))}"]
    deadline = outcome.scenario.get("deadline_ms")
    words.append(f"deadline {deadline:g} ms" if deadline else "no deadline")
    if outcome.capacity:
        how = "measured in a closed loop" if outcome.capacity_measured else "given"
        words.append(f"capacity {outcome.capacity:.1f}/s ({how})")
    sizes = [f"{kind} ({sum(each) / len(each) / 1000:.1f} kB, {len(each)})" for kind, each in outcome.images.items()]
    return ", ".join([*words, "images " + " and ".join(sizes), escape(str(outcome.machine["date"]))])


def _table(found: list[dict[str, Any]]) -> str:
    if not found:
        return "<p>Nothing was measured.</p>"
    head = "".join(f"<th>{escape(name)}</th>" for name in found[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{'-' if cell is None else escape(str(cell))}</td>" for cell in row.values()) + "</tr>"
        for row in found
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _list(notes: list[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul>" if notes else ""


def over_load(outcome: Outcome) -> list[str]:
    """Latency, goodput and shares of levels against what was offered; for two open-loop points or more."""
    points = sorted((one for one in outcome.points if not one.summary.closed), key=lambda one: one.summary.offered)
    if len(points) < 2:
        return []
    deadline = points[0].summary.deadline_ms
    unit, x = ("offered load, multiples of capacity", "load") if outcome.capacity else ("offered, requests/s", "rate")
    at = [_across(point, outcome.capacity if x == "load" else None) for point in points]
    marks = [(1.0 if x == "load" else outcome.capacity, "capacity")] if outcome.capacity else []
    latency = [
        Series(name, [(where, getattr(point.summary.latency, name)) for where, point in zip(at, points, strict=True)])
        for name in ("p50", "p95")
    ]
    p99 = [(where, point.summary.latency.p99) for where, point in zip(at, points, strict=True)]
    latency.append(Series("p99 with its interval", p99, spans=[_span(point) for point in points]))
    refusal = [(where, point.summary.refusal.p99) for where, point in zip(at, points, strict=True)]
    if any(y is not None for _, y in refusal):
        latency.append(Series("refusals p99", refusal, "#8899aa", dashed=True))
    rates = [
        Series("goodput", [(where, one.summary.goodput) for where, one in zip(at, points, strict=True)], "#2e8b57"),
        Series(
            "answered 200", [(where, one.summary.answered) for where, one in zip(at, points, strict=True)], "#e0a030"
        ),
        Series(
            "offered", [(where, one.summary.offered) for where, one in zip(at, points, strict=True)], "#999999", True
        ),
    ]
    limit = (deadline, "deadline") if deadline else None
    plots = [
        svg.lines("Latency over load", unit, "ms", latency, log_y=True, marks=marks, limit=limit),
        svg.lines("Goodput over load", unit, "requests/s", rates, marks=marks),
    ]
    return plots + _levels_over_load(points, at, unit)


def _across(point: Point, capacity: float | None) -> float:
    return point.summary.offered / capacity if capacity else point.summary.offered


def _span(point: Point) -> tuple[float, float] | None:
    low, high, most = point.summary.latency.p99_low, point.summary.latency.p99_high, point.summary.latency.max
    return None if low is None or most is None else (low, most if high is None else high)


def _levels_over_load(points: list[Point], at: list[float], unit: str) -> list[str]:
    names = list(dict.fromkeys(name for point in points for name in point.summary.levels))
    if len(names) < 2:
        return []
    series = []
    for name in names:
        shares = [one.summary.levels.get(name, 0) / max(1, sum(one.summary.levels.values())) for one in points]
        series.append(Series(name, [(x, 100 * share) for x, share in zip(at, shares, strict=True)]))
    return [svg.lines("Levels over load", unit, "% of answers", series)]


def over_time(run: Run) -> list[str]:
    """Outcomes, latency and levels along a run."""
    if not run.timeline:
        return []
    edges = [moment.at for moment in run.timeline] + [run.timeline[-1].at + run.timeline[-1].seconds]
    marks = [(point.begin, point.name) for point in run.points] if len(run.points) > 1 else []
    title = ", ".join(point.name for point in run.points) if len(run.points) == 1 else "all phases"
    layers = [
        (name, [getattr(moment.counts, key) / moment.seconds for moment in run.timeline], colour)
        for name, key, colour in OUTCOMES
    ]
    middle = [moment.at + moment.seconds / 2 for moment in run.timeline]
    latency = [
        Series(name, [(x, getattr(one, name)) for x, one in zip(middle, run.timeline, strict=True)])
        for name in ("p50", "p99")
    ]
    deadline = run.points[0].summary.deadline_ms if run.points else None
    limit = (deadline, "deadline") if deadline else None
    plots = [
        svg.stacks(f"Outcomes over time: {title}", "seconds", "requests/s", edges, layers, marks=marks),
        svg.lines(f"Latency over time: {title}", "seconds", "ms", latency, log_y=True, marks=marks, limit=limit),
    ]
    names = list(dict.fromkeys(name for moment in run.timeline for name in moment.levels))
    if names:
        served = [(name, [one.levels.get(name, 0) / one.seconds for one in run.timeline], "") for name in names]
        plots.append(svg.stacks(f"Levels over time: {title}", "seconds", "answers/s", edges, served, marks=marks))
    return plots
