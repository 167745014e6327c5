"""The KServe protocol as it is on the wire: what no client library sends, what perf_analyzer does, and the aliases."""

from __future__ import annotations

import base64
import gzip
import json
import random
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import images
from tests.e2e.http import Reply
from tests.e2e.service import Service

ROOT = Path(__file__).resolve().parents[2]
MODEL = "toyscape-classify"
INFER = f"/v2/models/{MODEL}/infer"
CLASSES = 14
COLOUR = images.number(42)
PNG = images.png(COLOUR)
LENGTH = "inference-header-content-length"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("kserve"), "--decoders", "1", "--max-body-mb", "2") as running:
        yield running


def error(reply: Reply, status: int, code: str) -> str:
    """The text of an error of the one shape."""
    told = reply.json()
    assert (reply.status, told["code"]) == (status, code), told
    assert told["request_id"] == reply.headers["x-request-id"]
    assert set(told) == {"error", "code", "request_id"}
    return str(told["error"])


def inference(data: Any, shape: list[int] | None = None, datatype: str = "BYTES", **fields: Any) -> bytes:
    tensor = {"name": "images", "shape": shape or [len(data)], "datatype": datatype, "data": data}
    return json.dumps({"inputs": [tensor]} | fields).encode()


def tensor(reply: Reply, name: str) -> dict[str, Any]:
    """One output of an answer that is all JSON."""
    assert reply.status == 200, reply.body
    return next(one for one in reply.json()["outputs"] if one["name"] == name)


def binary(reply: Reply) -> dict[str, tuple[dict[str, Any], bytes]]:
    """The outputs of an answer in binary form, with their data."""
    assert reply.status == 200, reply.body
    at = int(reply.headers[LENGTH])
    found = {}
    for one in json.loads(reply.body[:at])["outputs"]:
        size = one["parameters"]["binary_data_size"]
        found[one["name"]] = one, reply.body[at : at + size]
        at += size
    assert at == len(reply.body)
    return found


def encoded(file: bytes) -> str:
    return base64.b64encode(file).decode()


# --- forms of a request ----------------------------------------------------------------------------------------


def test_files_in_json(service: Service) -> None:
    for data in ([encoded(PNG)], [{"b64": encoded(PNG)}]):
        reply = service.request("POST", INFER, inference(data, id="a-1"))
        assert tensor(reply, "indices")["data"][0] == images.expected_index(COLOUR, CLASSES)
        assert reply.json()["id"] == "a-1"
        assert reply.headers["content-type"] == "application/json"
        assert reply.headers["x-squint-level"] == reply.json()["parameters"]["level"] == "full"
        assert "decode;dur=" in reply.headers["server-timing"]


def test_a_body_that_is_the_image(service: Service) -> None:
    reply = service.request("POST", INFER, PNG, {LENGTH: "0"})
    found = binary(reply)
    assert reply.headers["content-type"] == "application/octet-stream"
    assert set(found) >= {"scores", "indices", "labels", "json", "raw_logits"}
    assert struct.unpack_from("<i", found["indices"][1])[0] == images.expected_index(COLOUR, CLASSES)


def test_an_image_by_its_type_is_answered_in_json(service: Service) -> None:
    reply = service.request("POST", INFER, PNG, {"Content-Type": "image/png"})
    assert tensor(reply, "indices")["data"][0] == images.expected_index(COLOUR, CLASSES)
    masked = service.request("POST", "/v2/models/toyscape-segment/infer", PNG, {"Content-Type": "image/png"})
    assert base64.b64decode(tensor(masked, "mask")["data"][0]).startswith(b"\x89PNG")


def test_options_as_headers_and_in_the_query(service: Service) -> None:
    headers = {LENGTH: "0", "X-Squint-Level": "fast", "X-Squint-Top-K": "4"}
    reply = service.request("POST", f"{INFER}?top_k=2", PNG, headers)
    assert reply.headers["x-squint-level"] == "fast"
    assert binary(reply)["scores"][0]["shape"] == [1, 2]


def test_the_whole_path_with_a_version(service: Service) -> None:
    reply = service.request("POST", f"/v2/models/{MODEL}/versions/1/infer", inference([encoded(PNG)]))
    assert tensor(reply, "indices")["shape"] == [1, 5]
    error(service.request("POST", f"/v2/models/{MODEL}/versions/2/infer", b"{}"), 404, "unknown_version")


