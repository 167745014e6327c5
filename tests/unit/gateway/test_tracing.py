"""Where a request stands in a trace, what is kept of it, and what is dropped."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from service import preflight
from service.config import Config
from service.errors import StartError
from service.gateway.tracing import context, tracer
from service.gateway.tracing.context import Context, Sampler
from service.gateway.tracing.record import NOWHERE, Course, Record
from service.gateway.tracing.spans import Spans
from tests.walls import ROOT

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("header", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"01-{TRACE}-{SPAN}-01-what-later-versions-add", True),
        (f"cc-{TRACE}-{SPAN}-02", False),
    ],
)
def test_a_context_is_read(header: str, sampled: bool) -> None:
    assert context.read(header) == (int(TRACE, 16), int(SPAN, 16), sampled)


@pytest.mark.parametrize(
    "header",
    [
        *(None, "", "00", f"00-{TRACE}-{SPAN}", f"00-{TRACE}-{SPAN}-1", f"00-{TRACE.upper()}-{SPAN}-01"),
        *(f"00-{TRACE}-{SPAN}-01-more", f"ff-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01"),
        *(f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE}-{SPAN}-01\n", f" 00-{TRACE}-{SPAN}-01"),
        f"01-{TRACE}-{SPAN}-01-{'x' * 600}",
    ],
)
def test_what_is_no_context_is_none(header: str | None) -> None:
    assert context.read(header) is None


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    context.read(text)


@given(st.integers(0, 2**32), st.booleans())
def test_a_context_that_is_told_can_be_read(seed: int, sampled: bool) -> None:
    source = random.Random(seed)
    told = Context(source.getrandbits(128) or 1, source.getrandbits(64) or 1, 0, sampled)
    assert context.read(told.header) == (told.trace, told.span, sampled)


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_the_share_is_sampled(share: float) -> None:
    sampler = Sampler(share, random.Random(1))
    sampled = sum(sampler.place(None).sampled for _ in range(5000))
    assert sampled / 5000 == pytest.approx(share, abs=0.03 if 0 < share < 1 else 0)


def test_two_who_sample_alike_decide_alike() -> None:
    one, other = Sampler(0.3, random.Random(7)), Sampler(0.6, random.Random(7))
    places = [(one.place(None), other.place(None)) for _ in range(500)]
    assert all(place[0].trace == place[1].trace for place in places)
    assert all(place[1].sampled for place in places if place[0].sampled)


# --- spans -----------------------------------------------------------------------------------------------------------


def course(run: int = 0, **changes: Any) -> Course:
    return Course(100, 300, 100, 300, 400, 900, 300, 100, run, 2, "drained", "full", "")._replace(**changes)


def made(*records: Record, spans: Spans | None = None) -> list[Span]:
    ids = iter(range(1000, 100_000))
    spans = spans or Spans({"service.name": "s"}, "1", lambda: next(ids))
    request = ExportTraceServiceRequest.FromString(spans.encode(records))
    return list(request.resource_spans[0].scope_spans[0].spans)


def request(trace: int, *courses: Course, status: int = 200) -> Record:
    return Record(Context(trace, trace + 1, 0, True), 0, 1000, "request classify", {}, status, courses)


def test_an_image_that_went_nowhere_has_no_spans() -> None:
    assert [span.name for span in made(request(1, NOWHERE, status=504))] == ["request classify"]


def test_an_image_that_left_the_queue_has_no_batch() -> None:
    gone = course(started=0, ended=0, code="deadline_exceeded")
    spans = {span.name: span for span in made(request(1, gone, status=504))}
    assert spans.keys() == {"request classify", "upload", "decode", "queue"}
    assert spans["queue"].end_time_unix_nano == 1000, "it waited until the end"
    assert not spans["decode"].attributes


def test_times_are_those_noted() -> None:
    spans = {span.name: (span.start_time_unix_nano, span.end_time_unix_nano) for span in made(request(1, course(5)))}
    assert spans == {
        "request classify": (0, 1000),
        "upload": (0, 100),
        "decode": (200, 300),
        "queue": (300, 400),
        "batch": (400, 900),
        "infer": (500, 800),
        "post": (800, 900),
    }


def test_batches_link_to_those_they_shared_an_engine_with() -> None:
    ids = iter(range(1000, 100_000))
    spans = Spans({}, "1", lambda: next(ids))
    first = made(request(1, course(5), course(5)), request(2, course(5)), request(3, course(6)), spans=spans)
    batches = {int.from_bytes(span.trace_id, "big"): span for span in first if span.name == "batch"}
    assert [link.span_id for link in batches[1].links] == [batches[2].span_id]
    assert [link.span_id for link in batches[2].links] == [batches[1].span_id]
    assert not batches[3].links
    later = [span for span in made(request(4, course(5)), spans=spans) if span.name == "batch"]
    assert {link.span_id for link in later[0].links} == {batches[1].span_id, batches[2].span_id}


def test_a_huge_batch_has_a_bounded_number_of_links() -> None:
    spans = [span for span in made(*(request(number, course(5)) for number in range(1, 200))) if span.name == "batch"]
    assert {len(span.links) for span in spans} == {32}


# --- the queue -------------------------------------------------------------------------------------------------------


def serving() -> Any:
    return SimpleNamespace(
        traceparent=None, request_id="r", protocol="http", task="classify", asked="none", sizes=[1], entry=None
    )


class Stuck:
    """A collector that takes its time."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.taken = 0

    def send(self, spans: bytes, pause: Any) -> str:
        self.taken += 1
        self.go.wait(30)
        return ""

    def close(self) -> None:
        pass


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracer, "QUEUE", 50)
    monkeypatch.setattr(tracer, "EACH", 10)
    stuck: Any = Stuck()
    one = tracer.Tracer(stuck, 1.0, "s", "1", lambda: 0.0)
    for _ in range(500):
        assert one.finished(serving(), [], None, 0.1).startswith("00-")
    assert one.counts["dropped"] >= 400
    stuck.go.set()
    one.close(10)
    assert one.counts["sent"] + one.counts["dropped"] == 500
    assert one.counts["failed"] == 0


def test_a_bug_in_making_spans_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stuck: Any = Stuck()
    stuck.go.set()
    one = tracer.Tracer(stuck, 1.0, "s", "1", lambda: 0.0)
    with monkeypatch.context() as patched:
        patched.setattr(one._spans, "encode", lambda records: 1 / 0)
        one.finished(serving(), [], None, 0.1)
        one._wake.set()
        for _ in range(100):
            if not one._waiting and "ZeroDivisionError" in capsys.readouterr().err:
                break
            threading.Event().wait(0.05)
    one.finished(serving(), [], None, 0.1)
    one.close(10)
    assert one.counts["sent"] == 1


# --- the extra -------------------------------------------------------------------------------------------------------


def test_without_the_extra_the_start_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.proto", None)
    with pytest.raises(StartError, match=r"otlp-endpoint.*install -e '\.\[otel\]'"):
        preflight.check_extras(Config(otlp_endpoint="http://127.0.0.1:4318"))
    preflight.check_extras(Config())


def test_the_library_is_loaded_only_when_it_is_needed() -> None:
    code = "import sys, service.gateway.main; print([m for m in sys.modules if m.startswith('opentelemetry.proto')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
