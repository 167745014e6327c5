"""What the panels of the dashboards show of a service under load: `python -m tests.bench.dashboards [--seconds S]`.

A real Prometheus watches a service on the fake backend through calm, busy, too much, dying processes, and its end.
Every panel's queries are then put to it, and each dashboard becomes a picture in docs/plots.
"""

from __future__ import annotations

import argparse
import math
import re
import shutil
import sys
import tempfile
from pathlib import Path

from loadtest import svg
from loadtest.svg import Series
from tests.e2e import prometheus
from tests.e2e.prometheus import Seen
from tests.e2e.service import ROOT

COLUMNS, GAP = 2, 20
UNITS = {"s": "seconds", "reqps": "requests/s", "cps": "per second", "percentunit": "share"}
SERIES = 6
"""Most lines in one picture: those that reach highest."""


def panel(seen: Seen, title: str, queries: list[prometheus.Query]) -> str:
    """One panel as a picture."""
    drawn: list[tuple[float, Series]] = []
    for query in queries:
        for labels, points in seen.prometheus.over(query.expression, seen.start, seen.end, prometheus.SCRAPE):
            name = _legend(query.legend, labels)
            finite = {at: value for at, value in points if math.isfinite(value)}
            steps = round((seen.end - seen.start) / prometheus.SCRAPE)
            times = [seen.start + step * prometheus.SCRAPE for step in range(steps + 1)]
            line = [(at - seen.start, _near(finite, at)) for at in times]
            drawn.append((max(finite.values(), default=0.0), Series(_short(name) or title.lower(), line)))
    drawn.sort(key=lambda one: -one[0])
    marks = [(at - seen.start, phase) for phase, at in list(seen.phases.items())[:-1]]
    more = f" ({SERIES} of {len(drawn)})" if len(drawn) > SERIES else ""
    return svg.lines(
        title + more, "seconds", UNITS.get(queries[0].unit, ""), [one for _, one in drawn[:SERIES]], marks=marks
    )


def _legend(form: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), form)


def _near(values: dict[float, float], at: float) -> float | None:
    """The value at a time; the server rounds times to milliseconds."""
    return next((value for time, value in values.items() if abs(time - at) < 0.01), None)


def _short(name: str) -> str:
    return name.replace("fake-", "").replace(" · ", " ").replace("127.0.0.1:", ":")


def board(seen: Seen, name: str) -> str:
    """One dashboard as a picture."""
    panels: dict[str, list[prometheus.Query]] = {}
    for query in prometheus.panels():
        if query.where == name:
            panels.setdefault(query.panel, []).append(query)
    rows = math.ceil(len(panels) / COLUMNS)
    wide, high = svg.WIDTH + GAP, svg.HEIGHT + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {COLUMNS * wide} {rows * high}" role="img">'
        '<rect width="100%" height="100%" fill="#ffffff"/>'
    ]
    for number, (title, queries) in enumerate(panels.items()):
        across, down = number % COLUMNS * wide, number // COLUMNS * high
        place = f'<svg x="{across}" y="{down}" width="{svg.WIDTH}" height="{svg.HEIGHT}" '
        parts.append(panel(seen, title, queries).replace("<svg ", place, 1))
    return "".join([*parts, "</svg>\n"])


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each of the first three phases")
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "plots")
    options = parser.parse_args()
    program = shutil.which("prometheus")
    if program is None:
        print("needs prometheus (on Debian and Ubuntu: apt-get install prometheus)", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        for seen in prometheus.watched(program, Path(folder), options.seconds, tell=print):
            for path in prometheus.DASHBOARDS:
                picture = options.to / f"{path.stem}.svg"
                picture.write_text(board(seen, path.stem))
                print(picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
