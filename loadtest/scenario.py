"""Scenario files: what to send, and when, in TOML. Every mistake is one line that says where."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import msgspec

from loadtest import images
from loadtest.bodies import ENCODINGS

LONGEST_SECONDS = 86_400.0


class ScenarioError(ValueError):
    """A scenario that cannot be run; the message is one line."""


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A table of the file: unknown keys are errors."""


class Mix(Table, frozen=True):
    """One kind of image and its share of the requests."""

    kind: str = "500x375"
    """A name of images.KINDS, or WIDTHxHEIGHT; with `files` any word."""
    weight: float = 1.0
    count: int = 0
    """Different images of the kind; 0: as many as its size makes sensible."""
    files: str = ""
    """A pattern, beside the scenario file, of images to send in place of generated ones."""


class Phase(Table, frozen=True):
    """A stretch of time with one way of sending."""

    seconds: float
    kind: Literal["poisson", "constant", "bursts", "diurnal", "replay", "closed"] = "poisson"
    name: str = ""
    rate: float | None = None
    """Requests per second; of bursts between them, of diurnal the mean."""
    load: float | None = None
    """In place of `rate`: a multiple of the capacity."""
    burst_rate: float | None = None
    burst_load: float | None = None
    on_seconds: float = 1.0
    off_seconds: float = 4.0
    swing: float = 0.8
    """Of diurnal: the rate goes from (1 - swing) to (1 + swing) times its mean."""
    period_seconds: float | None = None
    """Of diurnal: default, the phase is one period."""
    file: str = ""
    """Of replay: times in seconds, one a line, beside the scenario file."""
    speed: float = 1.0
    connections: int = 0
    """Of closed: how many send as soon as they are answered."""


class Sweep(Table, frozen=True):
    """One run per rate, in place of phases."""

    seconds: float
    kind: Literal["poisson", "constant"] = "poisson"
    rates: tuple[float, ...] = ()
    load: tuple[float, ...] = ()
    """In place of `rates`: multiples of the capacity."""
    pause_seconds: float = 2.0


class Measure(Table, frozen=True):
    """How capacity is measured: a closed loop without deadlines."""

    connections: int = 16
    seconds: float = 10.0
    warmup_seconds: float = 2.0


class Tensor(Table, frozen=True):
    """Names of a KServe v2 server, for `encoding = "kserve"`."""

    input: str = "image"
    shape: tuple[int, ...] = (1, 1)
    outputs: tuple[str, ...] = ()


class Scenario(Table, frozen=True):
    """A whole file."""

    name: str
    path: str = "/classify"
    method: str = "POST"
    headers: dict[str, str] = {}
    encoding: str = "raw"
    field: str = "image"
    """The part of a form, or the key of the JSON, that holds the image."""
    kserve: Tensor = Tensor()
    images: tuple[Mix, ...] = (Mix(),)
    deadline_ms: float | None = None
    deadline_header: str = "X-Request-Timeout-Ms"
    """How the deadline is told to the server; "" does not tell it."""
    warmup_seconds: float = 5.0
    """Before each run; sent, not counted."""
    seed: int = 0
    connections: int = 1024
    timeout_seconds: float = 10.0
    capacity: float | Literal["measure"] | Measure | None = None
    phases: tuple[Phase, ...] = ()
    sweep: Sweep | None = None
    folder: str = ""
    """Set by `load`: where the file lies."""

    @property
    def deadline(self) -> float | None:
        """Seconds."""
        return None if self.deadline_ms is None else self.deadline_ms / 1000


