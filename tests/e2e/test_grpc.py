"""squint.v1.Vision against a running service: answers, errors, limits, streams, health and the end."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from service.proto.squint.v1 import vision_pb2 as pb
from tests.e2e import images
from tests.e2e.rpc import SERVICE, Vision, told
from tests.e2e.service import ROOT, Service, free_ports
from tests.e2e.waiting import until

PNG = images.png((7, 8, 9))
BODY_MB, CALLS, FRAMES = 0.3, 6, 4
GRACE = 4.0
"""Seconds for which a service that leaves goes on serving; twice what an engine is kept for, and more."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    flags = ["--max-body-mb", str(BODY_MB), "--grpc-max-message-mib", "1", "--grpc-max-calls", str(CALLS)]
    with Service(tmp_path_factory.mktemp("grpc"), *flags, "--grpc-stream-frames", str(FRAMES)) as running:
        yield running


@pytest.fixture
def vision(service: Service) -> Iterator[Vision]:
    with Vision(service.grpc_port) as client:
        yield client


def labels(service: Service, model: str = "toyscape-classify") -> int:
    return len(service.request("GET", f"/v1/models/{model}").json()["labels"])


def metric(service: Service, line: str) -> float:
    """The sum of the metric's samples whose name and labels match this pattern."""
    text = service.request("GET", "/metrics").body.decode()
    return sum(float(sample.rpartition(" ")[2]) for sample in text.splitlines() if re.match(line, sample))


def refused(call: Callable[[], Any]) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


# -- answers ---------------------------------------------------------------------------------------------------------


def test_an_answer_says_what_http_says(service: Service, vision: Vision) -> None:
    over_http = service.request("POST", "/classify?top_k=3", PNG).json()
    answer = vision.Classify(pb.ClassifyRequest(image=PNG, top_k=3), timeout=20)
    served = answer.served
    for name in ("model", "version", "level", "tokens", "backend"):
        assert getattr(served, name) == over_http[name]
    assert served.gmacs == pytest.approx(over_http["gmacs"])
    assert [(one.label, one.index) for one in answer.predictions] == [
        (one["label"], one["index"]) for one in over_http["predictions"]
    ]
    assert [one.score for one in answer.predictions] == pytest.approx([x["score"] for x in over_http["predictions"]])
    assert answer.predictions[0].index == images.expected_index((7, 8, 9), labels(service))
    assert re.fullmatch("[0-9a-f]{32}", served.request_id)
    assert served.timing.total_ms >= served.timing.infer_ms >= 0
    assert not served.HasField("token_groups") and not served.HasField("course")


def test_merged_tokens_are_those_of_http(service: Service, vision: Vision) -> None:
    over_http = service.request("POST", "/detect?explain=all&level=fast", PNG).json()["explain"]
    options = pb.Options(explain=pb.EXPLAIN_ALL, level="fast")
    served = vision.Detect(pb.DetectRequest(image=PNG, options=options), timeout=20).served
    tokens, groups = over_http["tokens"], served.token_groups
    assert [groups.rows, groups.columns] == tokens["grid"]
    assert [[run.group, run.patches] for run in groups.runs] == tokens["groups"]["runs"]
    assert list(groups.sizes) == tokens["sizes"]
    assert [groups.box.x0, groups.box.y0, groups.box.x1, groups.box.y1] == pytest.approx(tokens["box"])
    assert (served.course.items, served.course.closed) == (over_http["batch"]["items"], over_http["batch"]["closed"])


def test_a_version_is_taken_by_its_number(vision: Vision) -> None:
    answer = vision.Classify(pb.ClassifyRequest(image=PNG, options=pb.Options(version="1")), timeout=20)
    assert answer.served.version == "1"
    error = refused(lambda: vision.Classify(pb.ClassifyRequest(image=PNG, options=pb.Options(version="9")), timeout=20))
    assert (error.code(), told(error)["x-squint-code"]) == (grpc.StatusCode.NOT_FOUND, "unknown_version")


def test_objects_are_those_of_http(service: Service, vision: Vision) -> None:
    over_http = service.request("POST", "/detect?threshold=0.3", PNG).json()["predictions"]
    answer = vision.Detect(pb.DetectRequest(image=PNG, threshold=0.3, max_detections=5), timeout=20)
    assert len(answer.predictions) == len(over_http) == 1
    (found,), (expected,) = answer.predictions, over_http
    assert (found.label, found.index) == (expected["label"], expected["index"])
    assert [found.box.x0, found.box.y0, found.box.x1, found.box.y1] == pytest.approx(expected["box"])
    assert not vision.Detect(pb.DetectRequest(image=PNG, threshold=1.0), timeout=20).predictions


