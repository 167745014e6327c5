"""What was inferred and how long it took, by model and version, since who counts started.

Counts are of requests (`success`, `fail`), of images (`inferences`) and of batches (`executions`); times are in
nanoseconds. A stage's time of a request with several images is that of the image that spent longest in it, since they
go through it side by side. Nothing is counted of a request that named no model there is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from service.dispatcher.tickets import Outcome, slowest

_NS = 1e9


@dataclass(slots=True)
class Duration:
    """How often, and how long in all."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float) -> None:
        """Once more."""
        self.count += 1
        self.ns += round(seconds * _NS)

    def merge(self, other: Duration) -> None:
        """What was counted elsewhere, too."""
        self.count += other.count
        self.ns += other.ns


@dataclass(slots=True)
class Stages:
    """What batches of one size took: decoding of their images in all, the model, and the results."""

    decode: Duration = field(default_factory=Duration)
    infer: Duration = field(default_factory=Duration)
    post: Duration = field(default_factory=Duration)

    def merge(self, other: Stages) -> None:
        """What was counted elsewhere, too."""
        self.decode.merge(other.decode)
        self.infer.merge(other.infer)
        self.post.merge(other.post)


@dataclass(slots=True)
class ModelCounts(Stages):
    """One version of a model; the stages are here those of its requests."""

    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    inferences: int = 0
    executions: int = 0
    last_ms: int = 0
    """When a request was answered last: milliseconds of Unix time."""
    batches: dict[int, Stages] = field(default_factory=dict)
    """By how many images they held."""

    def add(self, other: ModelCounts) -> None:
        """What was counted elsewhere, too."""
        self.merge(other)
        self.success.merge(other.success)
        self.fail.merge(other.fail)
        self.queue.merge(other.queue)
        self.inferences += other.inferences
        self.executions += other.executions
        self.last_ms = max(self.last_ms, other.last_ms)
        for images, stages in other.batches.items():
            self.batches.setdefault(images, Stages()).merge(stages)


Counted = list[tuple[str, str, ModelCounts]]
"""By model and version."""


class Statistics:
    """See the module. `now` is seconds of Unix time."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._counts: dict[tuple[str, str], ModelCounts] = {}

    def of(self, model: str, version: str) -> ModelCounts:
        """The counts of one version of a model; not to be changed."""
        return self._counts.get((model, version)) or ModelCounts()

    def __contains__(self, one: tuple[str, str]) -> bool:
        """Something was counted of this model and version."""
        return one in self._counts

    def forget(self, model: str, version: str) -> None:
        """It is served no more: there is no end to version numbers."""
        self._counts.pop((model, version), None)

    def all(self) -> Counted:
        """All counts; not to be changed."""
        return [(*named, counts) for named, counts in self._counts.items()]

    def take(self) -> Counted:
        """What was counted since this was called last, to be merged elsewhere."""
        taken = self.all()
        self._counts = {}
        return taken

    def merge(self, taken: Counted) -> None:
        """Add what was counted elsewhere."""
        for model, version, counts in taken:
            self._of(model, version).add(counts)

    def _of(self, model: str, version: str) -> ModelCounts:
        counts = self._counts.get((model, version))
        if counts is None:
            counts = self._counts[model, version] = ModelCounts()
        return counts

    def ran(self, model: str, version: str, images: int, decode: float, infer: float, post: float) -> None:
        """A batch of `images` was run; decoding all of them took `decode` seconds."""
        counts = self._of(model, version)
        counts.executions += 1
        stages = counts.batches.get(images)
        if stages is None:
            stages = counts.batches[images] = Stages()
        stages.decode.add(decode)
        stages.infer.add(infer)
        stages.post.add(post)

    def answered(self, model: str, version: str, outcomes: Sequence[Outcome], seconds: float) -> None:
        """A request has its answer; images that were refused are not inferences."""
        counts = self._of(model, version)
        counts.last_ms = int(self._now() * 1000)
        counts.success.add(seconds)
        counts.inferences += sum(outcome.refusal is None for outcome in outcomes)
        one = slowest(outcomes)
        counts.queue.add(one.decoder_wait + one.queue)
        counts.decode.add(one.decode)
        counts.infer.add(one.infer)
        counts.post.add(one.post)

    def refused(self, model: str, version: str, seconds: float) -> None:
        """A request ended without an answer."""
        counts = self._of(model, version)
        counts.last_ms = int(self._now() * 1000)
        counts.fail.add(seconds)
