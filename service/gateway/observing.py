"""How a gateway is seen from outside: what its metrics read when scraped, Triton's names for them, and traces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.gateway.serving import Gateway
from service.gateway.triton_metrics import Named, TritonMetrics
from service.metrics import Now
from service.version import VERSION

if TYPE_CHECKING:
    from service.gateway.tracing.tracer import Tracer

_LAST_TRACES = 2.0
"""Seconds for the traces that wait when the gateway ends."""


class Observer:
    """Sets up what the configuration asks for."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._tracer: Tracer | None = None
        gateway.metrics.watch(self._now)
        if gateway.config.metrics_compat == "triton":
            gateway.triton = triton = TritonMetrics(gateway.engine.statistics, self._pending)
            gateway.metrics.add(triton.render)
        if gateway.config.otlp_endpoint:
            gateway.tracer = self._tracer = self._traces()

    def close(self) -> None:
        """The last traces are sent; takes a moment at most."""
        if self._tracer is not None:
            self._tracer.close(_LAST_TRACES)

    def _traces(self) -> Tracer:
        # Only here: its library comes with an extra.
        from service.gateway.tracing.collector import Collector
        from service.gateway.tracing.tracer import Tracer

        config = self._gateway.config
        collector = Collector(config.otlp_endpoint)
        return Tracer(collector, config.trace_sample, config.trace_service, VERSION, self._gateway.engine.clock)

    def _pending(self) -> dict[Named, int]:
        """Every version that is loaded, and its images that no engine has begun with."""
        pending = self._gateway.engine.pending()
        return {
            (entry.manifest.name, entry.manifest.version): pending.get(entry.key, 0)
            for entry in self._gateway.catalogue.all_entries()
            if entry.loaded is not None
        }

    def _now(self) -> Now:
        gateway, engine = self._gateway, self._gateway.engine
        return Now(
            ready=gateway.state() == "ready",
            in_flight=engine.in_flight,
            queued=engine.queued,
            engines=engine.engines,
            decoders=engine.decoders,
            workers={
                (f"{index}", gateway.config.device(index)): index in engine.workers
                for index in range(gateway.config.workers)
            },
            delays={name: engine.queue_delay(entry) for name, entry in gateway.catalogue.entries.items()},
            steps_down=engine.steps_down(),
            traces=self._tracer.counts if self._tracer else {},
        )