@pytest.mark.parametrize("word", ["rle", "png", "polygons"])
def test_masks_are_those_of_http(service: Service, vision: Vision, word: str) -> None:
    over_http = service.request("POST", f"/segment?mask={word}", PNG).json()
    number: Any = pb.MaskFormat.Value(f"MASK_FORMAT_{word.upper()}")
    answer = vision.Segment(pb.SegmentRequest(image=PNG, mask=number), timeout=20)
    assert [answer.height, answer.width] == over_http["size"]
    assert answer.mask == number
    assert answer.counts == over_http["mask"].get("counts", "")
    assert bool(answer.png) == (word == "png")
    for region, expected in zip(answer.segments, over_http["segments"], strict=True):
        assert (region.label, region.index, region.area) == (expected["label"], expected["index"], expected["area"])
        assert region.counts == expected.get("counts", "")
        assert [list(one.points) for one in region.polygons] == expected.get("polygons", [])


def test_options_are_heeded(vision: Vision) -> None:
    options = pb.Options(
        model="toyscape-classify",
        level="fast",
        timeout_ms=15_000,
        priority=pb.PRIORITY_HIGH,
        explain=pb.EXPLAIN_ALL,
    )
    answer = vision.Classify(pb.ClassifyRequest(image=PNG, options=options, top_k=1), timeout=20)
    assert answer.served.level == "fast"
    assert len(answer.predictions) == 1
    groups, course = answer.served.token_groups, answer.served.course
    assert sum(run.patches for run in groups.runs) == groups.rows * groups.columns == sum(groups.sizes)
    assert course.items >= 1 and course.closed
    auto = pb.Options(level="auto", min_level="fast")
    assert vision.Classify(pb.ClassifyRequest(image=PNG, options=auto), timeout=20).served.level


def test_a_request_id_is_kept_and_logged_with_the_protocol(service: Service, vision: Vision) -> None:
    given = (("x-request-id", "mine-4711"),)
    answer = vision.Classify(pb.ClassifyRequest(image=PNG), timeout=20, metadata=given)
    assert answer.served.request_id == "mine-4711"
    until(lambda: any(line["request_id"] == "mine-4711" for line in service.log_lines("request")))
    (line,) = (line for line in service.log_lines("request") if line["request_id"] == "mine-4711")
    assert (line["protocol"], line["task"], line["outcome"], line["bytes"]) == ("grpc", "classify", "ok", len(PNG))
    odd = vision.Classify(pb.ClassifyRequest(image=PNG), timeout=20, metadata=(("x-request-id", "a b"),))
    assert odd.served.request_id != "a b"


# -- errors ----------------------------------------------------------------------------------------------------------

INVALID = grpc.StatusCode.INVALID_ARGUMENT


def asked(**options: Any) -> pb.ClassifyRequest:
    return pb.ClassifyRequest(image=PNG, options=pb.Options(**options))


