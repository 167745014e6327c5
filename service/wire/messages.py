"""Every message that crosses a process boundary of the service.

Two conversations exist. On the *control* channel the supervisor starts, attaches and drains a child. On the *data*
channels whoever dispatches (the gateway, or the dispatcher where there are several) sends work to decoders and workers,
and several gateways hand in requests to the dispatcher. Processes import this file and never one another. All are
tagged msgspec structs in MessagePack; images never travel here, only the number of the slot that holds them.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Role = Literal["gateway", "dispatcher", "decoder", "worker"]


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of all messages: immutable, and encoded as an array with its type in front."""


# --- control: supervisor <-> child -----------------------------------------------------------------------------


class Unit(Message, frozen=True):
    """One version of a model. `key` stands for exactly its bytes, so that nobody takes one version for another. Workers
    have it loaded, unless it is `resting` until somebody asks for it."""

    key: str
    model: str
    directory: str
    digest: str = ""
    """Of its manifest."""
    resting: bool = False


class Start(Message, frozen=True):
    """First message to every child. Descriptors that come with it, in order: pixel arena, body arena, pulse board,
    and for a gateway its listening HTTP socket and, if there is one, the operator's. `pulses` records of the board,
    from `first_pulse` on, are its own.

    `units` is what is served; `notes` what whoever dispatched before wrote down for the next. With `again` the service
    has been ready before: a worker then starts without a unit that it cannot load any more.
    """

    role: Role
    index: int
    config: bytes
    pixel_slots: int
    pixel_slot_bytes: int
    body_slots: int
    body_slot_bytes: int
    first_pulse: int
    pulses: int
    units: list[Unit] = []
    notes: bytes = b""
    again: bool = False


class Attach(Message, frozen=True):
    """A new data channel. One end goes to whoever dispatches, the other to the decoder, worker or gateway that `role`
    and `index` name; the descriptor comes with the message. To a peer it also means: whoever dispatched before is gone.
    """

    role: Role
    index: int


class Drain(Message, frozen=True):
    """Finish what is in flight and exit 0; keep accepting for `grace` seconds before the port closes."""

    grace: float


class Ready(Message, frozen=True):
    """A child has finished starting (a worker: every model is loaded and warm)."""


class Failed(Message, frozen=True):
    """A child cannot start, and starting it again would not help; `reason` is one line for the operator."""

    reason: str


class Restarts(Message, frozen=True):
    """Supervisor to whoever dispatches: how often each kind of child has been restarted so far."""

    counts: dict[str, int]


class Late(Message, frozen=True):
    """Supervisor to whoever dispatches: these workers have not been heard of for suspiciously long, and no others. One
    that is not heard of soon is replaced."""

    workers: list[int]


class Reload(Message, frozen=True):
    """Supervisor to whoever dispatches: look at the model directories again."""


class Current(Message, frozen=True):
    """Whoever dispatches to supervisor: what is served now, for processes that are started from here on; see Start."""

    units: list[Unit]
    notes: bytes


class Lost(Message, frozen=True):
    """Whoever dispatches to supervisor: this peer sent what it should not, and its channel was cut; it must be
    replaced."""

    role: Role
    index: int


Control = Start | Attach | Drain | Ready | Failed | Restarts | Late | Reload | Current | Lost


# --- data: dispatcher <-> decoder ---------------------------------------------------------------------------------


class Fitting(Message, frozen=True):
    """How an image becomes the network's input; the manifest's transform on the wire."""

    fit: Literal["crop", "stretch", "letterbox"]
    height: int
    width: int
    fill: tuple[int, int, int]
    keep: float = 1.0
    filter: Literal["bicubic", "bilinear"] = "bicubic"


class Geometry(Message, frozen=True):
    """Where the network's input lies in the image as displayed (EXIF orientation applied).

    `width` and `height` are the displayed image's pixels. `box` (x0, y0, x1, y1, in those pixels) is the part of the
    image plane that the input covers; with letterbox it reaches beyond the image. A point (u, v) in 0..1 of the input
    lies at x = x0 + u * (x1 - x0), y = y0 + v * (y1 - y0).
    """

    width: int
    height: int
    box: tuple[float, float, float, float]


