"""MLPerf LoadGen as an independent client: Server scenario, Poisson arrivals, p99 with its early-stopping rule.

LoadGen draws the arrivals, keeps the times and judges; we only carry requests to the service and answers back. It
knows no refusals: a query that is not answered 200 is handed back after twice the latency bound, so that it counts as
too late. LoadGen cannot be interrupted, so it runs in a process of its own.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import re
import subprocess
import sys
import tempfile
import threading
from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from loadtest import drive, machine
from loadtest.connection import Connection
from loadtest.plan import Numbers, Target, choose, thawed
from loadtest.scenario import Scenario, ScenarioError

QUERIES = 1024
"""Different queries that LoadGen draws from; each is one body, in the shares of the scenario."""
PERCENTILE = 0.99
DONE = "outcomes:"


class LoadgenFailed(Exception):
    """LoadGen is not installed or ended without a result; the message is one line."""


@dataclass(frozen=True)
class Result:
    """What LoadGen's summary says, and what the answers were."""

    valid: bool
    """LoadGen's own verdict: p99 within the bound, long enough, enough queries, early stopping satisfied."""
    early_stopping: bool
    summary: dict[str, str]
    """LoadGen's summary, key by key, as it wrote it."""
    advice: str
    """What it says under `Early Stopping Result`, in one line."""
    outcomes: dict[str, int]
    """Answers by status or reason of failure; all but 200 count as too late."""

    def rows(self) -> list[dict[str, Any]]:
        """For a table."""
        kept: tuple[str, ...] = (
            "Scheduled samples per second",
            "Completed samples per second",
            "target_qps",
            "target_latency (ns)",
        )
        kept += tuple(f"{share} percentile latency (ns)" for share in ("50.00", "90.00", "95.00", "99.00", "99.90"))
        found = [{"what": "LoadGen's verdict", "value": "VALID" if self.valid else "INVALID"}]
        found.append({"what": "early stopping", "value": self.advice})
        for name in kept:
            value = self.summary.get(name, "-")
            if name.endswith("(ns)") and value.isdigit():
                name, value = name.replace("(ns)", "(ms)"), f"{int(value) / 1e6:.2f}"
            found.append({"what": name, "value": value})
        outcomes = ", ".join(f"{name}: {count}" for name, count in self.outcomes.items())
        return [*found, {"what": "answers", "value": outcomes}]


class Job(msgspec.Struct):
    """What the child needs to know."""

    target: dict[str, Any]
    choice: list[int]
    rate: float
    bound_ms: float
    seconds: float
    least: int
    seed: int
    connections: int
    folder: str


def run(wanted: Scenario, url: str, least: int = 1000) -> Result:
    """Let LoadGen send at the rate of the scenario's first phase, with its deadline as the bound of p99.

    Args:
        wanted: its first phase (or the first rate of its sweep) must have a rate; it needs a deadline.
        url: the service.
        least: queries at least, beside the phase's seconds.

    Raises LoadgenFailed, ScenarioError, OSError if nobody listens.
    """
    if importlib.util.find_spec("mlperf_loadgen") is None:
        raise LoadgenFailed("LoadGen is not installed; install the extra 'loadgen': pip install -e '.[loadgen]'")
    rate, seconds = _rate(wanted)
    mixed = drive.reached(drive.prepare(wanted, url))
    choice = choose(np.random.default_rng(wanted.seed), mixed.weights, mixed.counts, QUERIES)
    with tempfile.TemporaryDirectory() as folder:
        job = Job(
            vars(mixed.timed),
            choice.tolist(),
            rate,
            wanted.deadline_ms or 0.0,
            seconds,
            least,
            wanted.seed,
            wanted.connections,
            folder,
        )
        said = _child(job)
        summary = Path(folder) / "mlperf_log_summary.txt"
        if DONE not in said or not summary.is_file():
            raise LoadgenFailed("LoadGen ended without a result")
        outcomes = msgspec.json.decode(said.rpartition(DONE)[2], type=dict[str, int])
        return read(summary.read_text(), outcomes)


def _rate(wanted: Scenario) -> tuple[float, float]:
    """Requests per second, and seconds."""
    if wanted.deadline_ms is None:
        raise ScenarioError("LoadGen needs deadline_ms, the bound of p99")
    if wanted.sweep is not None and wanted.sweep.rates:
        return wanted.sweep.rates[0], wanted.sweep.seconds
    for phase in wanted.phases[:1]:
        if phase.rate is not None:
            return phase.rate, phase.seconds
    raise ScenarioError("LoadGen needs a first phase with a rate")


def _child(job: Job) -> str:
    root = str(Path(__file__).resolve().parents[1])
    code = f"import sys; sys.path.insert(0, {root!r}); from loadtest.mlperf import main; main()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        return process.communicate(msgspec.msgpack.encode(job))[0].decode("utf-8", "replace")
    finally:
        process.kill()
        process.wait()


