"""Traces as a collector gets them, and a service that does not care whether there is one."""

from __future__ import annotations

import asyncio
import itertools
import re
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from tritonclient.grpc import service_pb2 as kserve

from service.proto.squint.v1 import vision_pb2 as pb
from tests.contract import models
from tests.e2e import images
from tests.e2e.collector import Collector, attributes
from tests.e2e.http import Connection, Reply
from tests.e2e.rpc import Vision, told
from tests.e2e.service import Service, free_port

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
OTHER = "4bf92f3577b34da6a3ce929d0e0e4736"
IMAGE = images.png(images.number(7))
HEADER = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-(0[01])")


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as one:
        yield one


@pytest.fixture(scope="module")
def service(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("traces")
    models.fake(folder / "zoo")
    # Batches that take a moment: none is sent ahead of the one that runs, so those that wait share one.
    flags = ("--threads", "1", "--fake-batch-ms", "6", "--models", str(folder / "zoo"))
    with Service(folder, *flags, "--otlp-endpoint", collector.endpoint, "--trace-sample", "1") as running:
        yield running


def traced(folder: Path, collector: Collector) -> Service:
    """A service of its own that sends every trace there."""
    return Service(folder, "--otlp-endpoint", collector.endpoint, "--trace-sample", "1")


def ask(
    service: Service, body: bytes = IMAGE, path: str = "/classify", headers: dict[str, str] | None = None
) -> tuple[Reply, str, str, str]:
    """The reply, and the trace, span and flags of its `traceparent`."""
    reply = service.request("POST", path, body, headers)
    found = HEADER.fullmatch(reply.headers["traceparent"])
    assert found is not None
    return reply, found[1], found[2], found[3]


def trace(collector: Collector, trace_id: str) -> dict[str, list[Span]]:
    """The spans of one trace, by the first word of their names."""
    for _ in range(100):
        found = collector.traces(1).get(bytes.fromhex(trace_id), {})
        if "request" in found:
            return found
        threading.Event().wait(0.05)
    raise TimeoutError(trace_id)


def test_a_request_is_a_tree_of_spans_with_true_times(service: Service, collector: Collector) -> None:
    reply, trace_id, span_id, _ = ask(service)
    assert reply.status == 200
    spans = {name: only for name, (only,) in trace(collector, trace_id).items()}
    assert spans.keys() == {"request", "upload", "decode", "queue", "batch", "infer", "post"}
    root = spans["request"]
    assert root.name == "request classify"
    assert (root.span_id.hex(), root.parent_span_id, root.kind) == (span_id, b"", Span.SPAN_KIND_SERVER)
    for name in ("upload", "decode", "queue", "batch"):
        assert spans[name].parent_span_id == root.span_id
    for name in ("infer", "post"):
        assert spans[name].parent_span_id == spans["batch"].span_id
    times = [root.start_time_unix_nano]
    for name in ("upload", "decode", "queue", "infer", "post"):
        times += [spans[name].start_time_unix_nano, spans[name].end_time_unix_nano]
    times += [spans["batch"].end_time_unix_nano, root.end_time_unix_nano]
    # The clock is read in other places than where things happen, to a fraction of a millisecond.
    assert all(later - earlier > -1_000_000 for earlier, later in itertools.pairwise(times)), times
    timing = reply.json()["timing_ms"]
    for name in ("decode", "queue", "infer", "post"):
        took = spans[name].end_time_unix_nano - spans[name].start_time_unix_nano
        assert took / 1e6 == pytest.approx(timing[name], abs=0.002), name


def test_spans_say_what_was_asked_and_what_became_of_it(service: Service, collector: Collector) -> None:
    _, trace_id, _, _ = ask(service, headers={"X-Request-Id": "traced"})
    spans = trace(collector, trace_id)
    said = attributes(spans["request"][0])
    assert said == {
        "squint.request_id": "traced",
        "squint.protocol": "http",
        "squint.task": "classify",
        "squint.images": 1,
        "squint.bytes": len(IMAGE),
        "squint.level.asked": "default",
        "squint.model": "fake-classify",
        "squint.version": "1",
    }
    assert attributes(spans["batch"][0]) == {
        "squint.level": "full",
        "squint.batch.images": 1,
        "squint.batch.closed": "drained",
    }
    (request, *_) = collector.requests
    resource = {one.key: one.value.string_value for one in request.resource_spans[0].resource.attributes}
    assert resource["service.name"] == "squint"
    assert resource["service.version"] == reply_version(service)
    assert {path for path, _ in collector.heads} == {"/v1/traces"}
    line = next(line for line in service.log_lines("request") if line["request_id"] == "traced")
    assert line["trace_id"] == trace_id


def reply_version(service: Service) -> str:
    return str(service.request("GET", "/", headers={"Accept": "application/json"}).json()["version"])


def test_a_trace_goes_on_where_it_came_from(service: Service, collector: Collector) -> None:
    _, trace_id, span_id, flags = ask(service, headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    assert (trace_id, flags) == (TRACE, "01")
    root = trace(collector, TRACE)["request"][0]
    assert (root.parent_span_id.hex(), root.span_id.hex()) == (PARENT, span_id)


def test_a_call_of_grpc_tells_its_place_in_its_trace(service: Service, collector: Collector) -> None:
    """In the trailing metadata, answered or refused, by either service."""
    came = (("traceparent", f"00-{OTHER}-{PARENT}-01"),)
    tensor = kserve.ModelInferRequest.InferInputTensor(name="images", datatype="BYTES", shape=[1])
    asked = kserve.ModelInferRequest(model_name="fake-classify", inputs=[tensor], raw_input_contents=[b"no tensor"])
    with Vision(service.grpc_port) as vision:
        infer = vision.channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            kserve.ModelInferRequest.SerializeToString,
            kserve.ModelInferResponse.FromString,
        )
        _, answered = vision.Classify.with_call(pb.ClassifyRequest(image=IMAGE), timeout=20, metadata=came)
        refused = []
        for call, wrong in ((vision.Classify, pb.ClassifyRequest(image=b"none")), (infer, asked)):
            with pytest.raises(grpc.RpcError) as caught:
                call(wrong, timeout=20, metadata=came)
            refused.append(caught.value)
        asked.raw_input_contents[0] = struct.pack("<I", len(IMAGE)) + IMAGE
        _, inferred = infer.with_call(asked, timeout=20, metadata=came)
    spans = set()
    for call in (answered, inferred, *refused):
        found = HEADER.fullmatch(told(call)["traceparent"])
        assert found is not None
        assert (found[1], found[3]) == (OTHER, "01")
        spans.add(found[2])
    assert len(spans) == 4, "each is a request of its own"

    def known() -> set[str]:
        found = collector.traces(1).get(bytes.fromhex(OTHER), {}).get("request", [])
        return {span.span_id.hex() for span in found if span.parent_span_id.hex() == PARENT}

    for _ in range(100):
        if known() == spans:
            break
        threading.Event().wait(0.05)
    assert known() == spans


def test_whoever_does_not_sample_is_not_sampled(service: Service, collector: Collector) -> None:
    unsampled = "1" * 32
    _, trace_id, _, flags = ask(service, headers={"traceparent": f"00-{unsampled}-{PARENT}-00"})
    assert (trace_id, flags) == (unsampled, "00")
    _, later, _, _ = ask(service)
    trace(collector, later)  # what was sampled afterwards is there
    assert bytes.fromhex(unsampled) not in collector.traces(1)


@pytest.mark.parametrize(
    "header", ["", "nonsense", f"00-{'0' * 32}-{PARENT}-01", f"ff-{TRACE}-{PARENT}-01", "x" * 5000]
)
def test_a_malformed_context_begins_a_new_trace(service: Service, header: str) -> None:
    _, trace_id, _, flags = ask(service, headers={"traceparent": header})
    assert trace_id not in (TRACE, "0" * 32)
    assert flags == "01"


def test_what_ran_together_is_linked(service: Service, collector: Collector) -> None:
    async def together() -> list[Reply]:
        first, sleeper = await service.occupied(images.png(images.sleep(120)))
        connections = [Connection(service.port) for _ in range(3)]
        replies = await asyncio.gather(*(one.request("POST", "/classify", IMAGE) for one in connections))
        await sleeper
        await asyncio.gather(*(one.close() for one in (first, *connections)))
        return replies

    replies = asyncio.run(together())
    batches = []
    for reply in replies:
        found = HEADER.fullmatch(reply.headers["traceparent"])
        assert found is not None
        batches.append(trace(collector, found[1])["batch"][0])
    assert {attributes(batch)["squint.batch.images"] for batch in batches} == {3}
    ids = {batch.span_id for batch in batches}
    linked = Counter(link.span_id for batch in batches for link in batch.links)
    assert set(linked) <= ids
    # Who is sent with the others links to all of them; who was sent just before, to none that came later.
    assert sum(linked.values()) >= 3
    for batch in batches:
        assert batch.span_id not in {link.span_id for link in batch.links}


def test_a_refusal_is_told_where_it_happened(service: Service, collector: Collector) -> None:
    reply, trace_id, _, _ = ask(service, images.png(images.number(1))[:60])
    assert reply.status == 422
    spans = trace(collector, trace_id)
    assert spans.keys() == {"request", "upload", "decode"}
    assert attributes(spans["request"][0])["error.type"] == reply.json()["code"]
    assert attributes(spans["decode"][0])["error.type"] == reply.json()["code"]
    assert spans["request"][0].status.code == Status.STATUS_CODE_UNSET, "the client's own affair"
    # Late enough that it has been begun, wherever the machine is busy.
    reply, trace_id, _, _ = ask(service, images.png(images.sleep(150)), "/classify?timeout_ms=1000")
    assert reply.status == 504
    spans = trace(collector, trace_id)
    assert spans["request"][0].status.code == Status.STATUS_CODE_ERROR
    assert attributes(spans["batch"][0])["error.type"] == "deadline_exceeded"
    assert "infer" not in spans, "nobody saw its end"


def test_images_of_one_request_have_spans_of_their_own(service: Service, collector: Collector) -> None:
    boundary = "b0undary"
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{number}.png"\r\n'
        f"Content-Type: image/png\r\n\r\n".encode()
        + images.png(images.number(number))
        + b"\r\n"
        for number in range(3)
    ]
    body = b"".join(parts) + f"--{boundary}--\r\n".encode()
    reply, trace_id, _, _ = ask(service, body, headers={"Content-Type": f"multipart/form-data; boundary={boundary}"})
    assert len(reply.json()) == 3
    spans = trace(collector, trace_id)
    assert len(spans["request"]) == len(spans["upload"]) == 1
    assert len(spans["decode"]) == len(spans["queue"]) == 3
    assert 1 <= len(spans["batch"]) == len(spans["infer"]) <= 3
    assert sum(int(attributes(batch)["squint.batch.images"]) for batch in spans["batch"]) == 3


