"""Several gateways in front of one dispatcher answer, batch and count as one gateway does."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.proto.squint.v1 import vision_pb2 as pb
from tests.e2e import images
from tests.e2e.http import Connection, Reply, once
from tests.e2e.rpc import Vision
from tests.e2e.service import ROOT, Service
from tests.e2e.test_http import multipart
from tests.e2e.versions import Repository, put
from tests.e2e.waiting import until

GATEWAYS = ("--gateways", "2")
PHOTO = (ROOT / "samples" / "classify.jpg").read_bytes()
ENOUGH = 24
"""Connections that do not all come to one of two gateways: the chance is 1 in 2 ** 23."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    flags = ("--threads", "1", "--fake-batch-ms", "40", "--metrics-compat", "triton")
    with Service(tmp_path_factory.mktemp("gateways"), *GATEWAYS, *flags) as running:
        yield running


async def at_once(service: Service, bodies: list[bytes], target: str = "/classify") -> list[Reply]:
    """Each on a connection of its own."""
    return await asyncio.gather(*(once(service.port, "POST", target, body) for body in bodies))


def sample(text: str, name: str) -> float:
    """Of one sample where labels are given, else of all of a metric."""
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


def scraped(service: Service) -> str:
    return service.request("GET", "/metrics").body.decode()


def by_gateway(service: Service, ids: set[str]) -> Counter[str]:
    """Who answered these requests."""
    return Counter(line["process"] for line in service.log_lines("request") if line["request_id"] in ids)


def test_ps_shows_both_and_the_dispatcher(service: Service) -> None:
    assert sorted(service.pids("gateway").values()) == ["squint: gateway 0", "squint: gateway 1"]
    assert list(service.pids("dispatcher").values()) == ["squint: dispatcher"]


def test_batches_are_made_of_what_came_to_either(service: Service) -> None:
    colours = [images.number(value) for value in range(ENOUGH)]
    before = scraped(service)
    replies = asyncio.run(at_once(service, [images.png(colour) for colour in colours], "/classify?explain=batch"))
    told = [reply.json() for reply in replies]
    classes = len(service.request("GET", "/v1/models/toyscape-classify").json()["labels"])
    for colour, one in zip(colours, told, strict=True):
        assert one["predictions"][0]["index"] == images.expected_index(colour, classes)
    share = by_gateway(service, {one["request_id"] for one in told})
    assert share.keys() == {"gateway 0", "gateway 1"}
    # While the first few ran, all the others came: more than either gateway had.
    largest = max(one["explain"]["batch"]["items"] for one in told)
    assert largest > max(share.values()) or largest > ENOUGH / 2
    after = scraped(service)
    assert sample(after, "squint_batch_items_sum") - sample(before, "squint_batch_items_sum") == ENOUGH
    assert sample(after, "squint_batch_items_count") - sample(before, "squint_batch_items_count") < ENOUGH / 2


def test_one_scrape_counts_all(service: Service) -> None:
    before = scraped(service)
    stats = "/v2/models/toyscape-classify/stats"
    counted = service.request("GET", stats).json()["model_stats"][0]["inference_count"]
    bodies = [images.png(images.number(value)) for value in range(ENOUGH)] + [b"no image"] * ENOUGH
    replies = asyncio.run(at_once(service, bodies))
    assert Counter(reply.status for reply in replies) == {200: ENOUGH, 415: ENOUGH}
    # Whichever gateway is asked, and every time.
    for _ in range(4):
        after = scraped(service)
        for name, more in (
            ("squint_request_seconds_count", 2 * ENOUGH),
            ('squint_refused_total{code="unsupported_media_type"}', ENOUGH),
            ("squint_level_served_total", ENOUGH),
            ("nv_inference_request_success", ENOUGH),
            ("nv_inference_request_failure", ENOUGH),
            ("nv_inference_request_duration_histogram_us_count", ENOUGH),
        ):
            assert sample(after, name) - sample(before, name) == more, name
        assert service.request("GET", stats).json()["model_stats"][0]["inference_count"] == counted + ENOUGH


def test_grpc_comes_to_either(service: Service) -> None:
    want = service.request("POST", "/classify", PHOTO).json()["predictions"]
    for _ in range(ENOUGH):
        with Vision(service.grpc_port) as vision:
            answer = vision.Classify(pb.ClassifyRequest(image=PHOTO), timeout=20)
            assert [one.label for one in answer.predictions] == [one["label"] for one in want]
            assert vision.check() == "SERVING"
    lines = [line for line in service.log_lines("request") if line["protocol"] == "grpc"]
    assert len(lines) == ENOUGH
    assert {line["process"] for line in lines} == {"gateway 0", "gateway 1"}


def test_an_early_refusal_comes_before_the_body(service: Service) -> None:
    """Of a request that could not be answered in time, no more is read than what came with its head."""

    async def scenario() -> tuple[list[bytes], int]:
        connection, sleeper = await service.occupied(images.png(images.sleep(120)))
        heads = []
        for _ in range(4):
            reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
            writer.write(
                b"POST /classify?timeout_ms=30 HTTP/1.1\r\nHost: t\r\nContent-Length: 100000\r\n"
                b"Expect: 100-continue\r\n\r\n"
            )
            heads.append(await asyncio.wait_for(reader.readline(), 5.0))
            writer.close()
        slept = (await sleeper).status
        await connection.close()
        return heads, slept

    heads, slept = asyncio.run(scenario())
    assert heads == [b"HTTP/1.1 429 Too Many Requests\r\n"] * 4
    assert slept == 200