def test_packed_bodies(service: Service) -> None:
    body = inference([encoded(PNG)])
    for packed, encoding in ((gzip.compress(body), "gzip"), (zlib.compress(body), "deflate")):
        reply = service.request("POST", INFER, packed, {"Content-Encoding": encoding})
        assert tensor(reply, "indices")["data"][0] == images.expected_index(COLOUR, CLASSES)
    reply = service.request("POST", INFER, inference([encoded(PNG)] * 16), {"Accept-Encoding": "gzip"})
    assert reply.headers["content-encoding"] == "gzip"
    assert json.loads(gzip.decompress(reply.body))["model_name"] == MODEL


def test_bodies_that_would_become_too_large(service: Service) -> None:
    error(service.request("POST", INFER, bytes(2_000_001)), 413, "body_too_large")
    bomb = gzip.compress(bytes(50_000_000))
    error(service.request("POST", INFER, bomb, {"Content-Encoding": "gzip"}), 413, "body_too_large")
    deep = b'{"inputs": ' + b"[" * 1_900_000
    error(service.request("POST", INFER, deep), 400, "bad_request")


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "99999999999999", "4000"])
def test_lengths_of_the_json_that_cannot_be(service: Service, length: str) -> None:
    error(service.request("POST", INFER, inference([encoded(PNG)]), {LENGTH: length}), 400, "bad_request")


def test_other_encodings(service: Service) -> None:
    error(service.request("POST", INFER, b"x", {"Content-Encoding": "br"}), 415, "unsupported_media_type")
    error(service.request("POST", INFER, b"x", {"Content-Encoding": "gzip"}), 400, "bad_request")


def test_errors_are_those_of_the_whole_service(service: Service) -> None:
    error(service.request("POST", "/v2/models/nothing/infer", b"{}"), 404, "unknown_model")
    error(service.request("GET", "/v2/models/nothing"), 404, "unknown_model")
    error(service.request("GET", "/v2/nothing"), 404, "not_found")
    error(service.request("GET", INFER), 405, "method_not_allowed")
    error(service.request("POST", INFER, b"{}"), 400, "bad_request")
    error(service.request("POST", INFER, inference(["AAAA"])), 415, "unsupported_media_type")
    error(service.request("POST", f"{INFER}?colour=red", PNG, {LENGTH: "0"}), 400, "bad_option")
    error(service.request("POST", f"/v2/repository/models/{MODEL}/load"), 400, "bad_request")
    for path in ("/v2/systemsharedmemory/status", "/v2/trace/setting", "/v2/logging"):
        error(service.request("GET", path), 404, "not_found")


@pytest.mark.parametrize("seed", range(4))
def test_damaged_requests_are_refused_and_never_a_fault_of_ours(service: Service, seed: int) -> None:
    """Valid requests with some bytes changed, cut or doubled, and lengths that may be wrong."""
    rng = random.Random(seed)
    head = json.dumps(
        {
            "id": "7",
            "parameters": {"top_k": 3, "timeout": 5_000_000, "priority": 1, "level": "full"},
            "inputs": [
                {
                    "name": "images",
                    "shape": [1],
                    "datatype": "BYTES",
                    "parameters": {"binary_data_size": len(PNG) + 4},
                }
            ],
            "outputs": [{"name": "scores", "parameters": {"binary_data": True, "classification": 2}}],
        }
    ).encode()
    whole = [(head + struct.pack("<I", len(PNG)) + PNG, len(head)), (inference([encoded(PNG)]), None)]
    for _ in range(60):
        body, length = rng.choice(whole)
        changed = bytearray(body)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(changed))
            what = rng.choice((0, 0, 0, 1, 2))
            if what == 0:
                changed[at] = rng.choice(b'"{}[]:,0-9aE\\ \xff\x00')
            elif what == 1:
                del changed[at : at + rng.randint(1, 40)]
            else:
                changed[at:at] = changed[at : at + rng.randint(1, 40)]
        headers = {} if length is None else {LENGTH: str(max(0, length + rng.choice((0, 0, 0, -1, 1, -200))))}
        reply = service.request("POST", INFER, bytes(changed), headers)
        assert reply.status in (200, 400, 413, 415, 422), (reply.body, bytes(changed))
    assert service.request("POST", INFER, *whole[1][:1]).status == 200


