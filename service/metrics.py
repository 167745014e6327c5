"""Every metric the service exports, in one registry held by the gateway.

Label values come from closed sets: tasks, loaded models, their levels, error codes, stage names. Nothing a client
sends becomes a label.

What is counted for every request is kept in plain numbers and put in the library's form when someone scrapes: the
gateway has one thread, and the library's own counters, made for many, cost several times as much.
"""

from __future__ import annotations

import platform
from bisect import bisect_left
from collections.abc import Callable
from itertools import accumulate

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_ITEMS = (1, 2, 4, 8, 16, 32, 64)


class _AtScrape(Collector):
    """What is read from elsewhere when someone scrapes: predicted waits by model, restarts by role."""

    def __init__(self, delays: Callable[[], dict[str, float]], restarts: Callable[[], dict[str, int]]) -> None:
        self._delays = delays
        self._restarts = restarts

    def collect(self) -> list[Metric]:
        """Both families."""
        delay = GaugeMetricFamily(
            "squint_queue_delay_estimate_seconds", "Predicted wait of a new request", labels=["model"]
        )
        for model, seconds in self._delays().items():
            delay.add_metric([model], seconds)
        restarted = CounterMetricFamily("squint_worker_restarts", "Processes restarted, by role", labels=["role"])
        for role, count in self._restarts().items():
            restarted.add_metric([role], count)
        return [delay, restarted]


class _Counter(Collector):
    """Counts by label values."""

    def __init__(self, name: str, text: str, labels: tuple[str, ...]) -> None:
        self._named = (name, text, labels)
        self._counts: dict[tuple[str, ...], int] = {}

    def add(self, *labels: str) -> None:
        """One more."""
        self._counts[labels] = self._counts.get(labels, 0) + 1

    def describe(self) -> list[Metric]:
        """What it is, without counting."""
        name, text, labels = self._named
        return [CounterMetricFamily(name, text, labels=labels)]

    def collect(self) -> list[Metric]:
        """The family."""
        name, text, names = self._named
        family = CounterMetricFamily(name, text, labels=names)
        for labels, count in self._counts.items():
            family.add_metric(labels, count)
        return [family]


class _Histogram(Collector):
    """Distributions by label values, in buckets of values up to each of `bounds`."""

    def __init__(self, name: str, text: str, labels: tuple[str, ...], bounds: tuple[float, ...]) -> None:
        self._named = (name, text, labels)
        self._bounds = bounds
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}

    def observe(self, value: float, *labels: str) -> None:
        """One more value."""
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0] * (len(self._bounds) + 1)
            self._sums[labels] = 0.0
        counts[bisect_left(self._bounds, value)] += 1
        self._sums[labels] += value

    def describe(self) -> list[Metric]:
        """What it is, without counting."""
        name, text, labels = self._named
        return [HistogramMetricFamily(name, text, labels=labels)]

    def collect(self) -> list[Metric]:
        """The family."""
        name, text, names = self._named
        family = HistogramMetricFamily(name, text, labels=names)
        bounds = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        for labels, counts in self._counts.items():
            family.add_metric(labels, list(zip(bounds, accumulate(counts), strict=True)), self._sums[labels])
        return [family]


class Metrics:
    """The service's metrics; method names say what happened."""

    def __init__(self, version: str) -> None:
        registry = self.registry = CollectorRegistry()
        self._request = _Histogram(
            "squint_request_seconds",
            "Time from the request's first byte to its answer",
            ("task", "model", "level", "outcome"),
            _SECONDS,
        )
        self._stage = _Histogram("squint_stage_seconds", "Time an image spent in a stage", ("stage",), _SECONDS)
        self._batch = _Histogram("squint_batch_items", "Images per batch", ("model", "level"), _ITEMS)
        self._closed = _Counter("squint_batch_closed", "Batches by the reason they were closed", ("reason",))
        self._level = _Counter("squint_level_served", "Answers by level asked and served", ("model", "level", "asked"))
        self._refused = _Counter("squint_refused", "Requests refused, by error code", ("code",))
        for collector in (self._request, self._stage, self._batch, self._closed, self._level, self._refused):
            registry.register(collector)
        self._restarts = dict.fromkeys(("gateway", "decoder", "worker"), 0)
        self._load = Gauge("squint_model_load_seconds", "Time to load and warm a model", ["model"], registry=registry)
        self._in_flight = Gauge("squint_in_flight", "Images admitted and not answered", registry=registry)
        self._queued = Gauge("squint_queue_items", "Images waiting for a decoder or worker", registry=registry)
        Gauge("squint_build_info", "Version of the service", ["version", "python"], registry=registry).labels(
            version, platform.python_version()
        ).set(1)

    def watch(
        self, in_flight: Callable[[], float], queued: Callable[[], float], delays: Callable[[], dict[str, float]]
    ) -> None:
        """Read these when scraped."""
        self._in_flight.set_function(in_flight)
        self._queued.set_function(queued)
        self.registry.register(_AtScrape(delays, lambda: self._restarts))

    def request(self, task: str, model: str, level: str, outcome: str, seconds: float) -> None:
        """A request was answered; `outcome` is `ok` or an error code."""
        self._request.observe(seconds, task, model, level, outcome)

    def stages(self, decode: float, queue: float, infer: float, post: float) -> None:
        """One image's stages, in seconds."""
        observe = self._stage.observe
        observe(decode, "decode")
        observe(queue, "queue")
        observe(infer, "infer")
        observe(post, "post")

    def batch(self, model: str, level: str, items: int, reason: str) -> None:
        """A batch was sent to a worker."""
        self._batch.observe(items, model, level)
        self._closed.add(reason)

    def served(self, model: str, level: str, asked: str) -> None:
        """An image was answered at `level` when `asked` was asked for."""
        self._level.add(model, level, asked)

    def refused(self, code: str) -> None:
        """A request was refused."""
        self._refused.add(code)

    def restarted(self, counts: dict[str, int]) -> None:
        """Restarts so far, by role."""
        self._restarts |= counts

    def model_loaded(self, model: str, seconds: float) -> None:
        """A worker loaded a model."""
        self._load.labels(model).set(seconds)

    def render(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self.registry)
