"""What is kept of a request until its spans are made: plain numbers, so that neither its images nor its results stay
in memory for it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from service.dispatcher.tickets import Outcome
from service.errors import Refusal
from service.gateway.serving import Serving
from service.gateway.tracing.context import Context


class Course(NamedTuple):
    """One image's way. Times are nanoseconds of Unix time, 0 for what did not happen; durations are nanoseconds."""

    submitted: int
    decoded: int
    decode: int
    queued: int
    started: int
    ended: int
    infer: int
    post: int
    run: int
    """The batch it ran in, by number."""
    images: int
    """How many that batch held."""
    closed: str
    level: str
    code: str
    """What it was refused with, if it was."""


class Record(NamedTuple):
    """One request."""

    context: Context
    began: int
    ended: int
    name: str
    attributes: dict[str, str | int]
    status: int
    courses: tuple[Course, ...]


def record(
    context: Context, serving: Serving, outcomes: Sequence[Outcome], refusal: Refusal | None, seconds: float, now: float
) -> Record:
    """What is kept of a request that took `seconds` until `now`, of the engine's clock."""
    ended = time.time_ns()
    of_clock = ended - round(now * 1e9)
    attributes: dict[str, str | int] = {
        "squint.request_id": serving.request_id,
        "squint.protocol": serving.protocol,
        "squint.task": serving.task,
        "squint.images": len(serving.sizes),
        "squint.bytes": sum(serving.sizes),
        "squint.level.asked": serving.asked,
    }
    if serving.entry is not None:
        attributes |= {"squint.model": serving.entry.manifest.name, "squint.version": serving.entry.manifest.version}
    if refusal is not None:
        attributes["error.type"] = refusal.code
    return Record(
        context,
        ended - round(seconds * 1e9),
        ended,
        f"request {serving.task}",
        attributes,
        refusal.status if refusal else 200,
        tuple(_course(one, of_clock) for one in outcomes),
    )


def _course(outcome: Outcome, of_clock: int) -> Course:
    def at(moment: float) -> int:
        return of_clock + round(moment * 1e9) if moment else 0

    item = outcome.item
    if item is None:
        return NOWHERE
    decode = round(outcome.decode * 1e9)
    queued = at(item.queued_at)
    return Course(
        submitted=at(item.submitted_at),
        # A refusal by the decoder leaves no time of its own: from when it had the image, as long as it took.
        decoded=queued or (at(item.decode_at) + decode if decode else 0),
        decode=decode,
        queued=queued,
        started=at(item.started_at),
        ended=at(outcome.ended),
        infer=round(outcome.infer * 1e9),
        post=round(outcome.post * 1e9),
        run=outcome.run,
        images=outcome.batch,
        closed=outcome.closed,
        level=outcome.level.spelled if outcome.level else "",
        code=outcome.refusal.code if outcome.refusal else "",
    )


NOWHERE = Course(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, "", "", "")
"""Of an image that went no way at all."""
