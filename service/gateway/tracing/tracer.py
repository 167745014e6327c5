"""Traces of requests, sent to a collector by a thread of its own.

Serving a request never waits for it and never fails by it: when the collector does not keep up, traces are dropped and
counted.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence

from service import log
from service.dispatcher.tickets import Outcome
from service.errors import Refusal
from service.gateway.serving import Serving
from service.gateway.tracing.collector import Collector
from service.gateway.tracing.context import Sampler
from service.gateway.tracing.record import Record, record
from service.gateway.tracing.spans import Spans

QUEUE = 4096
"""Most requests that wait to be sent."""
EACH = 256
"""Most requests that are sent at a time."""
INTERVAL = 1.0
_TELL_AGAIN = 60.0
"""Seconds between two log lines about a collector that does not answer."""


class Tracer:
    """See the module. `clock` is the engine's; `share` of the requests that come in no trace are traced."""

    def __init__(
        self, collector: Collector, share: float, service: str, version: str, clock: Callable[[], float]
    ) -> None:
        self._collector = collector
        self._clock = clock
        self._sampler = Sampler(share)
        resource = {"service.name": service, "service.version": version, "service.instance.id": str(uuid.uuid4())}
        self._spans = Spans(resource, version, self._sampler.span)
        self._waiting: deque[Record] = deque()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._told = -_TELL_AGAIN
        self.counts = {"sent": 0, "dropped": 0, "failed": 0}
        """Traces by what became of them: `dropped` found the queue full, `failed` were not taken by the collector."""
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()

    def finished(self, serving: Serving, outcomes: Sequence[Outcome], refusal: Refusal | None, seconds: float) -> str:
        """A request is over: its place in its trace, as a `traceparent`."""
        context = self._sampler.place(serving.traceparent)
        if context.sampled:
            if len(self._waiting) >= QUEUE:
                self.counts["dropped"] += 1
            else:
                self._waiting.append(record(context, serving, outcomes, refusal, seconds, self._clock()))
                if len(self._waiting) == EACH:
                    self._wake.set()
        return context.header

    def close(self, seconds: float) -> None:
        """Send what waits, for so long at most."""
        self._closing.set()
        self._wake.set()
        self._thread.join(seconds)

    # -- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        closing = False
        while not closing:
            self._wake.wait(INTERVAL)
            self._wake.clear()
            closing = self._closing.is_set()
            try:
                self._send_all()
            except Exception as error:  # a bug of ours must not end the thread, and with it all traces
                log.event("bug", severity="error", trace=log.frames(error))
        self._collector.close()

    def _send_all(self) -> None:
        while self._waiting:
            records = [self._waiting.popleft() for _ in range(min(EACH, len(self._waiting)))]
            wrong = self._collector.send(self._spans.encode(records), self._pause)
            self.counts["failed" if wrong else "sent"] += len(records)
            if wrong and time.monotonic() - self._told >= _TELL_AGAIN:
                self._told = time.monotonic()
                log.event(
                    "traces_lost", severity="warning", reason=f"the collector {wrong}", lost=self.counts["failed"]
                )

    def _pause(self, seconds: float) -> bool:
        """Wait before the next try; false when the service ends."""
        return not self._closing.wait(seconds)
