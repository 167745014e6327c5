"""One page of what came of a run: what must be true and whether it is, then every step with its figures and plots."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest import svg
from tests.gpu.plan import Result, Settings, Step

PAGE, DATA = "report.md", "report.json"
Data = dict[str, dict[str, Any]]
"""By step: its figures."""


@dataclass(frozen=True, slots=True)
class Bar:
    """Something that must be true. `value` takes it from the figures and raises LookupError, TypeError or ValueError
    where they lack it; it has to be at least `least`, or at most `most`."""

    what: str
    step: str
    value: Callable[[Data], float]
    least: float | None = None
    most: float | None = None

    def row(self, data: Data, results: dict[str, Result]) -> list[str]:
        """What, how much is wanted, how much it is, and the verdict."""
        wanted = f"at least {self.least:g}" if self.least is not None else f"at most {self.most:g}"
        try:
            value = self.value(data)
        except (LookupError, TypeError, ValueError):
            found = results.get(self.step)
            return [self.what, wanted, "", f"not measured ({found.why or found.status if found else 'not run'})"]
        met = (self.least is None or value >= self.least) and (self.most is None or value <= self.most)
        return [self.what, wanted, f"{value:.3g}", "met" if met else "missed"]


def _served(name: str, *path: str) -> Callable[[Data], float]:
    def value(data: Data) -> float:
        found: Any = {one["network"]: one for one in data["served"]["networks"]}[name]
        for key in path:
            found = found[key]
        return float(found)

    return value


def _share(name: str) -> Callable[[Data], float]:
    return lambda data: max(
        row["share"] for row in data["engine"]["rows"] if row["network"] == name and row["level"] == "full"
    )


def _speedup(name: str, level: str) -> Callable[[Data], float]:
    return lambda data: max(
        row["speedup"] for row in data["engine"]["speedups"] if (row["network"], row["level"]) == (name, level)
    )


def _wrong(data: Data) -> float:
    return float(sum(bool(row["wrong"]) for row in _rows(data, "agreement")))


def _on_the_cpu(data: Data) -> float:
    return float(sum(bool(row["problem"]) for row in _rows(data, "placement")))


def _otherwise(data: Data) -> float:
    return float(sum(bool(row["problem"]) for row in _rows(data, "decoding")))


def _rows(data: Data, step: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = data[step]["rows"]
    if not rows:
        raise LookupError(step)
    return rows


BARS = (
    Bar("levels that disagree with PyTorch fp32", "agreement", _wrong, most=0),
    Bar("levels with a node on the CPU (ONNX Runtime)", "placement", _on_the_cpu, most=0),
    Bar("kinds of JPEG that the device decodes otherwise", "decoding", _otherwise, most=0),
    Bar("ViT-L bf16, bare: share of the rate of matrix products", "engine", _share("vit-l"), least=0.45),
    Bar("ViT-B `fast`, bare: speed-up at the best batch", "engine", _speedup("vit-b", "fast"), least=1.4),
    Bar("ViT-L `fast`, bare: speed-up at the best batch", "engine", _speedup("vit-l", "fast"), least=1.4),
    Bar("ViT-L served from JPEG over the bare engine", "served", _served("vit-l", "served_of_bare"), least=0.85),
    Bar("ViT-B served from JPEG over the bare engine", "served", _served("vit-b", "served_of_bare"), least=0.5),
    Bar("ViT-L p99 at 70 % load, in batch times", "served", _served("vit-l", "p99_in_batches"), most=2),
    Bar("ViT-B p99 at 70 % load, in batch times", "served", _served("vit-b", "p99_in_batches"), most=2),
    Bar("ViT-L goodput at twice the load over the peak", "served", _served("vit-l", "twice_full", "of_capacity"), 0.92),
    Bar("ViT-L with `auto` over the peak of `full`", "served", _served("vit-l", "twice_auto", "of_capacity"), 1.3),
    Bar("start to ready from what was kept, s", "start", lambda data: float(data["start"]["again_seconds"]), most=15),
)


def write(settings: Settings, steps: Sequence[Step], results: Sequence[Result]) -> Path:
    """The page, its data and its plots, in the run's folder; the page's path."""
    folder = Path(settings.out)
    folder.mkdir(parents=True, exist_ok=True)
    found = {result.step: result for result in results}
    data = {result.step: result.data for result in results}
    whole = {name: {"status": one.status, "why": one.why, "seconds": one.seconds, "date": one.date, **one.data}
             for name, one in found.items()}  # fmt: skip
    (folder / DATA).write_text(json.dumps(whole, indent=1) + "\n")
    parts = ["# What a GPU check found", _of_machine(settings, data.get("machine", {}))]
    if settings.small:
        parts.append("A **small** run, with tiny networks: it tests the script. Its figures say nothing about a GPU.")
    else:
        rows = [bar.row(data, found) for bar in BARS]
        parts += ["## What must be true", table(["", "wanted", "found", ""], rows)]
    for step in steps:
        one = found.get(step.name)
        if one is None:
            continue
        parts.append(f"## {step.title}")
        parts.append(f"{one.status}, {one.seconds:g} s, {one.date}" + (f": {one.why}" if one.why else ""))
        parts += SECTIONS.get(step.name, _plain)(one.data, folder)
    path = folder / PAGE
    path.write_text("\n\n".join(part for part in parts if part) + "\n")
    return path


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table of Markdown; nothing without rows."""
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "/") for cell in line) + " |" for line in lines)


