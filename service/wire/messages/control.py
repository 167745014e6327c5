"""The control channel, between the supervisor and every child: start, attach, drain."""

from __future__ import annotations

from typing import Literal

from service.wire.messages import Message

Role = Literal["gateway", "dispatcher", "decoder", "worker"]


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
