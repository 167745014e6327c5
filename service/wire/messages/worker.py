"""The data channel between whoever dispatches and a worker: batches and models in, results out."""

from __future__ import annotations

from typing import Literal

from service.wire.messages import Message
from service.wire.messages.control import Unit
from service.wire.messages.decoder import Coded, Geometry
from service.wire.messages.results import Options, Raw, Result, TokenMap


class Work(Message, frozen=True):
    """One item of a batch. Its slot holds pixels, or what `coded` says."""

    id: int
    slot: int
    generation: int
    geometry: Geometry
    options: Options
    coded: Coded | None = None


class Run(Message, frozen=True):
    """Run one batch of one lane; `model` is the key of a unit. A `wide` one may use the CPUs of idle engines."""

    batch: int
    model: str
    level: str
    items: list[Work]
    wide: bool = False


class Done(Message, frozen=True):
    """One item's result, and its tokens and raw outputs where they were asked for."""

    id: int
    generation: int
    result: Result
    tokens: TokenMap | None = None
    raw: tuple[Raw, ...] = ()


class Undone(Message, frozen=True):
    """One item's failure that concerns that item alone."""

    id: int
    generation: int
    code: str
    message: str


class Ran(Message, frozen=True):
    """A batch is finished; times are seconds of the worker's own clock. `decode` is that of images which came coded."""

    batch: int
    items: list[Done | Undone]
    infer: float
    post: float
    decode: float = 0.0


class RunFailed(Message, frozen=True):
    """The batch as a whole failed. `kind`: `batch` may succeed in parts, `oom` may succeed if smaller."""

    batch: int
    kind: Literal["batch", "oom"]


class Timing(Message, frozen=True):
    """The measured profile of one lane on this worker: seconds for a batch of n are `a + b * n` while all engines run,
    and `wide` times that for one that has all their CPUs (1: it cannot use them, or gains nothing)."""

    level: str
    a: float
    b: float
    wide: float = 1.0


class Form(Message, frozen=True):
    """What an output of the network is for one image; `kind` as in Raw."""

    name: str
    kind: str
    shape: tuple[int, ...]


class Loaded(Message, frozen=True):
    """One model that a worker serves; `timings` are of the named levels it offers, highest first. It serves explicit
    levels besides. `outputs` are those of its network, which can be had raw."""

    model: str
    backend: str
    load_seconds: float
    timings: list[Timing]
    outputs: tuple[Form, ...] = ()
    key: str = ""
    """Of its unit."""
    resident: int = 0
    """Bytes by which loading and warming it made the worker larger."""


class Hello(Message, frozen=True):
    """A worker's first message on each channel: what it has loaded, and how many batches it runs at a time. It likes to
    have `ahead` more of them already."""

    engines: int
    max_batch: int
    models: list[Loaded]
    ahead: int = 0


class Load(Message, frozen=True):
    """Load one unit more and warm it, while what is loaded goes on serving."""

    unit: Unit


class Unload(Message, frozen=True):
    """Give up a unit; no batch of it will come any more."""

    key: str


class LoadDone(Message, frozen=True):
    """The worker serves one unit more."""

    loaded: Loaded


class LoadFailed(Message, frozen=True):
    """The worker cannot serve this unit; `reason` is one line for the operator."""

    key: str
    reason: str


class Unloaded(Message, frozen=True):
    """The worker has given up a unit, and its memory."""

    key: str


FromWorker = Hello | Ran | RunFailed | LoadDone | LoadFailed | Unloaded
ToWorker = Run | Load | Unload