def test_a_request_is_in_log_and_metrics_as_any_other(service: Service) -> None:
    service.request("POST", INFER, inference([encoded(PNG)] * 2), {"X-Request-Id": "kserve-77"})
    (line,) = [line for line in service.log_lines("request") if line["request_id"] == "kserve-77"]
    assert (line["protocol"], line["model"], line["images"], line["status"]) == ("kserve-http", MODEL, 2, 200)
    assert line["bytes"] == 2 * len(PNG)


def test_a_model_that_is_not_there_is_in_the_log_too(service: Service) -> None:
    error(
        service.request("POST", "/v2/models/nothing/infer", b"{}", {"X-Request-Id": "kserve-78"}), 404, "unknown_model"
    )
    (line,) = [line for line in service.log_lines("request") if line["request_id"] == "kserve-78"]
    assert (line["protocol"], line["task"], line["model"]) == ("kserve-http", "none", "none")


def test_whoever_leaves_is_dropped(service: Service) -> None:
    head = f"POST {INFER} HTTP/1.1\r\nHost: t\r\n{LENGTH}: 0\r\nX-Request-Id: left-%d\r\nContent-Length: %d\r\n\r\n"
    slow = images.png(images.sleep(30))
    # One leaves before its body is whole, one while its image is looked at.
    for number, body in enumerate((slow[:-1], slow)):
        with socket.create_connection(("127.0.0.1", service.port)) as leaving:
            leaving.sendall((head % (number, len(slow))).encode() + body)
            time.sleep(0.1)
    until = time.monotonic() + 10.0
    while time.monotonic() < until:
        ended = [line for line in service.log_lines("request") if line["request_id"].startswith("left-")]
        if len(ended) == 2:
            break
        time.sleep(0.02)
    assert [(line["request_id"], line["outcome"]) for line in ended] == [
        ("left-0", "client_closed_request"),
        ("left-1", "client_closed_request"),
    ]
    # The backend ends what it has begun; whoever counts its runs after this is not to count that one.
    assert service.request("POST", INFER, inference([encoded(slow)])).status == 200


# --- as perf_analyzer does it ----------------------------------------------------------------------------------


def per_item(metadata: dict[str, Any], config: dict[str, Any], part: str) -> dict[str, list[int]]:
    """Tensor -> its shape for one item, as perf_analyzer works it out: without the first axis of the metadata's where
    the configuration has a batch size."""
    batched = config["max_batch_size"] > 0
    return {one["name"]: one["shape"][1:] if batched else one["shape"] for one in metadata[part]}


def statistics(service: Service) -> dict[str, Any]:
    told: dict[str, Any] = service.request("GET", f"/v2/models/{MODEL}/versions/1/stats").json()
    (of_model,) = told["model_stats"]
    return dict(of_model)


