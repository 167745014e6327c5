"""Every metric the service exports, in one registry held by whoever dispatches.

Label values come from closed sets: tasks, loaded models, their levels, error codes, stage names. Nothing a client
sends becomes a label.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from service.errors import STATUS
from service.families import Amounts, AtScrape, Counter, Distribution, Histogram, Observed

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_STAGE_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
_ITEMS = (1, 2, 4, 8, 16, 32, 64)
_STAGES = ("decode", "queue", "infer", "post")
RELOADS = ("loaded", "unloaded", "verification", "size", "load", "crashed", "timeout", "memory")
_OURS = ("overloaded", "client_closed_request")
_OUTCOMES = {
    "ok": "ok",
    **{code: code if status >= 500 or code in _OURS else "invalid" for code, status in STATUS.items()},
}
"""`invalid` stands for all that is the client's own fault."""
_CLOSED = ("cap", "drained", "shared", "deadline", "retry")


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """What is read from elsewhere when someone scrapes."""

    ready: bool = False
    in_flight: int = 0
    queued: int = 0
    engines: int = 0
    decoders: int = 0
    workers: Mapping[tuple[str, str], bool] = field(default_factory=dict)
    """Whether a worker is there, by its number and its device."""
    delays: Mapping[str, float] = field(default_factory=dict)
    """Predicted seconds until a new request of a model would be answered."""
    steps_down: Mapping[str, int] = field(default_factory=dict)
    """How many levels below the highest `auto` stands for a model."""
    traces: Mapping[str, int] = field(default_factory=dict)
    """Traces by what became of them; empty without a collector."""


class Version(NamedTuple):
    """One version that is served, its part of the requests that name none, the memory it takes in a worker, and how its
    requests ended."""

    model: str
    version: str
    share: float
    resident: int
    answered: int
    refused: int


def _of_versions(now: Iterable[Version]) -> list[Metric]:
    """Of those that are served now alone: there is no end to version numbers."""
    named = ["model", "version"]
    share = GaugeMetricFamily("squint_version_share", "Part of the requests that name no version", labels=named)
    resident = GaugeMetricFamily("squint_version_resident_bytes", "Memory it takes in a worker", labels=named)
    requests = CounterMetricFamily("squint_version_requests", "Requests by version", labels=[*named, "outcome"])
    for one in now:
        share.add_metric([one.model, one.version], one.share)
        resident.add_metric([one.model, one.version], one.resident)
        requests.add_metric([one.model, one.version, "ok"], one.answered)
        requests.add_metric([one.model, one.version, "refused"], one.refused)
    return [share, resident, requests]


class Taken(NamedTuple):
    """What a gateway counted, to be merged where all is counted; in the order of `Metrics`."""

    counters: list[Amounts]
    histograms: list[Observed]