@pytest.mark.parametrize(
    ("method", "request_", "status", "code"),
    [
        ("Classify", asked(model="nobody"), grpc.StatusCode.NOT_FOUND, "unknown_model"),
        ("Classify", asked(model="x" * 65), INVALID, "bad_option"),
        ("Classify", asked(model="toyscape-detect"), INVALID, "bad_option"),
        ("Classify", asked(level="brilliant"), INVALID, "unknown_level"),
        ("Classify", asked(level="l" * 900), INVALID, "bad_option"),
        ("Classify", asked(min_level="fast"), INVALID, "bad_option"),
        ("Classify", asked(timeout_ms=4_000_000_000), INVALID, "bad_option"),
        ("Classify", asked(priority=9), INVALID, "bad_option"),
        ("Classify", asked(explain=9), INVALID, "bad_option"),
        ("Classify", pb.ClassifyRequest(image=PNG, top_k=0), INVALID, "bad_option"),
        ("Classify", pb.ClassifyRequest(image=PNG, top_k=1001), INVALID, "bad_option"),
        ("Detect", pb.DetectRequest(image=PNG, threshold=float("nan")), INVALID, "bad_option"),
        ("Detect", pb.DetectRequest(image=PNG, threshold=1.1), INVALID, "bad_option"),
        ("Detect", pb.DetectRequest(image=PNG, max_detections=0), INVALID, "bad_option"),
        ("Segment", pb.SegmentRequest(image=PNG, mask=cast(Any, 9)), INVALID, "bad_option"),
        ("Classify", pb.ClassifyRequest(), INVALID, "bad_request"),
        ("Classify", pb.ClassifyRequest(image=b"GIF89a" + bytes(50)), INVALID, "unsupported_media_type"),
        ("Classify", pb.ClassifyRequest(image=PNG[:60]), INVALID, "undecodable_image"),
        ("Classify", pb.ClassifyRequest(image=images.png(images.FAIL_ITEM)), INVALID, "unprocessable_image"),
        ("Classify", pb.ClassifyRequest(image=bytes(int(BODY_MB * 1e6) + 1)), INVALID, "body_too_large"),
        ("Classify", pb.ClassifyRequest(image=bytes(int(BODY_MB * 1e6))), INVALID, "unsupported_media_type"),
    ],
)  # fmt: skip
def test_errors_have_a_status_a_code_and_the_request_id(
    vision: Vision, method: str, request_: Any, status: grpc.StatusCode, code: str
) -> None:
    error = refused(lambda: getattr(vision, method)(request_, timeout=20, metadata=(("x-request-id", "e-1"),)))
    assert error.code() is status
    assert told(error)["x-squint-code"] == code
    assert told(error)["x-request-id"] == "e-1"
    assert "retry-after-ms" not in told(error)
    assert error.details() and not re.search(r"Traceback|Error\b|\.py\b", error.details())


def test_a_message_that_is_none_and_a_method_that_is_none(vision: Vision) -> None:
    error = refused(lambda: vision.raw(SERVICE + "Classify")(b"\xff\xff\xff", timeout=20))
    assert (error.code(), told(error)["x-squint-code"]) == (INVALID, "bad_request")
    for method in (SERVICE + "Dance", "/squint.v2.Vision/Classify", "/"):
        error = refused(lambda method=method: vision.raw(method)(b"", timeout=20))  # type: ignore[misc]
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert told(error)["x-squint-code"] == "method_not_allowed"


# -- deadlines and cancellation --------------------------------------------------------------------------------------

SLOW = pb.ClassifyRequest(image=images.png(images.sleep(150)))
"""Keeps an engine for 1.5 s."""


def outcomes(service: Service, outcome: str) -> float:
    return metric(service, rf'squint_request_seconds_count{{.*outcome="{outcome}".*}}')