def test_the_last_traces_are_sent_when_the_service_ends(tmp_path: Path) -> None:
    with Collector() as collector:
        with traced(tmp_path, collector) as running:
            _, trace_id, _, _ = ask(running)
        assert "request" in trace(collector, trace_id)


def test_nothing_is_sampled_but_what_comes_sampled(tmp_path: Path) -> None:
    flags = ("--trace-sample", "0", "--trace-service", "photos")
    with Collector() as collector, Service(tmp_path, "--otlp-endpoint", collector.endpoint, *flags) as running:
        assert ask(running)[3] == "00"
        ask(running, headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
        assert collector.traces(1).keys() == {bytes.fromhex(TRACE)}
        resource = collector.requests[0].resource_spans[0].resource.attributes
        assert "photos" in {one.value.string_value for one in resource}


def lost(service: Service, outcome: str) -> float:
    """Traces with this outcome, as metrics say."""
    text = service.request("GET", "/metrics").body.decode()
    (line,) = [line for line in text.splitlines() if line.startswith(f'squint_traces_total{{outcome="{outcome}"}}')]
    return float(line.split()[-1])


def eventually(service: Service, outcome: str) -> None:
    for _ in range(200):
        if lost(service, outcome):
            return
        threading.Event().wait(0.1)
    raise TimeoutError(outcome)


def test_a_collector_that_refuses_costs_traces_and_nothing_else(tmp_path: Path) -> None:
    with Collector(lambda: (400, {})) as collector, traced(tmp_path, collector) as running:
        assert {ask(running)[0].status for _ in range(20)} == {200}
        eventually(running, "failed")
        assert [line["reason"] for line in running.log_lines("traces_lost")] == ["the collector answered 400"]


def test_a_collector_that_is_not_there_or_never_answers_delays_nobody(tmp_path: Path) -> None:
    answer = threading.Event()

    def never() -> tuple[int, dict[str, str]]:
        answer.wait(60)
        return 200, {}

    with Collector(never) as collector:
        for number, endpoint in enumerate((collector.endpoint, f"http://127.0.0.1:{free_port()}")):
            folder = tmp_path / str(number)
            folder.mkdir()
            with Service(folder, "--otlp-endpoint", endpoint, "--trace-sample", "1") as running:
                assert {ask(running)[0].status for _ in range(50)} == {200}
                assert lost(running, "sent") == 0
            assert running.process is not None and running.process.returncode == 0
        answer.set()


def test_a_collector_that_is_busy_is_asked_again(tmp_path: Path) -> None:
    answers = iter([(503, {"Retry-After": "1"}), (200, {})])
    with Collector(lambda: next(answers)) as collector, traced(tmp_path, collector) as running:
        _, trace_id, _, _ = ask(running)
        assert "request" in trace(collector, trace_id)
        assert lost(running, "failed") == 0


def test_without_a_collector_no_trace_is_told(tmp_path: Path) -> None:
    with Service(tmp_path) as running:
        reply = running.request("POST", "/classify", IMAGE, {"traceparent": f"00-{TRACE}-{PARENT}-01"})
        assert "traceparent" not in reply.headers
        assert "squint_traces_total" not in running.request("GET", "/metrics").body.decode()
