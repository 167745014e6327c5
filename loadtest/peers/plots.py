"""The plots of a run; runs in an environment with matplotlib: `python -m loadtest.peers.plots RESULTS.json FOLDER`."""

# mypy: disable-error-code="import-not-found"
from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import matplotlib

from loadtest.peers.figures import Record, goodput, loads, names, of, percentile, points, rate

matplotlib.use("Agg")
from matplotlib import pyplot

COLOURS = {
    "squint": "#0b6e4f",
    "squint-auto": "#35b779",
    "squint-fastest": "#35b779",
    "triton": "#4d4d4d",
    "mosec": "#c1660c",
    "bentoml": "#7a5ba6",
    "litserve": "#2f6fb0",
    "ray": "#b03a5b",
}
WIDTH, HEIGHT, DPI = 8.0, 4.5, 130


def colour(name: str) -> str:
    """A server keeps its colour in every plot."""
    return COLOURS.get(name.removesuffix("-default"), "#666666")


def draw(record: Record, folder: Path) -> list[Path]:
    """All plots for which there are points."""
    drawn = []
    for phase, make in (("saturation", _bars), ("equal", _latencies), ("overload", _goodputs)):
        if names(record, phase):
            figure, axes = pyplot.subplots(figsize=(WIDTH, HEIGHT))
            make(record, axes)
            axes.spines[["top", "right"]].set_visible(False)
            machine = record["machine"]
            figure.text(0.99, 0.01, f"{machine['cores']} cores, {machine['cpu']}", ha="right", fontsize=7, color="#777")
            figure.tight_layout()
            path = folder / f"peers-{phase}.png"
            figure.savefig(path, dpi=DPI, metadata={"Software": None})
            pyplot.close(figure)
            drawn.append(path)
    return drawn


def _title(record: Record, name: str) -> str:
    return str(record["contenders"][name]["title"])


def _bars(record: Record, axes: Any) -> None:
    used, there = loads(record, "saturation"), names(record, "saturation")
    width = 0.8 / len(there)
    for at, name in enumerate(there):
        found = [of(record, "saturation", name, load, rate) for load in used]
        places = [index + (at - (len(there) - 1) / 2) * width for index in range(len(used))]
        bars = axes.bar(places, found, width, label=_title(record, name), color=colour(name))
        axes.bar_label(bars, fmt="%.0f", fontsize=6.5)
    axes.set_xticks(range(len(used)), [f"{load:g} connection{'s' if load != 1 else ''}" for load in used])
    axes.set_ylabel("requests per second")
    axes.set_title("A model that costs nothing: 500x375 JPEG in, top-5 JSON out")
    axes.legend(fontsize=8, frameon=False)


def _latencies(record: Record, axes: Any) -> None:
    there = names(record, "equal")
    for at, name in enumerate(there):
        middle, high = (of(record, "equal", name, None, percentile(which)) for which in ("p50", "p99"))
        axes.barh(at, high, color=colour(name), alpha=0.45, label="p99" if at == 0 else None)
        axes.barh(at, middle, color=colour(name), label="p50" if at == 0 else None)
        axes.text(high, at, f"  {high:.0f} ms", va="center", fontsize=8)
    offered = points(record, "equal")[0]["summary"]["offered"]
    axes.set_yticks(range(len(there)), [_title(record, name) for name in there])
    axes.invert_yaxis()
    axes.set_xlabel("latency, ms: p50 (dark) and p99 (light)")
    axes.set_title(f"ViT-S/16, all at {offered:.1f} requests per second, Poisson")


def _goodputs(record: Record, axes: Any) -> None:
    used = loads(record, "overload")
    for name in names(record, "overload"):
        found = [(load, of(record, "overload", name, load, goodput)) for load in used]
        known = [(load, value) for load, value in found if not math.isnan(value)]
        style = "--" if name.endswith("-default") else "-"
        thick = 2.4 if name.startswith("squint") else 1.4
        axes.plot(
            *zip(*known, strict=True), style, marker="o", lw=thick, color=colour(name), label=_title(record, name)
        )
    axes.set_xscale("log")
    axes.set_xticks(used, [f"{load:g}x" for load in used])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("offered load, multiples of the server's own capacity")
    axes.set_ylabel(f"answered within {record['deadline_ms']:.0f} ms, per second")
    axes.set_title("ViT-S/16: goodput under overload")
    axes.legend(fontsize=8, frameon=False)


def main() -> None:
    """Draw one file of results."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.peers.plots", description="Draw a run's plots.")
    parser.add_argument("results", type=Path, help="a file that a run wrote")
    parser.add_argument("folder", type=Path, help="where the plots go")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    for path in draw(json.loads(asked.results.read_text()), asked.folder):
        print(f"wrote {path.name}")


if __name__ == "__main__":
    main()
