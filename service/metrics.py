"""Every metric the service exports, in one registry held by the gateway.

Label values come from closed sets: tasks, loaded models, their levels, error codes, stage names. Nothing a client
sends becomes a label.
"""

from __future__ import annotations

import platform
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STAGES = ("decode", "queue", "infer", "post")

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


class Metrics:
    """The service's metrics; method names say what happened."""

    def __init__(self, version: str) -> None:
        registry = self.registry = CollectorRegistry()
        self._request = Histogram(
            "squint_request_seconds",
            "Time from the request's first byte to its answer",
            ["task", "model", "level", "outcome"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._stage = Histogram(
            "squint_stage_seconds", "Time an image spent in a stage", ["stage"], buckets=_SECONDS, registry=registry
        )
        self._batch = Histogram(
            "squint_batch_items", "Images per batch", ["model", "level"], buckets=_ITEMS, registry=registry
        )
        self._closed = Counter(
            "squint_batch_closed", "Batches by the reason they were closed", ["reason"], registry=registry
        )
        self._level = Counter(
            "squint_level_served", "Answers by level asked and served", ["model", "level", "asked"], registry=registry
        )
        self._refused = Counter("squint_refused", "Requests refused, by error code", ["code"], registry=registry)
        self._restarts = dict.fromkeys(("gateway", "decoder", "worker"), 0)
        self._load = Gauge("squint_model_load_seconds", "Time to load and warm a model", ["model"], registry=registry)
        self._in_flight = Gauge("squint_in_flight", "Images admitted and not answered", registry=registry)
        self._queued = Gauge("squint_queue_items", "Images waiting for a decoder or worker", registry=registry)
        Gauge("squint_build_info", "Version of the service", ["version", "python"], registry=registry).labels(
            version, platform.python_version()
        ).set(1)
        self._stages = {stage: self._stage.labels(stage) for stage in STAGES}

    def watch(
        self, in_flight: Callable[[], float], queued: Callable[[], float], delays: Callable[[], dict[str, float]]
    ) -> None:
        """Read these when scraped."""
        self._in_flight.set_function(in_flight)
        self._queued.set_function(queued)
        self.registry.register(_AtScrape(delays, lambda: self._restarts))

    def request(self, task: str, model: str, level: str, outcome: str, seconds: float) -> None:
        """A request was answered; `outcome` is `ok` or an error code."""
        self._request.labels(task, model, level, outcome).observe(seconds)

    def stages(self, decode: float, queue: float, infer: float, post: float) -> None:
        """One image's stages, in seconds."""
        for stage, seconds in zip(STAGES, (decode, queue, infer, post), strict=True):
            self._stages[stage].observe(seconds)

    def batch(self, model: str, level: str, items: int, reason: str) -> None:
        """A batch was sent to a worker."""
        self._batch.labels(model, level).observe(items)
        self._closed.labels(reason).inc()

    def served(self, model: str, level: str, asked: str) -> None:
        """An image was answered at `level` when `asked` was asked for."""
        self._level.labels(model, level, asked).inc()

    def refused(self, code: str) -> None:
        """A request was refused."""
        self._refused.labels(code).inc()

    def restarted(self, counts: dict[str, int]) -> None:
        """Restarts so far, by role."""
        self._restarts |= counts

    def model_loaded(self, model: str, seconds: float) -> None:
        """A worker loaded a model."""
        self._load.labels(model).set(seconds)

    def render(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self.registry)