def test_a_deadline_reaches_the_core(service: Service, vision: Vision) -> None:
    before = outcomes(service, "deadline_exceeded")
    # Enough for a connection and for the call to arrive.
    assert refused(lambda: vision.Classify(SLOW, timeout=0.8)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    until(lambda: outcomes(service, "deadline_exceeded") == before + 1)
    until(lambda: metric(service, "squint_in_flight ") == 0)


def test_the_option_is_a_deadline_too(service: Service, vision: Vision) -> None:
    request = pb.ClassifyRequest(image=SLOW.image, options=pb.Options(timeout_ms=200))
    error = refused(lambda: vision.Classify(request))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert told(error)["x-squint-code"] == "deadline_exceeded"


def test_a_cancelled_call_is_dropped(service: Service, vision: Vision) -> None:
    before = outcomes(service, "client_closed_request")
    call = vision.Classify.future(SLOW, timeout=20)
    until(lambda: metric(service, "squint_in_flight ") == 1)
    call.cancel()
    until(lambda: outcomes(service, "client_closed_request") == before + 1)
    until(lambda: metric(service, "squint_in_flight ") == 0)
    assert outcomes(service, "client_closed_request") == before + 1


def test_many_calls_opened_and_dropped_harm_nobody(service: Service, full: bool) -> None:
    """Also what is known as rapid reset: the calls are cancelled as soon as they are sent."""

    async def scenario() -> int:
        async with Vision(service.grpc_port, aio=True) as hostile, Vision(service.grpc_port, aio=True) as honest:
            right = 0
            for _ in range(100 if full else 10):
                calls = [hostile.Classify(pb.ClassifyRequest(image=PNG), timeout=20) for _ in range(100)]
                await asyncio.sleep(0)
                for call in calls:
                    call.cancel()
                await asyncio.gather(*calls, return_exceptions=True)
                answer = await retried(lambda: honest.Classify(pb.ClassifyRequest(image=PNG), timeout=20))
                right += answer.predictions[0].index == expected
            return right

    expected = images.expected_index((7, 8, 9), labels(service))
    assert asyncio.run(scenario()) == (100 if full else 10)
    until(lambda: metric(service, "squint_in_flight ") == 0)


async def retried(call: Callable[[], Any]) -> Any:
    """As a client does that is told when to come back."""
    while True:
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            await asyncio.sleep(0.05)


# -- limits ----------------------------------------------------------------------------------------------------------


def padded(size: int) -> pb.ClassifyRequest:
    """A request whose message has this many bytes."""
    request = pb.ClassifyRequest(image=bytes(size))
    request.image = bytes(2 * size - request.ByteSize())
    assert request.ByteSize() == size
    return request


def test_a_message_may_be_as_long_as_said(vision: Vision) -> None:
    error = refused(lambda: vision.Classify(padded(1 << 20), timeout=20))
    assert told(error)["x-squint-code"] == "body_too_large", "read whole, and refused as an image"
    error = refused(lambda: vision.Classify(padded((1 << 20) + 1), timeout=20))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "x-squint-code" not in told(error)


def test_as_many_calls_as_said_are_served_at_a_time(service: Service) -> None:
    async def scenario() -> tuple[list[Any], Any]:
        # On one connection the last call would wait on the client's side for its turn.
        async with Vision(service.grpc_port, aio=True) as client, Vision(service.grpc_port, aio=True) as other:
            streams = [client.Stream() for _ in range(CALLS)]
            for stream in streams:
                await stream.write(pb.Frame(number=1, classify=pb.ClassifyRequest(image=PNG)))
            answers = [await stream.read() for stream in streams]
            try:
                await other.Classify(pb.ClassifyRequest(image=PNG), timeout=20)
            except grpc.aio.AioRpcError as error:
                return answers, error
            finally:
                for stream in streams:
                    stream.cancel()
            return answers, None

    answers, error = asyncio.run(scenario())
    assert [answer.WhichOneof("answer") for answer in answers] == ["classify"] * CALLS
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert told(error)["x-squint-code"] == "overloaded"
    assert int(told(error)["retry-after-ms"]) > 0


def test_metadata_may_be_so_long(vision: Vision) -> None:
    vision.Classify(pb.ClassifyRequest(image=PNG), timeout=20, metadata=(("x-long", "x" * 12_000),))
    error = refused(
        lambda: vision.Classify(pb.ClassifyRequest(image=PNG), timeout=20, metadata=(("x-long", "x" * 17_000),))
    )
    assert error.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL)
    assert vision.Classify(pb.ClassifyRequest(image=PNG), timeout=20).predictions