class Metrics:
    """The service's metrics; method names say what happened."""

    def __init__(self, version: str) -> None:
        registry = self.registry = CollectorRegistry()
        self._request = Histogram(
            "squint_request_seconds",
            "Time from the request's first byte to its answer",
            ("task", "model", "level", "outcome"),
            _SECONDS,
        )
        self._stage = Histogram(
            "squint_stage_seconds", "Time an image spent in a stage", ("model", "level", "stage"), _STAGE_SECONDS
        )
        self._stages: dict[tuple[str, str], tuple[Distribution, ...]] = {}
        self._batch = Histogram("squint_batch_items", "Images per batch", ("model", "level"), _ITEMS)
        self._closed = Counter("squint_batch_closed", "Batches by the reason they were closed", ("reason",))
        self._level = Counter("squint_level_served", "Answers by level asked and served", ("model", "level", "asked"))
        self._refused = Counter("squint_refused", "Requests refused, by error code", ("code",))
        self._engine = Counter("squint_engine_busy_seconds", "Time that engines ran batches", ("model", "level"))
        self._decoder = Counter("squint_decoder_busy_seconds", "Time that decoders decoded", ())
        self._reloads = Counter("squint_model_reloads", "Versions loaded, unloaded, or rejected and why", ("outcome",))
        self._reloads.declare((outcome,) for outcome in RELOADS)
        registry.register(self._reloads)
        self._closed.declare((reason,) for reason in _CLOSED)
        self._refused.declare((code,) for code in STATUS)
        self._decoder.declare([()])
        counted = (self._request, self._stage, self._batch, self._closed, self._level, self._refused)
        for collector in (*counted, self._engine, self._decoder):
            registry.register(collector)
        self._of_requests = (self._level, self._refused), (self._request, self._stage)
        self._restarts = dict.fromkeys(("gateway", "decoder", "worker"), 0)
        self._load = Gauge("squint_model_load_seconds", "Time to load and warm a model", ["model"], registry=registry)
        Gauge("squint_build_info", "Version of the service", ["version", "python"], registry=registry).labels(
            version, platform.python_version()
        ).set(1)
        self._now: Callable[[], Now] = Now
        registry.register(AtScrape(self._at_scrape))
        self._others: list[Callable[[], str]] = []

    def watch(self, now: Callable[[], Now]) -> None:
        """Read this when scraped."""
        self._now = now

    def add(self, render: Callable[[], str]) -> None:
        """Append what this renders, in the Prometheus text format and under names of its own."""
        self._others.append(render)

    def request(self, task: str, model: str, level: str, outcome: str, seconds: float) -> None:
        """A request was answered at a level; or refused, at none. `outcome` is `ok` or an error code."""
        # Every code at every level would be hundreds of series for every model.
        level = level if outcome == "ok" else "none"
        self._request.of(task, model, level, _OUTCOMES[outcome]).observe(seconds)

    def stages(self, model: str, level: str, decode: float, queue: float, infer: float, post: float) -> None:
        """One image's stages, in seconds."""
        stages = self._stages.get((model, level))
        if stages is None:
            stages = self._stages[model, level] = tuple(self._stage.of(model, level, stage) for stage in _STAGES)
        stages[0].observe(decode)
        stages[1].observe(queue)
        stages[2].observe(infer)
        stages[3].observe(post)

    def batch(self, model: str, level: str, items: int, reason: str) -> None:
        """A batch was sent to a worker."""
        self._batch.of(model, level).observe(items)
        self._closed.add(reason)

    def ran(self, model: str, level: str, seconds: float) -> None:
        """An engine was busy with a batch for so long."""
        self._engine.add(model, level, amount=seconds)

    def decoded(self, seconds: float) -> None:
        """A decoder was busy with an image for so long."""
        self._decoder.add(amount=seconds)

    def served(self, model: str, level: str, asked: str) -> None:
        """An image was answered at `level` when `asked` was asked for."""
        self._level.add(model, level, asked)

    def refused(self, code: str) -> None:
        """A request was refused."""
        self._refused.add(code)

    def restarted(self, counts: dict[str, int]) -> None:
        """Restarts so far, by role."""
        self._restarts |= counts

    def reloaded(self, outcome: str) -> None:
        """What is served has changed, or did not since a version was rejected; `outcome` is one of RELOADS."""
        self._reloads.add(outcome)

    def watch_versions(self, now: Callable[[], Iterable[Version]]) -> None:
        """Read this when scraped."""
        self.registry.register(AtScrape(lambda: _of_versions(now())))

    def model_loaded(self, model: str, seconds: float) -> None:
        """A worker loaded a model."""
        self._load.labels(model).set(seconds)

    def take(self) -> Taken:
        """What requests counted since this was called last."""
        counters, histograms = self._of_requests
        return Taken([one.take() for one in counters], [one.take() for one in histograms])

    def merge(self, taken: Taken) -> None:
        """Add what another process counted. Raises ValueError for what this one does not count so."""
        counters, histograms = self._of_requests
        for counter, amounts in zip(counters, taken.counters, strict=True):
            counter.merge(amounts)
        for histogram, observed in zip(histograms, taken.histograms, strict=True):
            histogram.merge(observed)

    def render(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self.registry) + "".join(render() for render in self._others).encode()

    def _at_scrape(self) -> list[Metric]:
        now = self._now()
        plain = (
            ("squint_ready", "1 while a request would be answered, as /readyz says", int(now.ready)),
            ("squint_in_flight", "Images admitted and not answered", now.in_flight),
            ("squint_queue_items", "Images waiting for a decoder or worker", now.queued),
            ("squint_engines", "Engines of the workers that are there", now.engines),
            ("squint_decoders", "Decoders that are there", now.decoders),
        )
        families: list[Metric] = [GaugeMetricFamily(name, text, value=value) for name, text, value in plain]
        by_model = (
            ("squint_queue_delay_estimate_seconds", "Predicted wait of a new request", now.delays),
            ("squint_auto_steps_down", "Levels below the highest at which auto stands", now.steps_down),
        )
        for name, text, values in by_model:
            gauge = GaugeMetricFamily(name, text, labels=["model"])
            for model, value in values.items():
                gauge.add_metric([model], value)
            families.append(gauge)
        up = GaugeMetricFamily("squint_worker_up", "1 while the worker is there", labels=["worker", "device"])
        for labels, there in now.workers.items():
            up.add_metric(labels, int(there))
        families.append(up)
        counters = [("squint_worker_restarts", "Processes restarted, by role", "role", self._restarts)]
        if now.traces:
            counters.append(("squint_traces", "Sampled traces by what became of them", "outcome", dict(now.traces)))
        for name, text, label, counts in counters:
            counter = CounterMetricFamily(name, text, labels=[label])
            for key, count in counts.items():
                counter.add_metric([key], count)
            families.append(counter)
        return families
