"""Carries out a scenario: capacity first if it is asked for, then every run, and the figures of all."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from loadtest import arrivals, bodies, images, machine, process, scenario
from loadtest.plan import Plan, Target, choose, target
from loadtest.samples import Samples
from loadtest.scenario import Measure, Mix, Phase, Scenario, ScenarioError
from loadtest.sender import Progress
from loadtest.summary import Moment, Summary, summarise, timeline

REACH_SECONDS = 5.0
CYCLE = 4096
"""Bodies drawn for a closed loop, which goes through them again and again."""


class Point(msgspec.Struct):
    """One phase, or one rate of a sweep."""

    name: str
    kind: str
    rate: float | None
    """Requests per second that were planned; None in a closed loop."""
    load: float | None
    """The same as a multiple of the capacity, if that is known."""
    begin: float
    """Seconds from the begin of what its run counts."""
    summary: Summary


class Run(msgspec.Struct):
    """Phases sent in one go, with a common time line."""

    points: list[Point]
    timeline: list[Moment]


class Outcome(msgspec.Struct):
    """All of a scenario; what the JSON file holds."""

    scenario: dict[str, Any]
    url: str
    machine: dict[str, Any]
    images: dict[str, list[int]]
    """Bytes of each image sent, by kind."""
    capacity: float | None = None
    """Answers 200 per second, measured in a closed loop or given."""
    capacity_measured: Summary | None = None
    runs: list[Run] = []
    notes: list[str] = []
    interrupted: bool = False

    @property
    def points(self) -> list[Point]:
        """Of all runs."""
        return [point for run in self.runs for point in run.points]


@dataclass(frozen=True)
class Stage:
    """What is being done, for whoever shows progress; `progress` is None when it begins."""

    name: str
    seconds: float
    progress: Progress | None = None


Watch = Callable[[Stage], None]


@dataclass
class Mixed:
    """Images ready to be sent, with and without a deadline."""

    timed: Target
    free: Target
    weights: list[float]
    counts: list[int]
    sizes: dict[str, list[int]]


@dataclass
class Group:
    """Phases of one run, and when each begins and ends after the warm-up."""

    phases: list[Phase]
    times: list[arrivals.Times] = field(default_factory=list)


def run(wanted: Scenario, url: str, watch: Watch = lambda stage: None) -> Outcome:
    """Carry out a scenario against the service at `url`.

    Ctrl-C ends it early with what was measured. Raises ScenarioError for what cannot be sent, OSError if nobody
    listens, process.SenderFailed if the sender dies.
    """
    mixed = reached(prepare(wanted, url, watch))
    outcome = Outcome(scenario.shown(wanted), url, machine.describe(), mixed.sizes)
    try:
        _capacity(wanted, mixed, outcome, watch)
        for number, group in enumerate([] if outcome.interrupted else groups(wanted, outcome.capacity)):
            if number and wanted.sweep is not None:
                time.sleep(wanted.sweep.pause_seconds)
            _one(wanted, mixed, group, number, outcome, watch)
            if outcome.interrupted:
                break
    except KeyboardInterrupt:
        outcome.interrupted = True
    outcome.notes = [note for point in outcome.points for note in notes(wanted, point)]
    return outcome


def prepare(wanted: Scenario, url: str, watch: Watch = lambda stage: None) -> Mixed:
    """Make the images and all requests; raises ScenarioError."""
    watch(Stage("making images", 0.0))
    ready: list[bodies.Body] = []
    counts: list[int] = []
    sizes: dict[str, list[int]] = {}
    tensor = bodies.Kserve(wanted.kserve.input, wanted.kserve.shape, wanted.kserve.outputs)
    for number, mix in enumerate(wanted.images):
        made = _images(wanted, mix, number)
        ready += bodies.encode_all(made, wanted.encoding, mix.kind, name=wanted.field, kserve=tensor)
        counts.append(len(made))
        sizes.setdefault(mix.kind, []).extend(len(image) for image in made)
    headers = list(wanted.headers.items())
    deadline = wanted.deadline_ms if wanted.deadline_header else None
    told = [] if deadline is None else [(wanted.deadline_header, f"{deadline:.0f}")]
    try:
        free = target(url, wanted.path, ready, method=wanted.method, headers=headers)
        timed = target(url, wanted.path, ready, method=wanted.method, headers=headers + told)
    except (ValueError, UnicodeEncodeError) as error:
        raise ScenarioError(str(error)) from None
    return Mixed(timed, free, [mix.weight for mix in wanted.images], counts, sizes)


def _images(wanted: Scenario, mix: Mix, number: int) -> list[bytes]:
    if not mix.files:
        width, height = images.size_of(mix.kind)
        usual = 16 if width * height < 500_000 else 6 if width * height < 4_000_000 else 3
        return images.generate(mix.kind, mix.count or usual, wanted.seed)
    found = sorted(Path(wanted.folder).glob(mix.files))
    if not found:
        raise ScenarioError(f"images[{number}].files: no file matches {mix.files!r}")
    return [path.read_bytes() for path in found[: mix.count or None]]


def reach(to: Target) -> str:
    """The address that answers for a target's host; raises OSError with one line if nobody listens."""
    try:
        with socket.create_connection((to.host, to.port), REACH_SECONDS) as probe:
            return str(probe.getpeername()[0])
    except OSError as error:
        raise OSError(f"nobody answers at {to.host} port {to.port}: {error.strerror or error}") from None


