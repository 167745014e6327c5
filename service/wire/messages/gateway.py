"""The data channel between the dispatcher and a gateway, where there are several."""

from __future__ import annotations

from typing import Literal

from service.wire.messages import Message
from service.wire.messages.control import Unit
from service.wire.messages.decoder import Shape
from service.wire.messages.results import Options, Raw, Result, TokenMap
from service.wire.messages.worker import Loaded


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