def read(text: str, outcomes: dict[str, int]) -> Result:
    """LoadGen's summary file as a result."""
    pairs = dict(re.findall(r"^ *([^:\n]+?) *: *(.+?) *$", text, re.MULTILINE))
    block = text.partition("Early Stopping Result:")[2].partition("====")[0]
    advice = " ".join(line.strip(" *\t") for line in block.splitlines() if line.strip())
    valid = pairs.get("Result is") == "VALID"
    return Result(valid, pairs.get("Early stopping satisfied", "").lower() == "yes", pairs, advice, outcomes)


# --- the child -------------------------------------------------------------------------------------------------------


def main() -> None:
    """The process that LoadGen runs in."""
    import uvloop

    library: Any = importlib.import_module("mlperf_loadgen")
    machine.go_first()
    job = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Job)
    target = thawed(job.target)
    loop = uvloop.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    carrier = Carrier(loop, target, np.array(job.choice, np.int32), job.connections, job.bound_ms / 1000, library)
    sut = library.ConstructSUT(carrier.issue, lambda: None)
    qsl = library.ConstructQSL(len(job.choice), len(job.choice), lambda numbers: None, lambda numbers: None)
    library.StartTestWithLogSettings(sut, qsl, _settings(library, job), _logs(library, job.folder), "")
    print(DONE + msgspec.json.encode(dict(carrier.outcomes)).decode(), flush=True)


def _settings(library: Any, job: Job) -> Any:
    settings = library.TestSettings()
    settings.scenario = library.TestScenario.Server
    settings.mode = library.TestMode.PerformanceOnly
    settings.server_target_qps = job.rate
    settings.server_target_latency_ns = int(job.bound_ms * 1e6)
    settings.server_target_latency_percentile = PERCENTILE
    settings.min_duration_ms = int(job.seconds * 1000)
    settings.min_query_count = job.least
    settings.schedule_rng_seed = settings.sample_index_rng_seed = settings.qsl_rng_seed = job.seed
    return settings


def _logs(library: Any, folder: str) -> Any:
    output = library.LogOutputSettings()
    output.outdir = folder
    output.copy_summary_to_stdout = False
    logs = library.LogSettings()
    logs.log_output = output
    logs.enable_trace = False
    return logs


class Carrier:
    """Carries queries to the service; everything but `issue` runs in the loop's thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        target: Target,
        choice: Numbers,
        connections: int,
        bound: float,
        library: Any,
    ) -> None:
        self._loop, self._target, self._limit, self._bound, self._library = loop, target, connections, bound, library
        self._choice: list[int] = choice.tolist()
        self._context = target.context()
        self._idle: list[Connection] = []
        self._open = 0
        self._waiting: deque[tuple[int, int]] = deque()
        self._issued: dict[int, float] = {}
        self._connecting = set[asyncio.Task[None]]()
        self.outcomes: Counter[str] = Counter()

    def issue(self, queries: Any) -> None:
        """Called by LoadGen when queries are due."""
        for query in queries:
            self._loop.call_soon_threadsafe(self._send, query.id, query.index)

    def _send(self, query: int, index: int) -> None:
        self._issued[query] = self._loop.time()
        self._waiting.append((query, index))
        while self._idle and self._waiting:
            connection = self._idle.pop()
            if connection.usable:
                self._start(connection)
        self._more()

    def _more(self) -> None:
        """One more connection, if something waits and it is allowed."""
        if self._waiting and self._open < self._limit:
            self._open += 1
            task = self._loop.create_task(self._connect())
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    def _start(self, connection: Connection) -> None:
        query, index = self._waiting.popleft()
        connection.start(query, self._target.requests[self._choice[index]])

    async def _connect(self) -> None:
        connection = Connection(self)
        try:
            await self._loop.create_connection(
                lambda: connection, self._target.host, self._target.port, ssl=self._context
            )
        except OSError:
            self._open -= 1
            if self._waiting:
                self.failed(self._waiting.popleft()[0], "connect")
            return
        self._use(connection)

    def _use(self, connection: Connection) -> None:
        if self._waiting:
            self._start(connection)
        else:
            self._idle.append(connection)

    def answered(
        self,
        connection: Connection,
        number: int,
        status: int,
        level: bytes,
        retry_after: bytes,
        text: bytes,
        keep: bool,
    ) -> None:
        """An answer: at once to LoadGen if it is one."""
        if status == 200:
            self.outcomes["200"] += 1
            self._complete(number)
        else:
            self.failed(number, str(status))
        if keep:
            self._use(connection)

    def failed(self, number: int, why: str) -> None:
        """Not answered: LoadGen hears of it when it is too late."""
        self.outcomes[why] += 1
        self._loop.call_at(self._issued[number] + 2 * self._bound, self._complete, number)

    def lost(self, connection: Connection) -> None:
        """One connection fewer; those that wait get a new one."""
        self._open -= 1
        self._more()

    def _complete(self, query: int) -> None:
        del self._issued[query]
        self._library.QuerySamplesComplete([self._library.QuerySampleResponse(query, 0, 0)])
