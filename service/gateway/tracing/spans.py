"""Requests as spans, in OpenTelemetry's own format.

A request's spans are its child spans `upload`, `decode`, `queue` and `batch`, and the batch's `infer` and `post`; a
batch links to those of the other requests that ran in it. They are made afterwards, all at once, from the times that
the engine noted: so tracing costs a request almost nothing while it is served.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from service.gateway.tracing.record import Course, Record

_LINKS = 32
"""Most links of one batch."""
_RUNS = 1024
"""Batches whose spans are remembered, for requests of several images that end later than their neighbours."""

_Place = tuple[bytes, bytes]
"""A trace and a span in it."""


class Spans:
    """Makes spans; `new_id` gives their ids, `resource` says whose they are."""

    def __init__(self, resource: Mapping[str, str], version: str, new_id: Callable[[], int]) -> None:
        self._resource = Resource(attributes=_attributes(resource))
        self._scope = InstrumentationScope(name="squint", version=version)
        self._new_id = new_id
        self._mates: OrderedDict[int, list[_Place]] = OrderedDict()

    def encode(self, records: Sequence[Record]) -> bytes:
        """The spans of these requests as an ExportTraceServiceRequest."""
        batches = self._batches(records)
        spans = [span for record in records for span in self._request(record, batches[id(record)])]
        within = ScopeSpans(scope=self._scope, spans=spans)
        whole = ExportTraceServiceRequest(resource_spans=[ResourceSpans(resource=self._resource, scope_spans=[within])])
        encoded: bytes = whole.SerializeToString()
        return encoded

    def _batches(self, records: Sequence[Record]) -> dict[int, dict[int, bytes]]:
        """Of each record the span of each batch it was in, by the batch's number."""
        batches: dict[int, dict[int, bytes]] = defaultdict(dict)
        for record in records:
            trace = record.context.trace.to_bytes(16, "big")
            for course in record.courses:
                if course.started and course.run not in batches[id(record)]:
                    span = batches[id(record)][course.run] = self._id()
                    self._mates.setdefault(course.run, []).append((trace, span))
        while len(self._mates) > _RUNS + len(records):
            self._mates.popitem(last=False)
        return batches

    def _request(self, record: Record, batches: Mapping[int, bytes]) -> Iterator[Span]:
        context = record.context
        own = (context.trace.to_bytes(16, "big"), context.span.to_bytes(8, "big"))
        span = _span(own, own[1], record.name, record.began, record.ended)
        span.kind = Span.SPAN_KIND_SERVER
        span.parent_span_id = context.parent.to_bytes(8, "big") if context.parent else b""
        span.attributes.extend(_attributes(record.attributes))
        if record.status >= 500:
            span.status.code = Status.STATUS_CODE_ERROR
        yield span
        submitted = next((course.submitted for course in record.courses if course.submitted), 0)
        if submitted:
            yield _span(own, self._id(), "upload", record.began, submitted)
        done = set[int]()
        for course in record.courses:
            yield from self._image(own, course, record.ended)
            if course.started and course.run not in done:
                done.add(course.run)
                yield from self._batch(own, batches[course.run], course, record.ended)

    def _image(self, own: _Place, course: Course, ended: int) -> Iterator[Span]:
        if course.decoded:
            span = _span(own, self._id(), "decode", course.decoded - course.decode, course.decoded)
            if not course.queued:
                span.attributes.extend(_attributes({"error.type": course.code}))
            yield span
        if course.queued:
            yield _span(own, self._id(), "queue", course.queued, course.started or ended)

    def _batch(self, own: _Place, batch: bytes, course: Course, ended: int) -> Iterator[Span]:
        """The batch as this request saw it: until its own end, where the batch's was not seen."""
        until = course.ended or ended
        span = _span(own, batch, "batch", course.started, until)
        said: dict[str, str | int] = {
            "squint.level": course.level,
            "squint.batch.images": course.images,
            "squint.batch.closed": course.closed,
        }
        if course.code:
            said["error.type"] = course.code
        span.attributes.extend(_attributes(said))
        mates = (place for place in self._mates.get(course.run, ()) if place[1] != batch)
        for trace, other in itertools.islice(mates, _LINKS):
            span.links.add(trace_id=trace, span_id=other)
        yield span
        if course.ended:
            inferred = until - course.post
            # What is sent ahead waits in the worker: infer begins as long before its end as it took.
            yield _span((own[0], batch), self._id(), "infer", inferred - course.infer, inferred)
            yield _span((own[0], batch), self._id(), "post", inferred, until)

    def _id(self) -> bytes:
        return self._new_id().to_bytes(8, "big")


def _span(parent: _Place, own: bytes, name: str, began: int, ended: int) -> Span:
    return Span(
        trace_id=parent[0],
        span_id=own,
        parent_span_id=parent[1],
        name=name,
        kind=Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=began,
        end_time_unix_nano=max(began, ended),
    )


def _attributes(values: Mapping[str, str | int]) -> list[KeyValue]:
    return [
        KeyValue(key=key, value=AnyValue(string_value=value) if isinstance(value, str) else AnyValue(int_value=value))
        for key, value in values.items()
    ]
