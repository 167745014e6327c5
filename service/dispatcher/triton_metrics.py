"""The metrics that Triton exports, under its names, for dashboards and scaling rules that were made for it.

Counters are those of `statistics.py` in microseconds, so that both always agree. The histograms are the ones proposed
for Triton (triton-inference-server/core, pull request 474), with its buckets. Compute input is decoding here, compute
output what turns raw outputs into results; a request of several images counts once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from service.dispatcher.catalogue import Entry
from service.dispatcher.statistics import Duration, ModelCounts, Statistics
from service.dispatcher.tickets import Outcome, slowest
from service.errors import Refusal
from service.families import Distribution

Named = tuple[str, str]
"""A model and its version."""

_LONG, _WAIT, _SHORT = (1e3, 5e3, 25e3, 5e4, 1e5), (1e2, 1e3, 5e3, 1e4, 5e4), (1e2, 5e2, 1e3, 5e3, 1e4)
_BOUNDS = {"request": _LONG, "queue": _WAIT, "compute_input": _SHORT, "compute_infer": _LONG, "compute_output": _SHORT}
_DURATIONS: dict[str, tuple[str, Callable[[ModelCounts], Duration]]] = {
    "request": ("Cumulative inference request duration in microseconds", lambda one: one.success),
    "queue": ("Cumulative inference queuing duration in microseconds", lambda one: one.queue),
    "compute_input": ("Cumulative compute input duration in microseconds", lambda one: one.decode),
    "compute_infer": ("Cumulative compute inference duration in microseconds", lambda one: one.infer),
    "compute_output": ("Cumulative inference compute output duration in microseconds", lambda one: one.post),
}
_COUNTS: dict[str, tuple[str, Callable[[ModelCounts], int]]] = {
    "nv_inference_request_success": (
        "Number of successful inference requests, all batch sizes",
        lambda one: one.success.count,
    ),
    "nv_inference_count": ("Number of inferences performed", lambda one: one.inferences),
    "nv_inference_exec_count": ("Number of model executions performed", lambda one: one.executions),
}
_REASONS = ("OTHER", "BACKEND", "CANCELED", "REJECTED")
_REASON = {
    **dict.fromkeys(
        ("overloaded", "rate_limited", "starting", "model_loading", "unavailable", "deadline_exceeded"), "REJECTED"
    ),
    "client_closed_request": "CANCELED",
    **dict.fromkeys(("unprocessable_image", "internal"), "BACKEND"),
}
"""Every other refusal is OTHER."""


class OfModel(Protocol):
    """A request."""

    @property
    def entry(self) -> Entry | None:
        """The version of a model that it is for."""


class Taken(msgspec.Struct, array_like=True):
    """What was counted of one version of a model: failures by reason, and for each stage its buckets and their sum."""

    model: str
    version: str
    failed: dict[str, int]
    durations: dict[str, tuple[list[int], float]]


class _Model:
    """What `Statistics` does not count for one version of a model."""

    def __init__(self) -> None:
        self.failed = dict.fromkeys(_REASONS, 0)
        self.durations = {stage: Distribution(bounds) for stage, bounds in _BOUNDS.items()}


class TritonMetrics:
    """See the module. `pending` gives the models to show, and how many images of each no engine has begun with."""

    def __init__(self, statistics: Statistics, pending: Callable[[], Mapping[Named, int]]) -> None:
        self._statistics = statistics
        self._pending = pending
        self._models: dict[Named, _Model] = {}

    def finished(self, serving: OfModel, outcomes: Sequence[Outcome], refusal: Refusal | None, seconds: float) -> None:
        """A request is over; one that named no model there is counts nowhere."""
        if serving.entry is None:
            return
        model = self._of((serving.entry.manifest.name, serving.entry.manifest.version))
        if refusal is not None:
            model.failed[_REASON.get(refusal.code, "OTHER")] += 1
            return
        one = slowest(outcomes)
        took = {
            "request": seconds,
            "queue": one.decoder_wait + one.queue,
            "compute_input": one.decode,
            "compute_infer": one.infer,
            "compute_output": one.post,
        }
        for stage, duration in took.items():
            model.durations[stage].observe(duration * 1e6)

    def take(self) -> list[Taken]:
        """What was counted since this was called last, to be merged elsewhere."""
        models, self._models = self._models, {}
        return [
            Taken(*named, one.failed, {stage: found.take() for stage, found in one.durations.items()})
            for named, one in models.items()
        ]

    def merge(self, taken: Sequence[Taken]) -> None:
        """Add what was counted elsewhere."""
        for one in taken:
            model = self._of((one.model, one.version))
            for reason, failed in one.failed.items():
                model.failed[reason] += failed
            for stage, (counts, total) in one.durations.items():
                model.durations[stage].merge(counts, total)

    def render(self) -> str:
        """The Prometheus text format."""
        pending = self._pending()
        shown = list(pending)
        for gone in [one for one in self._models if one not in self._statistics and one not in pending]:
            del self._models[gone]
        lines: list[str] = []
        for name, (text, count) in _COUNTS.items():
            lines += _head(name, "counter", text)
            lines += [_line(name, one, count(self._statistics.of(*one))) for one in shown]
        name = "nv_inference_request_failure"
        lines += _head(name, "counter", "Number of failed inference requests, all batch sizes")
        for one in shown:
            lines += [_line(name, one, failed, reason=reason) for reason, failed in self._of(one).failed.items()]
        for stage, (text, duration) in _DURATIONS.items():
            name = f"nv_inference_{stage}_duration_us"
            lines += _head(name, "counter", text)
            lines += [_line(name, one, duration(self._statistics.of(*one)).ns // 1000) for one in shown]
        name = "nv_inference_pending_request_count"
        lines += _head(name, "gauge", "Instantaneous number of pending requests awaiting execution per-model")
        lines += [_line(name, one, pending[one]) for one in shown]
        for stage in _BOUNDS:
            lines += self._histogram(stage, shown)
        return "".join(f"{line}\n" for line in lines)

    def _histogram(self, stage: str, shown: Sequence[Named]) -> list[str]:
        name = f"nv_inference_{stage}_duration_histogram_us"
        lines = _head(name, "histogram", f"Histogram of {stage.replace('_', ' ')} durations in microseconds")
        bounds = [*(f"{bound:.0f}" for bound in _BOUNDS[stage]), "+Inf"]
        for one in shown:
            found = self._of(one).durations[stage]
            counts = found.up_to()
            lines += [_line(f"{name}_bucket", one, count, le=le) for le, count in zip(bounds, counts, strict=True)]
            lines += [_line(f"{name}_sum", one, round(found.sum)), _line(f"{name}_count", one, counts[-1])]
        return lines

    def _of(self, one: Named) -> _Model:
        return self._models.setdefault(one, _Model())


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def _line(name: str, one: Named, value: int, **more: str) -> str:
    labels = {"model": one[0], "version": one[1]} | more
    shown = ",".join(
        f'{key}="{_escaped(labels[key])}"' for key in ("model", "reason", "version", "le") if key in labels
    )
    return f"{name}{{{shown}}} {value}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
