"""`python -m loadtest.peers`: Squint and other servers with the same model and photos, in turns; a table and plots."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from loadtest.peers import environments, phases
from loadtest.peers.places import CACHE, PLOTS, RESULTS, ROOT, python_of
from loadtest.peers.servers import RIVALS, SERVERS
from loadtest.peers.session import Session, Stopped, contenders, say
from loadtest.peers.table import markdown

ADJUSTABLE = ("workers", "threads", "batch", "wait_ms")


@dataclass(frozen=True)
class Comparison:
    """One of the things to measure and how long it takes by default."""

    kind: str
    seconds: float
    rounds: int
    warmup: float
    quick: tuple[float, int]
    """Seconds and rounds with --quick."""
    with_ours: str = ""
    """Another way of ours to be asked or set up that is compared by default."""


COMPARISONS = {
    "free": Comparison("free", 8.0, 5, 1.0, (3.0, 1)),
    "free-uint8": Comparison("free-uint8", 8.0, 5, 1.0, (3.0, 1)),
    "vit": Comparison("vit", 60.0, 3, 2.0, (8.0, 1), "squint-fastest"),
    "overload": Comparison("vit", 60.0, 1, 5.0, (6.0, 1), "squint-auto"),
}


def options() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.peers", description=__doc__, allow_abbrev=False)
    parser.add_argument("--what", choices=[*COMPARISONS, "all"], default="all", help="what to measure (default all)")
    parser.add_argument("--servers", metavar="A,B", help="default: squint and every rival; see README.md for names")
    parser.add_argument("--seconds", type=float, metavar="S", help="of each point (default: 8, 60, 60)")
    parser.add_argument("--rounds", type=int, metavar="N", help="turns of every server (default: 5, 3, 1)")
    parser.add_argument("--warmup", type=float, metavar="S", help="before each point (default: 1, 2, 5)")
    parser.add_argument("--deadline-ms", type=float, default=0.0, metavar="MS", help="overload: not ten service times")
    parser.add_argument(
        "--set", metavar="NAME.FIELD=N", action="append", default=[], help="another set-up, such as mosec.batch=4"
    )
    parser.add_argument("--quick", action="store_true", help="short points and one round, to see that all works")
    parser.add_argument("--prepare", action="store_true", help="make environments and models, measure nothing")
    parser.add_argument("--draw", action="store_true", help="tables and plots again from the results that are there")
    return parser.parse_args()


def phase_of(what: str, deadline_ms: float) -> Callable[[Session], None]:
    """What carries a comparison out."""
    return {
        "free": phases.saturation,
        "free-uint8": phases.saturation,
        "vit": phases.equal,
        "overload": phases.overload(deadline_ms),
    }[what]


def session_of(what: str, asked: argparse.Namespace) -> Session:
    """A comparison's session. Raises ValueError for a server that is unknown."""
    chosen = COMPARISONS[what]
    seconds, rounds = chosen.quick if asked.quick else (chosen.seconds, chosen.rounds)
    names = asked.servers.split(",") if asked.servers else ["squint", *(server.name for server in RIVALS)]
    if not asked.servers and chosen.with_ours:
        names.insert(1, chosen.with_ours)
    return Session(
        what,
        chosen.kind,
        contenders(names),
        asked.seconds or seconds,
        asked.rounds or rounds,
        chosen.warmup if asked.warmup is None else asked.warmup,
        folder_of(asked.quick) / f"{what}.json",
        settings(asked.set),
    )


def settings(words: list[str]) -> dict[str, dict[str, float]]:
    """Fields of plans by server, from `NAME.FIELD=N`. Raises ValueError."""
    found: dict[str, dict[str, float]] = {}
    for word in words:
        place, _, value = word.partition("=")
        name, _, field = place.partition(".")
        if name not in SERVERS or field not in ADJUSTABLE:
            raise ValueError(f"--set {word!r}: expected NAME.FIELD=N with a field of {', '.join(ADJUSTABLE)}")
        found.setdefault(name, {})[field] = float(value) if field == "wait_ms" else int(value)
    return found


def folder_of(quick: bool) -> Path:
    """Where results go; those of a quick run are no results to keep."""
    return CACHE / "quick" if quick else RESULTS


def show(what: str, quick: bool) -> None:
    """The table of a comparison's results beside them, and its plots."""
    file = folder_of(quick) / f"{what}.json"
    if not file.exists():
        print(f"peers: no results of {what} yet", file=sys.stderr)
        return
    text = markdown(json.loads(file.read_text()))
    file.with_suffix(".md").write_text(text)
    print(f"\n{text}")
    folder = folder_of(quick) if quick else PLOTS
    command = [str(python_of("plots")), "-m", "loadtest.peers.plots", str(file), str(folder)]
    subprocess.run(command, cwd=ROOT, check=False)


def measure(what: str, asked: argparse.Namespace) -> bool:
    """One comparison to its end or until Ctrl-C; whether it came to its end."""
    session, begin = session_of(what, asked), time.monotonic()
    try:
        phase_of(what, asked.deadline_ms)(session)
    except (Stopped, KeyboardInterrupt):
        session.record["interrupted"] = True
        say("stopped; what was measured is kept")
    session.record["minutes"] = (time.monotonic() - begin) / 60
    session.save()
    show(what, asked.quick)
    return not session.record["interrupted"]


def main() -> int:
    """Prepare, measure, show."""
    asked = options()
    wanted = list(COMPARISONS) if asked.what == "all" else [asked.what]
    try:
        entries = [entry for what in wanted for entry in session_of(what, asked).entries]
        needed = {entry.server.name for entry in entries if not entry.server.ours}
        for name in sorted(needed | {"plots", "mosec"}):
            environments.environment(name)
        environments.models({COMPARISONS[what].kind for what in wanted})
    except (environments.Missing, ValueError) as error:
        print(f"peers: {error}", file=sys.stderr)
        return 2
    if asked.prepare:
        return 0
    if asked.draw:
        for what in wanted:
            show(what, asked.quick)
        return 0
    return 0 if all(measure(what, asked) for what in wanted) else 130


if __name__ == "__main__":
    sys.exit(main())
