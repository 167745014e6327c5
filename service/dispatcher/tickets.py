"""One image under way: what is asked of it, what comes with it, and what becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from service.core.batching import CloseReason
from service.core.levels import Choice, Level
from service.core.queue import Item
from service.dispatcher.catalogue import Entry
from service.errors import Refusal
from service.wire.messages.decoder import Coded, Geometry, Kind, Shape
from service.wire.messages.results import Options, Raw, Result, TokenMap
from service.wire.slots import Arena, Slot


class Tensor(msgspec.Struct, frozen=True):
    """An image that comes as numbers: `data` holds height x width x 3 of them, RGB, row by row."""

    data: bytes | memoryview
    kind: Kind
    height: int
    width: int

    def __len__(self) -> int:
        """Bytes."""
        return len(self.data)


Image = bytes | bytearray | Tensor
"""What a client sends for one image: an encoded file, or pixels."""


class Stored(msgspec.Struct, frozen=True):
    """An image that lies in a body slot already, since the gateway it came by is a process of its own."""

    slot: int
    size: int
    shape: Shape | None = None


class Ask(msgspec.Struct, frozen=True):
    """What a request wants, protocol aside."""

    entry: Entry
    level: Level | Choice
    deadline: float
    priority: int
    options: Options
    client: str = ""
    """Whose request it is, for fairness between clients."""


class Outcome(msgspec.Struct):
    """What became of one image; times are seconds."""

    result: Result | None = None
    tokens: TokenMap | None = None
    raw: tuple[Raw, ...] = ()
    refusal: Refusal | None = None
    decode: float = 0.0
    queue: float = 0.0
    infer: float = 0.0
    post: float = 0.0
    batch: int = 0
    closed: CloseReason | str = ""
    wide: bool = False
    """The batch began with all CPUs of its worker."""
    level: Level | None = None
    """At which it was served."""
    lane: str = ""
    """The level of the lane in which it ran."""
    box: tuple[float, float, float, float] | None = None
    """Where the network's input lies in the displayed image: x0, y0, x1, y1 in its pixels."""
    upload: float = 0.0
    """From its admission until its body was here."""
    decoder_wait: float = 0.0
    """From there until a decoder had it."""
    item: Item | None = None
    """With the times of its way through the core."""
    run: int = 0
    """The batch it ran in, by number."""
    ended: float = 0.0
    """When that batch's results were here, by the engine's clock."""


def slowest(outcomes: Sequence[Outcome]) -> Outcome:
    """Of a request's images the one whose stages took longest in all. They add up to no more than the request took."""
    return max(outcomes, key=lambda one: one.decoder_wait + one.queue + one.decode + one.infer + one.post)


class Done(Protocol):
    """Whether a ticket is answered, and who is told. A future of asyncio is one."""

    def done(self) -> bool:
        """It is answered."""

    def set_result(self, result: None, /) -> None:
        """It is answered now."""

    def add_done_callback(self, fn: Callable[[Any], object], /) -> None:
        """Call this once it is."""


class Notice:
    """Stands for a future where nobody waits in an event loop: whoever is to be told is told at once."""

    __slots__ = ("_done", "_then")

    def __init__(self) -> None:
        self._done = False
        self._then: Callable[[Any], object] | None = None

    def done(self) -> bool:
        """It has happened."""
        return self._done

    def set_result(self, result: None, /) -> None:
        """It happens now."""
        self._done = True
        # Whoever is told holds the ticket, and the ticket this: a circle, which would be the collector's to find.
        then, self._then = self._then, None
        if then is not None:
            then(self)

    def add_done_callback(self, fn: Callable[[Any], object], /) -> None:
        """Call this when it happens, or soon if it has; nobody else is to be told."""
        if self._done:
            asyncio.get_running_loop().call_soon(fn, self)
        else:
            self._then = fn


class Ticket(msgspec.Struct, eq=False):
    """One image under way; `outcome` is complete when `done` is."""

    item: Item
    ask: Ask
    done: Done
    outcome: Outcome
    body: Image | Stored = b""
    slot: Slot | None = None
    body_slot: int = -1
    geometry: Geometry | None = None
    coded: Coded | None = None
    busy: bool = False
    """Another process may touch the pixel slot, so it cannot be handed out again."""
    pending: bool = False
    """Whether it is admitted is not known yet."""
    verdict: Callable[[Refusal | None], None] | None = None
    """Told as soon as it is."""
    read: Callable[[], None] | None = None
    """Told that no decoder reads the body any more, when that is so only after the answer."""


def store(bodies: Arena, slot: int, body: Image) -> Stored:
    """Copy an image into a body slot."""
    size = len(body)
    if isinstance(body, Tensor):
        bodies.view(slot)[:size] = body.data
        return Stored(slot, size, Shape(body.kind, body.height, body.width))
    bodies.view(slot)[:size] = body
    return Stored(slot, size)