def reached(mixed: Mixed) -> Mixed:
    """The same with the name looked up, so that no connection waits for that; TLS needs the name itself."""
    address = reach(mixed.timed)
    if not mixed.timed.secure:
        mixed.timed, mixed.free = replace(mixed.timed, host=address), replace(mixed.free, host=address)
    return mixed


def groups(wanted: Scenario, capacity: float | None) -> list[Group]:
    """Which phases are sent in one go: those that follow one another in an open loop, and each closed one alone."""
    sweep = wanted.sweep
    if sweep is not None:
        named = [(f"{rate:g}/s", rate) for rate in sweep.rates]
        named += [(f"{load:g}x", load * (capacity or 0.0)) for load in sweep.load]
        return [Group([Phase(sweep.seconds, sweep.kind, name, rate)]) for name, rate in named]
    found: list[Group] = []
    for phase in (absolute(phase, capacity) for phase in wanted.phases):
        if found and phase.kind != "closed" and found[-1].phases[-1].kind != "closed":
            found[-1].phases.append(phase)
        else:
            found.append(Group([phase]))
    return found


def absolute(phase: Phase, capacity: float | None) -> Phase:
    """The same phase with rates in place of loads."""
    changes: dict[str, float] = {}
    for load, rate in (("load", "rate"), ("burst_load", "burst_rate")):
        if getattr(phase, load) is not None:
            changes[rate] = getattr(phase, load) * (capacity or 0.0)
    return msgspec.structs.replace(phase, **changes)


def times_of(phase: Phase, rng: np.random.Generator, folder: str) -> arrivals.Times:
    """When the requests of an open phase leave, from its begin; raises ScenarioError."""
    rate = phase.rate or 0.0
    try:
        if phase.kind == "constant":
            return arrivals.constant(rate, phase.seconds)
        if phase.kind == "bursts":
            burst = phase.burst_rate or 0.0
            return arrivals.bursts(rng, rate, burst, phase.off_seconds, phase.on_seconds, phase.seconds)
        if phase.kind == "diurnal":
            return arrivals.diurnal(rng, rate, phase.swing, phase.period_seconds or phase.seconds, phase.seconds)
        if phase.kind == "replay":
            times = arrivals.replay(Path(folder) / phase.file, phase.speed)
            return times[times < phase.seconds]
        return arrivals.poisson(rng, rate, phase.seconds)
    except (OSError, ValueError) as error:
        raise ScenarioError(f"{phase.kind}: {error}") from None


def plan(wanted: Scenario, group: Group, mixed: Mixed, number: int) -> Plan:
    """Everything of one run, drawn from the scenario's seed and the run's number; fills in `group.times`."""
    rng = np.random.default_rng([wanted.seed, number])
    warmup = wanted.warmup_seconds
    first = group.phases[0]
    if first.kind == "closed":
        chosen = choose(rng, mixed.weights, mixed.counts, CYCLE)
        return Plan(
            np.empty(0), chosen, warmup + first.seconds, warmup, first.connections, timeout=wanted.timeout_seconds
        )
    group.times = [times_of(phase, rng, wanted.folder) for phase in group.phases]
    rate = first.rate if first.rate is not None else len(group.times[0]) / first.seconds
    parts, begin = [arrivals.poisson(rng, rate, warmup)], warmup
    for phase, times in zip(group.phases, group.times, strict=True):
        parts.append(begin + times)
        begin += phase.seconds
    times = np.concatenate(parts)
    chosen = choose(rng, mixed.weights, mixed.counts, len(times))
    return Plan(
        times,
        chosen,
        begin,
        warmup,
        connections=wanted.connections,
        timeout=wanted.timeout_seconds,
        deadline=wanted.deadline,
    )


