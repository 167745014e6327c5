"""What the dispatcher decides, for the engine to carry out."""

from __future__ import annotations

import msgspec

from service.core.batching import CloseReason
from service.core.queue import Item, LaneKey
from service.errors import Refusal


class StartDecode(msgspec.Struct, frozen=True, gc=False):
    """Send an item to a decoder, which gives it back when it would take more than `limit` seconds (0: any time)."""

    item: Item
    decoder: int
    limit: float


class StartRun(msgspec.Struct, frozen=True):
    """Send a batch to a worker. `reason` is why the batch was closed at this size; a `wide` one uses the CPUs of idle
    engines, too."""

    batch: int
    worker: int
    lane: LaneKey
    items: list[Item]
    reason: CloseReason
    wide: bool = False


class Answer(msgspec.Struct, frozen=True, gc=False):
    """The item's one answer: `refusal` None means that its result stands with the engine."""

    item: Item
    refusal: Refusal | None


Action = StartDecode | StartRun | Answer
