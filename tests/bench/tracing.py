"""What a trace costs the gateway, in CPU time: `python -m tests.bench.tracing`.

On the event loop: finding a request's place, and noting what its spans are made of. In the thread: spans, and gzip.
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from service.core.queue import Item, LaneKey
from service.dispatcher.tickets import Outcome
from service.gateway.tracing.context import Sampler
from service.gateway.tracing.record import Record, record
from service.gateway.tracing.spans import Spans
from service.gateway.tracing.tracer import EACH

REQUESTS = 5 * EACH
ROUNDS = 5


def cost(work: Callable[[], object], times: int) -> float:
    """Microseconds of CPU for each of `times` that `work` does at once; the least of a few rounds."""
    took = []
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        took.append(time.process_time() - start)
    return 1e6 * min(took) / times


def one(sampler: Sampler, number: int) -> Record:
    """A usual request; two share a batch."""
    manifest = SimpleNamespace(name="toyscape-classify", version="1")
    serving: Any = SimpleNamespace(
        traceparent=None,
        request_id="0123456789abcdef",
        protocol="http",
        task="classify",
        asked="default",
        sizes=[50_000],
        entry=SimpleNamespace(manifest=manifest),
    )
    item = Item(1, LaneKey("m", "full"), 9.0, 1, 1.0, submitted_at=1.1, decode_at=1.2, queued_at=1.3, started_at=1.4)
    level: Any = SimpleNamespace(spelled="full")
    outcome = Outcome(item=item, decode=0.01, infer=0.01, post=0.001, run=number // 2, ended=1.6, batch=2, level=level)
    return record(sampler.place(None), serving, [outcome], None, 0.6, 2.0)


def main() -> None:
    """The command."""
    sampler = Sampler(1.0)
    spans = Spans({"service.name": "squint"}, "1", sampler.span)
    records = [one(sampler, number) for number in range(REQUESTS)]
    parts = [records[first : first + EACH] for first in range(0, REQUESTS, EACH)]
    encoded = [spans.encode(part) for part in parts]
    sizes = sum(map(len, encoded)) / REQUESTS, sum(len(gzip.compress(each, 1)) for each in encoded) / REQUESTS
    loop = cost(lambda: [sampler.place(None).header for _ in range(REQUESTS)], REQUESTS)
    kept = cost(lambda: [one(sampler, number) for number in range(REQUESTS)], REQUESTS)
    made = cost(lambda: [spans.encode(part) for part in parts], REQUESTS)
    packed = cost(lambda: [gzip.compress(each, 1) for each in encoded], REQUESTS)
    print(f"event loop: {loop:.1f} us for every request, {kept:.1f} us for a sampled one (its stand-in included)")
    print(f"thread: {made:.0f} us to make spans, {packed:.1f} us to pack them, for a sampled request")
    print(f"sent: {sizes[0]:.0f} bytes, {sizes[1]:.0f} packed, for a sampled request")


if __name__ == "__main__":
    main()