def _capacity(wanted: Scenario, mixed: Mixed, outcome: Outcome, watch: Watch) -> None:
    if wanted.capacity is None:
        return
    if isinstance(wanted.capacity, float | int):
        outcome.capacity = float(wanted.capacity)
        return
    how = wanted.capacity if isinstance(wanted.capacity, Measure) else Measure()
    rng = np.random.default_rng([wanted.seed, 1 << 31])
    chosen = choose(rng, mixed.weights, mixed.counts, CYCLE)
    closed = Plan(np.empty(0), chosen, how.warmup_seconds + how.seconds, how.warmup_seconds, how.connections)
    samples = _send(replace(closed, timeout=wanted.timeout_seconds), mixed.free, "capacity, closed loop", watch)
    outcome.capacity_measured = summarise(samples, None)
    outcome.capacity = outcome.capacity_measured.answered
    outcome.interrupted = samples.interrupted
    if outcome.capacity == 0 and not samples.interrupted:
        first = next(iter(outcome.capacity_measured.first_bodies.values()), "no answers")
        raise ScenarioError(f"capacity is 0: no request was answered 200 ({first[:200]})")


def _one(wanted: Scenario, mixed: Mixed, group: Group, number: int, outcome: Outcome, watch: Watch) -> None:
    """Send one run and add its figures."""
    prepared = plan(wanted, group, mixed, number)
    name = ", ".join(names(group.phases))
    samples = _send(prepared, mixed.timed, name, watch)
    outcome.interrupted = samples.interrupted
    outcome.runs.append(figures(samples, group, wanted.deadline, outcome.capacity))


def _send(prepared: Plan, to: Target, name: str, watch: Watch) -> Samples:
    watch(Stage(name, prepared.seconds))
    return process.run(prepared, to, lambda progress: watch(Stage(name, prepared.seconds, progress)))


def names(phases: Sequence[Phase]) -> list[str]:
    """What each phase is called."""
    return [
        phase.name
        or (f"closed loop, {phase.connections} connections" if phase.kind == "closed" else f"{phase.kind} {number}")
        for number, phase in enumerate(phases, 1)
    ]


def figures(samples: Samples, group: Group, deadline: float | None, capacity: float | None) -> Run:
    """A point for each phase that was begun, and the time line of all."""
    points, begin = [], samples.warmup
    for number, (phase, name) in enumerate(zip(group.phases, names(group.phases), strict=True)):
        end = begin + phase.seconds
        if begin < samples.seconds:
            rate = len(group.times[number]) / phase.seconds if group.times else None
            planned = phase.rate if phase.kind in {"poisson", "constant", "diurnal"} else rate
            load = planned / capacity if planned is not None and capacity else None
            summary = summarise(samples, deadline, begin, end)
            points.append(Point(name, phase.kind, planned, load, begin - samples.warmup, summary))
        begin = end
    return Run(points, timeline(samples, deadline) if points else [])


def notes(wanted: Scenario, point: Point) -> list[str]:
    """What a reader of a point's figures must know before believing them."""
    found, summary = [], point.summary
    lag, p50 = summary.lag["p99"] or 0.0, summary.latency.p50 or 0.0
    if not summary.closed and lag > max(2.0, 0.1 * p50):
        found.append(f"the sender fell behind: lag p99 {lag:.1f} ms; latencies include it")
    if not summary.closed and summary.connections["most_at_once"] >= wanted.connections:
        found.append(f"all {wanted.connections} connections were busy; requests waited for one")
    if summary.sender["steal"] > 0.02:
        found.append(f"{summary.sender['steal']:.1%} of the cores' time was stolen by the hypervisor")
    if summary.sender["cpu_share"] > 0.1:
        found.append(f"the sender took {summary.sender['cpu_share']:.1%} of this machine")
    if summary.latency.count and summary.latency.p99_high is None:
        found.append(f"{summary.latency.count} answers are too few to bound p99 from above")
    for name, number in summary.errors.items():
        found.append(f"{number} requests without an answer: {name}")
    for status, number in summary.statuses.items():
        if int(status) not in (200, 429, 503):
            found.append(f"{number} answers {status}, the first: {summary.first_bodies.get(status, '')[:160]}")
    return [f"{point.name}: {note}" for note in found]