@pytest.mark.parametrize("how", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_messages_are_unpacked_up_to_a_limit(service: Service, vision: Vision, how: Any) -> None:
    # The library sends what would become longer as it is; this becomes shorter.
    image = PNG + bytes(5_000)
    answer = vision.Classify(pb.ClassifyRequest(image=image, top_k=2), timeout=20, compression=how)
    assert answer.predictions[0].index == images.expected_index((7, 8, 9), labels(service))
    frames = [pb.Frame(number=number, classify=pb.ClassifyRequest(image=image)) for number in range(3)]
    answers = list(vision.Stream(iter(frames), timeout=20, compression=how))
    assert [(one.number, one.WhichOneof("answer")) for one in answers] == [(n, "classify") for n in range(3)]
    bomb = pb.ClassifyRequest(image=bytes(50_000_000))
    error = refused(lambda: vision.Classify(bomb, timeout=20, compression=how))
    assert (error.code(), told(error)["x-squint-code"]) == (grpc.StatusCode.INVALID_ARGUMENT, "body_too_large")


@pytest.mark.parametrize("begin", [b"\x1f\x8b", b"\x78\x9c"])
def test_what_only_looks_compressed_is_refused(vision: Vision, begin: bytes) -> None:
    error = refused(lambda: vision.raw(f"{SERVICE}Classify")(begin + bytes(40), timeout=20))
    assert (error.code(), told(error)["x-squint-code"]) == (grpc.StatusCode.INVALID_ARGUMENT, "bad_request")


def test_a_client_that_pings_too_often_is_disconnected(service: Service) -> None:
    often = (
        ("grpc.keepalive_time_ms", 1000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    )
    with Vision(service.grpc_port, options=often) as eager:
        # An engine that still sleeps for a test before is late, as it should be.
        until(lambda: eager.check() == "SERVING")
        seen: list[str] = []
        eager.channel.subscribe(lambda state: seen.append(state.name))
        until(lambda: "IDLE" in seen or "TRANSIENT_FAILURE" in seen, 30)


# -- streams ---------------------------------------------------------------------------------------------------------


def frame(number: int) -> tuple[pb.Frame, str]:
    """A frame, and what its answer is to be: every tenth is for another task, every fiftieth fails."""
    if number % 50 == 7:
        return pb.Frame(number=number, classify=pb.ClassifyRequest(image=b"no image")), "error"
    if number % 50 == 8:
        return pb.Frame(number=number), "error"
    image = images.png(images.number(number), 16, 16)
    if number % 10 == 3:
        return pb.Frame(number=number, detect=pb.DetectRequest(image=image)), "detect"
    if number % 10 == 4:
        return pb.Frame(number=number, segment=pb.SegmentRequest(image=image)), "segment"
    return pb.Frame(number=number, classify=pb.ClassifyRequest(image=image, top_k=1)), "classify"


def test_a_thousand_frames_keep_their_order(service: Service, vision: Vision) -> None:
    classes = labels(service)
    frames = [frame(number) for number in range(1000)]
    answers = list(vision.Stream(iter(one for one, _ in frames), timeout=120))
    assert [answer.number for answer in answers] == list(range(1000))
    assert [answer.WhichOneof("answer") for answer in answers] == [kind for _, kind in frames]
    for answer in answers:
        if answer.WhichOneof("answer") == "classify":
            index = images.expected_index(images.number(answer.number), classes)
            assert answer.classify.predictions[0].index == index
    errors = {answer.error.code for answer in answers if answer.WhichOneof("answer") == "error"}
    assert errors == {"unsupported_media_type", "bad_request"}
    ids = [answer.error.request_id for answer in answers if answer.WhichOneof("answer") == "error"]
    assert len(set(ids)) == len(ids)


def test_a_message_that_is_no_frame_does_not_end_the_stream(vision: Vision) -> None:
    stream = vision.channel.stream_stream(SERVICE + "Stream", response_deserializer=pb.FrameAnswer.FromString)
    good = pb.Frame(number=5, classify=pb.ClassifyRequest(image=PNG)).SerializeToString()
    answers = list(stream(iter([b"\xff\xff", good]), timeout=20))
    assert [answer.WhichOneof("answer") for answer in answers] == ["error", "classify"]
    assert answers[0].error.code == "bad_request"


def test_only_so_many_frames_are_under_way(service: Service) -> None:
    """However many a client sends, and though it reads no answer."""
    most = 0.0
    stop = threading.Event()
    slow = pb.ClassifyRequest(image=images.png(images.sleep(3)))

    def endless() -> Iterator[pb.Frame]:
        number = 0
        while not stop.is_set() and number < 100:
            number += 1
            yield pb.Frame(number=number, classify=slow)

    with Vision(service.grpc_port) as client:
        answers = client.Stream(endless(), timeout=60)
        for _ in range(30):
            most = max(most, metric(service, "squint_in_flight "))
            time.sleep(0.02)
        assert [next(answers).number for _ in range(10)] == list(range(1, 11))
        stop.set()
        answers.cancel()
    assert 1 <= most <= FRAMES
    until(lambda: metric(service, "squint_in_flight ") == 0)


# -- health, reflection, ports ---------------------------------------------------------------------------------------


def test_health_says_what_readyz_says(service: Service, vision: Vision) -> None:
    until(lambda: vision.check() == "SERVING")
    assert vision.check("squint.v1.Vision") == "SERVING"
    assert refused(lambda: vision.check("nobody")).code() is grpc.StatusCode.NOT_FOUND
    watching = vision.watch("nobody")
    assert next(watching).status == 3, "SERVICE_UNKNOWN"
    watching.cancel()


def test_the_services_are_described_only_when_that_is_asked_for(service: Service, tmp_path: Path) -> None:
    from grpc_reflection.v1alpha import reflection_pb2 as reflect

    def listed(port: int) -> set[str]:
        with Vision(port) as client:
            info = client.channel.stream_stream(
                "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
                reflect.ServerReflectionRequest.SerializeToString,
                reflect.ServerReflectionResponse.FromString,
            )
            (answer,) = info(iter([reflect.ServerReflectionRequest(list_services="")]), timeout=20)
            return {one.name for one in answer.list_services_response.service}

    assert refused(lambda: listed(service.grpc_port)).code() is grpc.StatusCode.UNIMPLEMENTED
    with Service(tmp_path, "--grpc-reflection") as open_service:
        assert {"squint.v1.Vision", "grpc.health.v1.Health"} <= listed(open_service.grpc_port)


def test_without_the_port_nothing_of_grpc_is_loaded(service: Service, tmp_path: Path) -> None:
    def libraries(running: Service) -> str:
        (gateway,) = running.pids("gateway")
        return Path(f"/proc/{gateway}/maps").read_text()

    assert "cygrpc" in libraries(service)
    with Service(tmp_path, "--grpc-port", "off") as plain:
        assert "cygrpc" not in libraries(plain)
        assert plain.request("POST", "/classify", PNG).status == 200
        assert plain.log_lines("grpc_listening") == []


def test_a_free_port_is_taken_and_logged(tmp_path: Path) -> None:
    with Service(tmp_path, "--grpc-port", "0") as running:
        port = running.log_lines("grpc_listening")[0]["port"]
        assert port not in (0, running.port)
        with Vision(port) as client:
            assert client.check() == "SERVING"


def test_a_port_that_is_taken_stops_the_start(service: Service, tmp_path: Path) -> None:
    (http,) = free_ports(1)
    command = [sys.executable, "-m", "squint", "serve", "--http-port", str(http), "--backend", "fake", "--allow-fake"]
    command += ["--grpc-port", str(service.grpc_port), "--cache-dir", str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith("squint: cannot listen on")
    assert str(service.grpc_port) in run.stderr


def test_a_new_gateway_takes_the_same_port(service: Service) -> None:
    (gateway,) = service.pids("gateway")
    with Vision(service.grpc_port) as client:
        until(lambda: client.check() == "SERVING")
        os.kill(gateway, signal.SIGKILL)
        service.wait_ready()
        answer = client.Classify(pb.ClassifyRequest(image=PNG), timeout=20, wait_for_ready=True)
        assert answer.predictions


def test_every_log_line_is_one_of_ours(service: Service) -> None:
    """Whatever the library has to say about all that came before."""
    assert [line for line in service.log_text().splitlines() if not line.startswith('{"ts":')] == []
    assert service.log_lines("bug") == []


# -- the end ---------------------------------------------------------------------------------------------------------


def test_a_service_that_leaves_says_so_first_and_loses_nothing(tmp_path: Path) -> None:
    async def scenario(running: Service) -> None:
        assert running.process is not None
        async with Vision(running.grpc_port, aio=True) as client:
            watching = client.watch()
            assert (await watching.read()).status == 1, "SERVING"
            stream = client.Stream()
            await stream.write(pb.Frame(number=1, classify=pb.ClassifyRequest(image=PNG)))
            assert (await stream.read()).number == 1
            leaves = time.monotonic()
            running.process.send_signal(signal.SIGTERM)
            assert (await watching.read()).status == 2, "NOT_SERVING"
            # It goes on serving for the seconds it was given.
            await client.Classify(pb.ClassifyRequest(image=PNG), timeout=20)
            await stream.write(pb.Frame(number=2, classify=SLOW))
            assert (await stream.read()).number == 2
            # Late enough that the port closes before it is answered, and a second earlier than that.
            await asyncio.sleep(leaves + GRACE - 1.0 - time.monotonic())
            last = client.Classify(SLOW, timeout=20)
            await asyncio.sleep(0)
            assert await watching.read() is grpc.aio.EOF
            # The port is closed now. What was asked before is answered, and the stream ends in a way that says why.
            assert (await last).predictions
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await stream.read()
            assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
            assert told(ended.value)["x-squint-code"] == "unavailable"

    with Service(tmp_path, "--drain-seconds", str(GRACE)) as running:
        asyncio.run(asyncio.wait_for(scenario(running), 60))
        assert running.process is not None
        assert running.process.wait(20) == 0
        assert {line["outcome"] for line in running.log_lines("request")} == {"ok"}
