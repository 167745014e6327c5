"""`squint load`: measure a running service under load."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from squint.commands.named import needs, whole_number
from squint.commands.table import show
from squint.errors import Failure

if TYPE_CHECKING:
    from loadtest.drive import Outcome, Stage

DESCRIPTION = """\
Send requests at the times a scenario draws beforehand, whether or not the service keeps up, and report how long they
took from the moment they were due. Writes a JSON file with every figure and an HTML page with plots. Ctrl-C ends the
run early and keeps what was measured. docs/loadtest.md describes scenario files; some are in loadtest/scenarios/."""


def add(commands: Any) -> None:
    """Describe the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "load",
        help="measure a running service under load",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("url", metavar="URL", help="the service, such as http://127.0.0.1:8000")
    parser.add_argument("--scenario", metavar="FILE", required=True, help="what to send, and when (TOML)")
    parser.add_argument(
        "--out", metavar="DIR", default="load-reports", help="where the reports go (default: load-reports)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument("--json", action="store_true", help="print one JSON array instead of a table")
    loadgen = parser.add_argument_group("MLPerf LoadGen", "An independent client, of the extra `loadgen`.")
    loadgen.add_argument(
        "--loadgen", action="store_true", help="let LoadGen send the scenario's first phase (Server scenario, Poisson)"
    )
    loadgen.add_argument(
        "--least", type=whole_number(1, 10_000_000), metavar="N", default=1000, help="queries at least (default 1000)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Send, write, show."""
    with needs("sending load", "serve"):
        from loadtest import drive, report, scenario
        from loadtest.process import SenderFailed
    try:
        wanted = scenario.load(Path(options.scenario))
        if options.loadgen:
            return _loadgen(options, wanted)
        stem = _stem(Path(options.out), wanted.name)
        with Bar(options.quiet) as bar:
            outcome = drive.run(wanted, options.url, bar.watch)
    except (scenario.ScenarioError, SenderFailed, OSError) as error:
        raise Failure(f"load: {error}") from error
    try:
        paths = report.write(outcome, stem)
    except OSError as error:
        raise Failure(f"load: cannot write {stem}: {error.strerror}") from error
    _show(outcome, report.rows(outcome), paths, options)
    return 1 if outcome.interrupted else 0


def _stem(folder: Path, name: str) -> Path:
    """Where the reports go, without their endings; that it can be written is known before minutes are spent."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise Failure(f"load: --out {folder}: {error.strerror}") from None
    return folder / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def _show(outcome: Outcome, rows: list[dict[str, Any]], paths: tuple[Path, Path], options: argparse.Namespace) -> None:
    if not options.json and outcome.capacity:
        print(f"capacity: {outcome.capacity:.1f} requests/s\n")
    if rows:
        show(rows, list(rows[0]), as_json=options.json)
    if options.json:
        return
    for note in outcome.notes:
        print(f"note: {note}")
    stopped = "interrupted; " if outcome.interrupted else ""
    print(f"\n{stopped}wrote {paths[0]} and {paths[1]}")


def _loadgen(options: argparse.Namespace, wanted: Any) -> int:
    from loadtest import mlperf

    try:
        result = mlperf.run(wanted, options.url, options.least)
    except mlperf.LoadgenFailed as error:
        raise Failure(f"load: {error}") from error
    show(result.rows(), ("what", "value"), as_json=options.json)
    return 0 if result.valid else 1


class Bar:
    """The progress of all stages, one bar each, in seconds of sending."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Any = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish()

    def _finish(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def watch(self, stage: Stage) -> None:
        """Show a stage's begin or its progress."""
        if self._quiet:
            return
        if stage.progress is None:
            from tqdm import tqdm

            self._finish()
            if stage.seconds:
                form = "{desc} {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s{postfix}"
                self._bar = tqdm(total=stage.seconds, desc=stage.name, bar_format=form, dynamic_ncols=True)
            return
        now = stage.progress
        words = f"sent {now.sent}, on time {now.on_time}, refused {now.refused}, errors {now.errors}"
        if now.sent > now.done:
            words += f", under way {now.sent - now.done}"
        if now.behind > 0.01:
            words += f", behind {1000 * now.behind:.0f} ms"
        self._bar.set_postfix_str(words, refresh=False)
        self._bar.update(max(0.0, min(now.seconds, stage.seconds) - self._bar.n))