Kind = Literal["uint8", "float32"]


class Shape(Message, frozen=True):
    """Of an image that comes as numbers instead of a file: height x width x 3 of this kind, RGB, row by row; float32
    from 0 to 1, little-endian."""

    kind: Kind
    height: int
    width: int


class Decode(Message, frozen=True):
    """Turn the `body_bytes` bytes in a body slot into uint8 RGB pixels in a pixel slot, unless that is expected to take
    longer than `limit` seconds (0: however long). They are an encoded file, or numbers as `shape` says."""

    id: int
    body_slot: int
    body_bytes: int
    pixel_slot: int
    fitting: Fitting
    limit: float = 0.0
    shape: Shape | None = None


class Decoded(Message, frozen=True):
    """The pixels are in the slot. `seconds` is the decoder's own time for this image."""

    id: int
    geometry: Geometry
    seconds: float


class Undecoded(Message, frozen=True):
    """The image was refused; `code` is a key of service.errors.STATUS."""

    id: int
    code: str
    message: str
    seconds: float


class Heavy(Message, frozen=True):
    """The image was not decoded: it is expected to take `seconds`, more than the limit."""

    id: int
    seconds: float


FromDecoder = Decoded | Undecoded | Heavy
ToDecoder = Decode


# --- data: dispatcher <-> worker ----------------------------------------------------------------------------------


class Options(Message, frozen=True):
    """What the client asked of the result; a task reads those it knows."""

    top_k: int = 5
    threshold: float = 0.3
    max_detections: int = 100
    mask: Literal["rle", "png", "polygons"] = "rle"
    explain: Literal["tokens"] | None = None
    raw: tuple[str, ...] = ()
    """Outputs of the network that are wanted as they are; see Loaded.outputs."""


class Work(Message, frozen=True):
    """One item of a batch."""

    id: int
    slot: int
    generation: int
    geometry: Geometry
    options: Options


class Run(Message, frozen=True):
    """Run one batch of one lane; `model` is the key of a unit. A `wide` one may use the CPUs of idle engines."""

    batch: int
    model: str
    level: str
    items: list[Work]
    wide: bool = False


class Prediction(Message, frozen=True):
    """One class of a classification."""

    index: int
    score: float


class Classification(Message, frozen=True):
    """Top-k classes, best first."""

    predictions: list[Prediction]


class Detection(Message, frozen=True):
    """One object; `box` is (x0, y0, x1, y1) in pixels of the displayed image."""

    index: int
    score: float
    box: tuple[float, float, float, float]


class Detections(Message, frozen=True):
    """Objects above the threshold, best first."""

    objects: list[Detection]


class Segment(Message, frozen=True):
    """One class present in a mask and its area in pixels of the displayed image."""

    index: int
    area: int
    rle: str = ""
    polygons: list[list[float]] = []


class Segmentation(Message, frozen=True):
    """Per-pixel classes at the displayed image's size (`size` is height, width).

    `format` says how: `rle` and `polygons` are held per segment (and `rle` of all that is not background here),
    `png` is one image in `png`.
    """

    size: tuple[int, int]
    format: Literal["rle", "png", "polygons"]
    segments: list[Segment]
    png: bytes = b""
    rle: str = ""


Result = Classification | Detections | Segmentation


class TokenMap(Message, frozen=True):
    """Which group each patch of an image ended in. `grid` is the patches' rows and columns; `runs` are pairs of a group
    and how many patches in a row, read row by row, are of it; `sizes` holds the number of patches of each group."""

    grid: tuple[int, int]
    runs: list[tuple[int, int]]
    sizes: list[int]


class Raw(Message, frozen=True):
    """An output of the network for one image, little-endian and row by row; `kind` is numpy's name for its numbers."""

    name: str
    kind: str
    shape: tuple[int, ...]
    data: bytes


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
    """A batch is finished; times are seconds of the worker's own clock."""

    batch: int
    items: list[Done | Undone]
    infer: float
    post: float


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


