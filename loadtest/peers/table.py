"""The tables of a run in Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from loadtest.peers.figures import (
    Point,
    Record,
    against,
    best_rival,
    goodput,
    loads,
    middle,
    names,
    of,
    percentile,
    points,
    rate,
)

SQUINT = "squint"


def markdown(record: Record) -> str:
    """All that a run found, as text."""
    parts = [f"# {TITLES[record['what']]}", _about(record)]
    for phase, write in (
        ("saturation", _saturation),
        ("capacity", _capacity),
        ("equal", _equal),
        ("overload", _overload),
    ):
        if names(record, phase):
            parts.append(write(record))
    if record["failures"]:
        parts.append("Not measured: " + "; ".join(f"{name}: {why}" for name, why in record["failures"].items()))
    return "\n\n".join(parts) + "\n"


TITLES = {
    "free": "Requests per second with a model that costs nothing",
    "free-uint8": "Requests per second with a model that costs nothing and has its normalisation folded for all",
    "vit": "p99 at equal load, ViT-S/16",
    "overload": "Goodput under overload, ViT-S/16",
}


def _about(record: Record) -> str:
    machine, options = record["machine"], record["options"]
    said = (
        f"{machine['cpu']}, {machine['cores']} cores; {machine['date']}; {options['seconds']:g} s per point, "
        f"rounds: {options['rounds']}; photos of 500x375, {record['photo_kb']:.0f} KB."
    )
    if record["points"]:
        sender = [point["summary"]["sender"]["cpu_share"] for point in record["points"]]
        other = [point["others"] for point in record["points"]]
        said += (
            f" Of all cores the load generator took {_percent(middle(sender))} (at most {_percent(max(sender))}), and "
            f"what has nothing to do with the run {_percent(middle(other))} (at most {_percent(max(other))})."
        )
    return said + (" **The run was stopped early.**" if record["interrupted"] else "")


def rows(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A table; the first column is text, the others are numbers."""
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in body])


def number(value: float) -> str:
    """Three significant digits, a dash for what was not measured."""
    if math.isnan(value):
        return "-"
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _title(record: Record, name: str) -> str:
    about = record["contenders"][name]
    return f"{about['title']} {about['version']}".strip()


def _cpu(point: Point) -> float:
    """The server's CPU milliseconds per answer."""
    summary = point["summary"]
    answered = summary["counts"]["on_time"] + summary["counts"]["late"]
    return 1000 * float(point["server"]["cpu_seconds"]) / answered if answered else math.nan


def _memory(point: Point) -> float:
    return float(point["server"]["memory_mib"])


def _ratio(record: Record, phase: str, name: str, load: float | None, value: Any) -> str:
    found = None if name == SQUINT else against(record, phase, SQUINT, name, load, value)
    return str(found) if found else ""


def _saturation(record: Record) -> str:
    used = loads(record, "saturation")
    head = ["server", *(f"{load:g} conn., requests/s" for load in used), "p50 at 1, ms", f"p99 at {used[-1]:g}, ms"]
    head += ["CPU ms per request", "memory, MB", f"Squint / it at {used[-1]:g}"]
    body = []
    for name in names(record, "saturation"):
        row = [_title(record, name)]
        row += [number(of(record, "saturation", name, load, rate)) for load in used]
        row += [number(of(record, "saturation", name, used[0], percentile("p50")))]
        row += [number(of(record, "saturation", name, used[-1], value)) for value in (percentile("p99"), _cpu, _memory)]
        body.append([*row, _ratio(record, "saturation", name, used[-1], rate)])
    return rows(head, body)


def _capacity(record: Record) -> str:
    body = [
        [_title(record, name), number(of(record, "capacity", name, None, rate)),
         number(of(record, "capacity", name, None, _cpu)), _ratio(record, "capacity", name, None, rate)]
        for name in names(record, "capacity")
    ]  # fmt: skip
    return rows(["server", "capacity, requests/s", "CPU ms per request", "Squint / it"], body)


def _equal(record: Record) -> str:
    head = [
        "server",
        "offered/s",
        "answered/s",
        "p50, ms",
        "p99, ms",
        "p99, all rounds, ms (95 %)",
        "its p99 / Squint's",
    ]
    body = []
    for name in names(record, "equal"):
        offered = middle([point["summary"]["offered"] for point in points(record, "equal", name)])
        row = [_title(record, name), number(offered), number(of(record, "equal", name, None, rate))]
        row += [number(of(record, "equal", name, None, percentile(which))) for which in ("p50", "p99")]
        found = None if name == SQUINT else against(record, "equal", name, SQUINT, None, percentile("p99"))
        body.append([*row, _pooled(record["pooled"].get(name)), str(found) if found else ""])
    best = best_rival(record, "equal", None, percentile("p99"), least=True)
    share = against(record, "equal", SQUINT, best, None, percentile("p99")) if best else None
    said = (
        f"\n\nSquint's p99 over that of the best rival ({record['contenders'][best]['title']}): {share}."
        if share
        else ""
    )
    return rows(head, body) + said


def _pooled(latency: dict[str, Any] | None) -> str:
    if not latency or latency["p99"] is None:
        return "-"
    high = "?" if latency["p99_high"] is None else number(latency["p99_high"])
    return f"{number(latency['p99'])} ({number(latency['p99_low'])}-{high})"


def _overload(record: Record) -> str:
    used = loads(record, "overload")
    head = [
        "server",
        "capacity/s",
        *(f"goodput/s at {load:g}x" for load in used),
        "2x: of capacity",
        "of its peak at 2x",
    ]
    head += ["at 5x", "2x: p99 of answers, ms", "p99 of refusals, ms", "refused", "late or failed"]
    body = []
    for name in names(record, "overload"):
        found = [of(record, "overload", name, load, goodput) for load in used]
        peak = max((value for value in found if not math.isnan(value)), default=math.nan)
        capacity = record["capacities"].get(name, math.nan)
        row = [_title(record, name), number(capacity), *(number(value) for value in found)]
        row += [number(_kept(record, name, *pair)) for pair in ((2.0, capacity), (2.0, peak), (5.0, peak))]
        row += [number(of(record, "overload", name, 2.0, value)) for value in (percentile("p99"), _refusal)]
        shares = [of(record, "overload", name, 2.0, value) for value in (_refused, _lost)]
        body.append([*row, *("-" if math.isnan(value) else _percent(value) for value in shares)])
    deadline = f"Deadline {record['deadline_ms']:.0f} ms; a service time is {record['service_ms']:.1f} ms. "
    return deadline + "Loads are multiples of each server's own capacity.\n\n" + rows(head, body)


def _kept(record: Record, name: str, load: float, of_what: float) -> float:
    return of(record, "overload", name, load, goodput) / of_what if of_what else math.nan


def _refusal(point: Point) -> float:
    value = point["summary"]["refusal"]["p99"]
    return math.nan if value is None else float(value)


def _refused(point: Point) -> float:
    return float(point["summary"]["shares"]["refused"])


def _lost(point: Point) -> float:
    shares = point["summary"]["shares"]
    return float(shares["late"] + shares["error"])