@pytest.mark.parametrize("given", ["file", "json"])
@pytest.mark.parametrize("batch", [1, 8])
def test_perf_analyzer(service: Service, given: str, batch: int) -> None:
    """Metadata and configuration, then requests of `-b` images with every output asked for, by `--input-data` as its
    documentation shows it: of BYTES, elements with their lengths, in base64. Then what it reads of the statistics."""
    assert "statistics" in service.request("GET", "/v2").json()["extensions"]
    metadata = service.request("GET", f"/v2/models/{MODEL}").json()
    config = service.request("GET", f"/v2/models/{MODEL}/config").json()
    shapes = per_item(metadata, config, "inputs")
    assert shapes == {"images": []}
    assert all(side != -1 for side in shapes["images"]), "perf_analyzer would ask for --shape"
    assert {one["name"] for one in config["input"]} == set(shapes)
    assert {one["name"] for one in config["output"]} == {one["name"] for one in metadata["outputs"]}
    assert config["model_transaction_policy"]["decoupled"] is False
    assert "dynamic_batching" in config
    assert "sequence_batching" not in config
    assert batch <= config["max_batch_size"]
    content = base64.b64decode(encoded(struct.pack("<I", len(PNG)) + PNG))
    shape = [batch, *([1] if given == "json" else shapes["images"])]
    before = statistics(service)
    for number in range(4):
        head = {
            "id": str(number),
            "inputs": [
                {
                    "name": "images",
                    "shape": shape,
                    "datatype": "BYTES",
                    "parameters": {"binary_data_size": batch * len(content)},
                }
            ],
            "outputs": [{"name": one["name"], "parameters": {"binary_data": True}} for one in metadata["outputs"]],
        }
        text = json.dumps(head).encode()
        found = binary(service.request("POST", INFER, text + batch * content, {LENGTH: str(len(text))}))
        assert set(found) == {one["name"] for one in metadata["outputs"]}
        for one in metadata["outputs"]:
            told = found[one["name"]][0]
            assert told["datatype"] == one["datatype"]
            assert len(told["shape"]) == len(one["shape"])
            assert told["shape"][0] == batch
    after = statistics(service)
    assert after["inference_count"] - before["inference_count"] == 4 * batch
    assert 4 <= after["execution_count"] - before["execution_count"] <= 4 * batch
    stats = {
        name: {unit: after["inference_stats"][name][unit] - before["inference_stats"][name][unit] for unit in of}
        for name, of in before["inference_stats"].items()
    }
    stages = ("queue", "compute_input", "compute_infer", "compute_output")
    assert {stats[name]["count"] for name in ("success", *stages)} == {4}
    assert stats["fail"]["count"] == stats["cache_hit"]["count"] == stats["cache_miss"]["count"] == 0
    assert 0 < sum(stats[name]["ns"] for name in stages) <= stats["success"]["ns"]


# --- health, the aliases, Triton's statuses --------------------------------------------------------------------


def test_health_and_its_aliases(service: Service) -> None:
    assert service.request("GET", "/v2/health/live").json() == {"live": True}
    assert service.request("GET", "/v2/health/ready").json() == {"ready": True}
    assert service.request("GET", f"/v2/models/{MODEL}/ready").json() == {"name": MODEL, "ready": True}
    assert service.request("GET", "/v2/models").json()["models"] == [
        "toyscape-classify",
        "toyscape-detect",
        "toyscape-segment",
    ]
    for path in ("/healthz", "/health", "/ping"):
        assert service.request("GET", path).json() == {"status": "ready"}


def test_torchserves_clients(service: Service) -> None:
    form = b'--b\r\ncontent-disposition: form-data; name="data"; filename="x"\r\n\r\n' + PNG + b"\r\n--b--\r\n"
    for method, path, content, headers in (
        ("POST", f"/predictions/{MODEL}", PNG, {"Content-Type": "image/png"}),
        ("PUT", f"/predictions/{MODEL}", PNG, {}),
        ("POST", f"/predictions/{MODEL}/1?top_k=1", form, {"Content-Type": "multipart/form-data; boundary=b"}),
    ):
        reply = service.request(method, path, content, headers)
        assert reply.status == 200, reply.body
        assert reply.json()["predictions"][0]["index"] == images.expected_index(COLOUR, CLASSES)
        assert reply.headers["x-request-id"] == reply.json()["request_id"]
    assert len(reply.json()["predictions"]) == 1
    error(service.request("POST", "/predictions/nothing", PNG), 404, "unknown_model")
    error(service.request("POST", f"/predictions/{MODEL}", PNG[:-20]), 422, "undecodable_image")
    error(service.request("POST", f"/predictions/{MODEL}?colour=1", PNG), 400, "bad_option")
    error(service.request("POST", f"/predictions/{MODEL}", bytes(2_000_001)), 413, "body_too_large")


def test_statuses_as_triton_has_them(tmp_path: Path) -> None:
    with Service(tmp_path, "--decoders", "1", "--triton-status-codes", "--in-flight", "1") as service:
        error(service.request("POST", INFER, b"no image", {LENGTH: "0"}), 400, "unsupported_media_type")
        error(service.request("POST", INFER, inference([encoded(PNG)] * 2)), 503, "overloaded")
        error(service.request("GET", "/v2/models/nothing"), 404, "unknown_model")
        slow = images.png(images.sleep(40))
        error(service.request("POST", f"{INFER}?timeout_ms=100", slow, {LENGTH: "0"}), 503, "deadline_exceeded")
        error(service.request("POST", "/classify", b"no image"), 415, "unsupported_media_type")