def test_who_waits_to_be_told_is_told(service: Service) -> None:
    body = images.png((1, 2, 3))
    head = b"POST /classify HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(body)

    async def scenario() -> tuple[bytes, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(head)
        told = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5.0)
        writer.write(body)
        answer = await asyncio.wait_for(reader.readline(), 5.0)
        writer.close()
        return told, answer

    assert asyncio.run(scenario()) == (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\n")


def test_a_body_that_comes_after_its_head_is_taken_whole(service: Service) -> None:
    """Larger than what is read before it is known whether it is admitted."""
    body = PHOTO + bytes(3_000_000)
    want = service.request("POST", "/classify", PHOTO).json()["predictions"]
    head = b"POST /classify HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n" % len(body)

    async def scenario() -> list[Reply]:
        connections = [Connection(service.port) for _ in range(4)]
        replies = await asyncio.gather(*(one.send(head + body) for one in connections))
        await asyncio.gather(*(one.close() for one in connections))
        return replies

    for reply in asyncio.run(scenario()):
        assert (reply.status, reply.json()["predictions"]) == (200, want)


def test_one_image_too_many_refuses_the_request_as_a_whole(tmp_path: Path) -> None:
    """As with one gateway: what is admitted only after its siblings came is refused with them."""
    with Service(tmp_path, *GATEWAYS, "--in-flight", "4") as service:
        body, headers = multipart(*(images.png(images.number(value)) for value in range(8)))
        reply = service.request("POST", "/classify", body, headers)
        assert (reply.status, reply.json()["code"]) == (429, "overloaded")
        assert service.request("POST", "/classify", PHOTO).status == 200
        assert sample(scraped(service), "squint_in_flight") == 0


def test_a_client_that_leaves_is_forgotten(service: Service) -> None:
    async def scenario() -> None:
        leavers = [Connection(service.port) for _ in range(ENOUGH)]
        sleeper = images.png(images.sleep(30))
        asked = [asyncio.ensure_future(one.request("POST", "/classify", sleeper)) for one in leavers]
        await asyncio.sleep(0.1)
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        await asyncio.gather(*(one.close() for one in leavers))

    asyncio.run(scenario())
    assert service.request("POST", "/classify?timeout_ms=20000", PHOTO).status == 200
    # Either gateway sees for itself that somebody has left.
    until(lambda: sample(scraped(service), "squint_in_flight") == 0)
    assert sample(scraped(service), "squint_queue_items") == 0


def test_a_limit_by_client_holds_over_all(tmp_path: Path) -> None:
    with Service(tmp_path, *GATEWAYS, "--rate-limit", "0.05", "--rate-burst", "40") as service:

        async def scenario() -> Counter[int]:
            statuses: Counter[int] = Counter()
            for _ in range(8):
                replies = await at_once(service, [images.png((1, 2, 3))] * 10)
                statuses.update(reply.status for reply in replies)
                # Gateways tell one another every twentieth of a second, as soon as they have a CPU.
                await asyncio.sleep(0.5)
            return statuses

        statuses = asyncio.run(scenario())
        # Ten at most came before the other gateway knew.
        assert 40 <= statuses[200] <= 50, statuses
        assert statuses[429] == 80 - statuses[200]


def test_models_change_in_all_of_them(tmp_path: Path) -> None:
    root = tmp_path / "models"
    root.mkdir()
    put(root, "1")
    image = images.png((3, 4, 5))

    def versions(service: Service) -> set[str]:
        replies = asyncio.run(at_once(service, [image] * ENOUGH))
        return {str(reply.json().get("version")) for reply in replies}

    with Repository(tmp_path, root, *GATEWAYS) as service:
        assert versions(service) == {"1"}
        put(root, "2")
        assert service.process is not None
        service.process.send_signal(signal.SIGHUP)
        service.until(lambda: service.states() == {"1": "UNAVAILABLE", "2": "READY"})
        assert versions(service) == {"2"}
        service.admin("POST", "/admin/models/toy/versions?versions=1,2&canary=2:0.5")
        assert versions(service) == {"1", "2"}
        service.admin("POST", "/admin/models/toy/unload")
        assert versions(service) == {"None"}
        service.admin("POST", "/admin/models/toy/load")
        assert versions(service) == {"1", "2"}
        assert service.metric('squint_version_requests_total{model="toy",outcome="ok",version="2"}') > 0


@pytest.mark.bench  # not for its time, but for the minute in which a backend may have to be measured
def test_a_shipped_model_answers_the_same(tmp_path: Path) -> None:
    """On a real backend, which is measured once for both."""
    shutil.copytree(ROOT / "models" / "zoo" / "toyscape-classify", tmp_path / "zoo" / "toyscape-classify")
    flags = ("--models", str(tmp_path / "zoo"), "--backend", "onnxruntime", "--threads", "1")

    def answers(*more: str) -> Any:
        folder = tmp_path / str(len(more))
        folder.mkdir()
        with Service(folder, "--cache-dir", str(tmp_path / "cache"), *flags, *more, fake=False) as service:
            replies = asyncio.run(at_once(service, [PHOTO] * 6, "/classify?level=full&top_k=9"))
        told = [reply.json() for reply in replies]
        for one in told:
            del one["request_id"], one["timing_ms"]
            assert near(one, told[0])
        return told[0]

    assert near(answers(), answers(*GATEWAYS))


def near(one: Any, other: Any) -> bool:
    """The same but for rounding."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(near(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(near, one, other))
    if isinstance(one, float):
        return bool(one == pytest.approx(other, abs=1e-4, rel=1e-3))
    return bool(one == other)
