"""How a gateway's requests are seen from outside: their traces, and their counts under Triton's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from service.gateway.serving import Gateway
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
        if gateway.config.otlp_endpoint:
            gateway.tracer = self._tracer = self._traces()

    def traces(self) -> Mapping[str, int]:
        """How many traces became what; nothing without a collector."""
        return self._tracer.counts if self._tracer else {}

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