# --- data: gateway <-> dispatcher ------------------------------------------------------------------------------


class Wanted(Message, frozen=True):
    """A level as a request wants it, see service.core.levels; with `choice` the scheduler takes it or any above."""

    spelled: str
    lane: str
    label: str
    gmacs: float
    tokens: int
    choice: bool = False


class Admit(Message, frozen=True):
    """May this image come in? `id` is the gateway's own; `unit` is the key of a unit, `deadline` monotonic seconds."""

    id: int
    unit: str
    level: Wanted
    deadline: float
    priority: int
    client: str
    options: Options


class Submit(Message, frozen=True):
    """The body of an image that was asked for admission lies in a body slot of the gateway's."""

    id: int
    body_slot: int
    body_bytes: int
    shape: Shape | None = None


class Cancel(Message, frozen=True):
    """Nobody waits for this image any more. It is answered all the same."""

    id: int


class Using(Message, frozen=True):
    """Units that requests of this gateway may still be for, now that it has taken in `Served` of this number."""

    number: int
    keys: list[str]


class Wake(Message, frozen=True):
    """Somebody asked for a unit that rests."""

    key: str


class Counted(Message, frozen=True):
    """What the gateway has counted since it said so last: by who counts, in a form of their own. `number` is that of
    the `Report` it answers, else 0."""

    number: int
    parts: dict[str, bytes]


class Spent(Message, frozen=True):
    """Tokens that clients took of their buckets since the last message, see service.core.rates: from a gateway, and on
    to all others."""

    tokens: dict[str, float]


About = Literal["metrics", "statistics", "index", "reload", "load", "unload", "policy", "choose"]


class Question(Message, frozen=True):
    """What the gateway cannot answer by itself. `name` is that of a model."""

    number: int
    about: About
    name: str = ""
    data: bytes = b""


class Leaving(Message, frozen=True):
    """The gateway was told to drain."""


class Admitted(Message, frozen=True):
    """These images may come in. Not said of one whose body is here already."""

    ids: list[int]


class Answered(Message, frozen=True):
    """The one answer to an image that was asked for admission. It was refused with `code` (empty: it was not): before
    it was taken in, if `outside`. `times` of its way are monotonic seconds: admitted, submitted, with a decoder,
    queued, started, ended. While `read`, a decoder may still read its body; `Freed` follows."""

    id: int
    code: str = ""
    message: str = ""
    retry_after: float | None = None
    outside: bool = False
    read: bool = False
    result: Result | None = None
    tokens: TokenMap | None = None
    raw: tuple[Raw, ...] = ()
    box: tuple[float, float, float, float] | None = None
    level: str = ""
    """Of the lane in which it ran; empty when it did not."""
    decode: float = 0.0
    infer: float = 0.0
    post: float = 0.0
    batch: int = 0
    closed: str = ""
    wide: bool = False
    run: int = 0
    times: tuple[float, float, float, float, float, float] = (0.0,) * 6


class Freed(Message, frozen=True):
    """No decoder reads the body of an answered image any more."""

    id: int


class Offer(Message, frozen=True):
    """What workers say of a unit that is served, and the named levels that some of them offers."""

    key: str
    loaded: Loaded
    levels: list[str]


class Served(Message, frozen=True):
    """What is served from now on: units; by model the versions wanted, the canary and its share, where they are not as
    configured; and whether requests are `ready` to be answered. Answered by `Using`."""

    number: int
    units: list[Unit]
    policies: dict[str, tuple[tuple[str, ...], str, float]]
    offers: list[Offer]
    ready: bool


class Report(Message, frozen=True):
    """Say now what was counted."""

    number: int


class Reply(Message, frozen=True):
    """To a question: data in a form that the question fixes, or a refusal's code and words."""

    number: int
    data: bytes = b""
    code: str = ""
    message: str = ""
    retry_after: float | None = None


FromGateway = Admit | Submit | Cancel | Using | Wake | Counted | Spent | Question | Leaving
ToGateway = Admitted | Answered | Freed | Served | Report | Reply | Spent