def _of_machine(settings: Settings, data: dict[str, Any]) -> str:
    devices = ", ".join(one["name"] + f" (driver {one['driver']})" for one in data.get("devices", ())) or "no GPU"
    libraries = ", ".join(f"{name} {version}" for name, version in data.get("libraries", {}).items())
    cpu = f"{data.get('cores', '?')} cores of {data.get('cpu', '?')}"
    return (
        f"On {settings.device}: {devices}; {cpu}. Backend `{settings.backend}`. {libraries}. {data.get('date', '')}.\n"
        "\nMade by `make gpu-check`; see docs/gpu.md."
    )


def _columns(rows: Sequence[dict[str, Any]], *names: str) -> str:
    return table(names, [[row.get(name, "") for name in names] for row in rows])


def _plain(data: dict[str, Any], folder: Path) -> list[str]:
    return [table(["", ""], [[name, json.dumps(value)] for name, value in data.items()])]


def _agreement(data: dict[str, Any], folder: Path) -> list[str]:
    rows = _columns(
        data.get("rows", ()), "model", "backend", "level", "images", "near", "ties", "decisions", "wrong", "reference"
    )
    return [rows, _columns(data.get("refused", ()), "model", "variant", "why")]


def _compiled(data: dict[str, Any], folder: Path) -> list[str]:
    return [_columns(data.get("rows", ()), "model", "variant", "batches", "seconds", "problem")]


def _placement(data: dict[str, Any], folder: Path) -> list[str]:
    return [_columns(data.get("rows", ()), "model", "level", "batch", "nodes", "problem")]


def _decoding(data: dict[str, Any], folder: Path) -> list[str]:
    told = {name: value for name, value in data.items() if name != "rows"}
    return [*_plain(told, folder), _columns(data.get("rows", ()), "kind", "fit", "largest", "mean", "problem")]


def _engine(data: dict[str, Any], folder: Path) -> list[str]:
    rows = data.get("rows", [])
    lines: dict[str, list[tuple[float, float | None]]] = {}
    for row in rows:
        if row["level"] == "full" or row["compiled"]:
            name = f"{row['network']} {row['level']}" + ("" if row["compiled"] else " eager")
            lines.setdefault(name, []).append((row["batch"], row.get("images_per_second")))
    plot = svg.lines("Bare engine, bf16", "batch", "images/s", [svg.Series(*item) for item in lines.items()])
    (folder / "engine.svg").write_text(plot)
    names = ("network", "level", "explicit", "gmacs", "compiled", "batch", "images_per_second", "share", "error")
    speed = _columns(data.get("speedups", ()), "network", "level", "explicit", "compiled", "speedup", "macs_ratio")
    told = f"Matrix products in bf16: {data.get('matmul_tflops', '?')} TFLOP/s."
    return [told, _columns(rows, *names), speed, "![images/s by batch](engine.svg)"]


def _of_served(data: dict[str, Any], folder: Path) -> list[str]:
    parts = []
    points = ("capacity", "at_70", "twice_full", "twice_auto")
    names = ("offered", "answered", "goodput", "p50_ms", "p99_ms", "deadline_ms", "levels", "statuses", "cpus_busy")
    for one in data.get("networks", ()):
        rows = [{"point": point, **one[point]} for point in points if point in one]
        parts.append(
            f"**{one['network']}** on `{one.get('variant', '?')}`: bare {one.get('bare', 0):.1f} images/s, served over "
            f"bare {one.get('served_of_bare', '?')}, p99 at 70 % {one.get('p99_in_batches', '?')} batch times."
        )
        parts.append(_columns(rows, "point", *names, "sender_share_of_cpus"))
    return parts


SECTIONS: dict[str, Callable[[dict[str, Any], Path], list[str]]] = {
    "agreement": _agreement,
    "compile": _compiled,
    "placement": _placement,
    "decoding": _decoding,
    "engine": _engine,
    "served": _of_served,
}