def load(path: Path) -> Scenario:
    """Read and check a file; raises ScenarioError."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: {error.strerror if isinstance(error, OSError) else 'not text'}") from None
    try:
        return parse(text, str(path.resolve().parent))
    except ScenarioError as error:
        raise ScenarioError(f"{path}: {error}") from None


def parse(text: str, folder: str = ".") -> Scenario:
    """A scenario of TOML text; file names in it count from `folder`. Raises ScenarioError."""
    try:
        found = msgspec.toml.decode(text, type=Scenario)
    except msgspec.ValidationError as error:
        raise ScenarioError(_plain(str(error))) from None
    except msgspec.DecodeError as error:
        raise ScenarioError(f"not TOML: {error}".replace("\n", " ")) from None
    found = msgspec.structs.replace(found, folder=folder)
    _check(found)
    return found


def _plain(message: str) -> str:
    """What msgspec says, in our words."""
    what, _, place = message.partition(" - at ")
    what = what.replace("Object contains unknown field", "unknown key")
    what = what.replace("Object missing required field", "missing key").replace("`", "'")
    place = place.strip("`").removeprefix("$").removeprefix(".")
    return f"{place}: {what}" if place else what


def _check(scenario: Scenario) -> None:
    """What types alone do not say."""
    _need(scenario.name != "" and all(c.isalnum() or c in "-_." for c in scenario.name), "name: letters, digits, - _ .")
    _need(scenario.path.startswith("/"), "path: begins with /")
    _need(scenario.encoding in ENCODINGS, f"encoding: one of {', '.join(ENCODINGS)}")
    _positive("deadline_ms", scenario.deadline_ms)
    _positive("timeout_seconds", scenario.timeout_seconds)
    _need(0 <= scenario.warmup_seconds <= LONGEST_SECONDS, "warmup_seconds: 0 or more")
    _need(1 <= scenario.connections <= 60_000, "connections: from 1 to 60000")
    _need(0 <= scenario.seed < 2**32, "seed: from 0 to 4294967295")
    _need(len(scenario.images) > 0, "images: at least one kind")
    for number, mix in enumerate(scenario.images):
        _check_mix(f"images[{number}]", mix)
    _need((scenario.sweep is None) != (not scenario.phases), "give either phases or a sweep")
    if isinstance(scenario.capacity, float | int):
        _positive("capacity", scenario.capacity)
    if isinstance(scenario.capacity, Measure):
        _need(1 <= scenario.capacity.connections <= 60_000, "capacity.connections: from 1 to 60000")
        _positive("capacity.seconds", scenario.capacity.seconds)
    known = scenario.capacity is not None
    for number, phase in enumerate(scenario.phases):
        _check_phase(f"phases[{number}]", phase, known)
    if scenario.sweep is not None:
        _check_sweep(scenario.sweep, known)


def _check_mix(where: str, mix: Mix) -> None:
    _positive(f"{where}.weight", mix.weight)
    _need(0 <= mix.count <= 1000, f"{where}.count: from 0 to 1000")
    if not mix.files:
        try:
            images.size_of(mix.kind)
        except ValueError as error:
            raise ScenarioError(f"{where}.kind: {error}") from None


def _check_phase(where: str, phase: Phase, known: bool) -> None:
    for name in ("seconds", "rate", "load", "burst_rate", "burst_load", "on_seconds", "off_seconds", "speed"):
        _positive(f"{where}.{name}", getattr(phase, name))
    _positive(f"{where}.period_seconds", phase.period_seconds)
    _need(phase.seconds <= LONGEST_SECONDS, f"{where}.seconds: at most {LONGEST_SECONDS:g}")
    _need(0 <= phase.swing <= 1, f"{where}.swing: from 0 to 1")
    if phase.kind == "closed":
        _need(1 <= phase.connections <= 60_000, f"{where}.connections: a closed loop needs 1 to 60000")
        _need(phase.rate is None and phase.load is None, f"{where}: a closed loop has no rate of its own")
        return
    _need(phase.connections == 0, f"{where}.connections: for closed alone")
    if phase.kind == "replay":
        _need(phase.file != "", f"{where}.file: replay needs a file of times")
        return
    _need((phase.rate is None) != (phase.load is None), f"{where}: give either rate or load")
    if phase.kind == "bursts":
        _need((phase.burst_rate is None) != (phase.burst_load is None), f"{where}: give burst_rate or burst_load")
    else:
        _need(phase.burst_rate is None and phase.burst_load is None, f"{where}: burst_rate is for bursts alone")
    relative = phase.load is not None or phase.burst_load is not None
    _need(known or not relative, f'{where}.load: needs capacity, a number or "measure"')


def _check_sweep(sweep: Sweep, known: bool) -> None:
    _need(bool(sweep.rates) != bool(sweep.load), "sweep: give either rates or load")
    for name in ("rates", "load"):
        for number, value in enumerate(getattr(sweep, name)):
            _positive(f"sweep.{name}[{number}]", value)
    _positive("sweep.seconds", sweep.seconds)
    _need(0 <= sweep.pause_seconds <= 600, "sweep.pause_seconds: from 0 to 600")
    _need(known or not sweep.load, 'sweep.load: needs capacity, a number or "measure"')


def _positive(where: str, value: float | None) -> None:
    _need(value is None or (math.isfinite(value) and value > 0), f"{where}: more than 0, not {value}")


def _need(true: bool, message: str) -> None:
    if not true:
        raise ScenarioError(message)


def shown(scenario: Scenario) -> dict[str, Any]:
    """For a report: what the file said, without where it lay."""
    plain: dict[str, Any] = msgspec.to_builtins(scenario)
    plain.pop("folder", None)
    return plain
