"""The REST contract, against the real processes with the fake backend."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.e2e import images
from tests.e2e.http import Connection
from tests.e2e.raw import speak
from tests.e2e.service import Service
from tests.e2e.waiting import until

LEAKS = ("Traceback", "/home", "/work", "/usr", "site-packages", "pillow", "PIL", "memfd", "pid ", "msgspec", "numpy")


def multipart(*bodies: bytes, name: str = "image") -> tuple[bytes, dict[str, str]]:
    parts = [
        f'--cut\r\nContent-Disposition: form-data; name="{name}"; filename="a.png"\r\n'.encode()
        + b"Content-Type: image/png\r\n\r\n" + body + b"\r\n"
        for body in bodies
    ]  # fmt: skip
    return b"".join(parts) + b"--cut--\r\n", {"Content-Type": "multipart/form-data; boundary=cut"}


def classes(service: Service) -> int:
    model = service.request("GET", "/v1/models/toyscape-classify").json()
    return len(model["labels"])


def check_error(reply: Any, status: int, code: str) -> dict[str, Any]:
    assert (reply.status, reply.json()["code"]) == (status, code), reply.body
    error = reply.json()
    assert set(error) == {"error", "code", "request_id"}
    assert reply.headers["x-request-id"] == error["request_id"]
    assert not [word for word in LEAKS if word in error["error"]]
    return dict(error)


@pytest.mark.parametrize("path", ["/", "/livez", "/readyz", "/ping", "/metrics", "/v1/models", "/docs", "/v2"])
def test_head_is_answered_as_get_without_a_body(service: Service, path: str) -> None:
    head = f"HEAD {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
    spoken = asyncio.run(speak(service.port, head.encode()))
    told, _, body = spoken.data.partition(b"\r\n\r\n")
    assert told.startswith(b"HTTP/1.1 200 ")
    assert b"content-length: " in told.lower()
    assert body == b""


def test_head_of_what_takes_post_alone_is_refused(service: Service) -> None:
    spoken = asyncio.run(speak(service.port, b"HEAD /classify HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"))
    assert spoken.data.startswith(b"HTTP/1.1 405 ")
    assert spoken.data.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("task", ["classify", "detect", "segment"])
@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_every_task_answers_in_its_documented_shape(service: Service, task: str, prefix: str) -> None:
    reply = service.request("POST", f"{prefix}/{task}", images.png(images.number(7), 64, 48))
    assert reply.status == 200, reply.body
    answer = reply.json()
    document = service.request("GET", "/openapi.json").json()
    schema = document["paths"][f"/{task}"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.validate(answer, {**schema, "components": document["components"]})
    assert answer["model"] == f"toyscape-{task}"
    assert answer["level"] == reply.headers["x-squint-level"] == "full"
    assert answer["backend"] == "fake"
    assert answer["request_id"] == reply.headers["x-request-id"]
    assert "total;dur=" in reply.headers["server-timing"]
    assert answer["timing_ms"]["total"] > 0
    if task == "segment":
        assert answer["size"] == [48, 64]
        # One class on background: the mask as a whole and that class's segment are the same pixels.
        assert answer["mask"]["counts"] == answer["segments"][0]["counts"] != ""


def test_the_answer_belongs_to_the_image(service: Service) -> None:
    count = classes(service)

    async def ask() -> None:
        connections = [Connection(service.port) for _ in range(16)]

        async def some(connection: Connection, start: int) -> None:
            for value in range(start, 160, 16):
                colour = images.number(value)
                answer = (await connection.request("POST", "/classify", images.png(colour))).json()
                assert answer["predictions"][0]["index"] == images.expected_index(colour, count)

        await asyncio.gather(*(some(connection, start) for start, connection in enumerate(connections)))
        for connection in connections:
            await connection.close()

    asyncio.run(ask())


def test_all_body_forms_give_the_same_answer(service: Service) -> None:
    image = images.png(images.number(42))
    body, headers = multipart(image)
    as_file, _ = multipart(image, name="file")
    encoded = json.dumps({"image": base64.b64encode(image).decode()}).encode()
    forms: list[tuple[bytes, dict[str, str]]] = [
        (image, {"Content-Type": "image/png"}),
        (image, {"Content-Type": "application/x-www-form-urlencoded"}),
        (image, {}),
        (body, headers),
        (as_file, headers),
        (encoded, {"Content-Type": "application/json"}),
    ]
    seen = [service.request("POST", "/classify", data, given) for data, given in forms]
    assert {reply.status for reply in seen} == {200}
    assert len({json.dumps(reply.json()["predictions"]) for reply in seen}) == 1


def test_many_images_are_answered_as_a_list_in_order(service: Service) -> None:
    count = classes(service)
    colours = [images.number(value) for value in range(15)]
    body, headers = multipart(*[images.png(colour) for colour in colours], b"not an image")
    answers = service.request("POST", "/classify", body, headers).json()
    assert [answer["predictions"][0]["index"] for answer in answers[:15]] == [
        images.expected_index(colour, count) for colour in colours
    ]
    assert answers[15]["code"] == "unsupported_media_type"
    body, headers = multipart(*[images.png((0, 0, 0))] * 17)
    check_error(service.request("POST", "/classify", body, headers), 400, "bad_request")


@pytest.mark.parametrize(
    ("target", "body", "headers", "status", "code"),
    [
        ("/nowhere", b"", {}, 404, "not_found"),
        ("/classify/", b"", {}, 404, "not_found"),
        ("/v1/models/nobody", b"", {}, 405, "method_not_allowed"),
        ("/classify", b"", {}, 400, "bad_request"),
        ("/classify", b"hello", {}, 415, "unsupported_media_type"),
        ("/classify", b"\xff\xd8\xff\xe0 broken", {}, 422, "undecodable_image"),
        ("/classify", b"x", {"Content-Type": "text/html"}, 415, "unsupported_media_type"),
        ("/classify", b"x", {"Content-Encoding": "gzip"}, 415, "unsupported_media_type"),
        ("/classify", b"{}", {"Content-Type": "application/json"}, 400, "bad_request"),
        ("/classify", b'{"image": "%"}', {"Content-Type": "application/json"}, 400, "bad_request"),
        ("/classify", b"[" * 10_000, {"Content-Type": "application/json"}, 400, "bad_request"),
        ("/classify", b'{"url": "http://a/b.jpg"}', {"Content-Type": "application/json"}, 400, "bad_request"),
        ("/classify", b"x", {"Content-Type": "multipart/form-data"}, 400, "bad_request"),
        ("/classify", b"junk", {"Content-Type": "multipart/form-data; boundary=cut"}, 400, "bad_request"),
        ("/classify?model=nobody", b"x", {}, 404, "unknown_model"),
        ("/classify?model=toyscape-detect", b"x", {}, 400, "bad_option"),
        ("/classify?level=tiny", b"x", {}, 400, "unknown_level"),
        ("/classify?min_level=full", b"x", {}, 400, "bad_option"),
        ("/classify?top_k=0", b"x", {}, 400, "bad_option"),
        ("/classify?top_k=1001", b"x", {}, 400, "bad_option"),
        ("/classify?top_k=ten", b"x", {}, 400, "bad_option"),
        ("/classify?threshold=0.5", b"x", {}, 400, "bad_option"),
        ("/detect?threshold=1.5", b"x", {}, 400, "bad_option"),
        ("/segment?mask=gif", b"x", {}, 400, "bad_option"),
        ("/classify?priority=urgent", b"x", {}, 400, "bad_option"),
        ("/classify", b"x", {"X-Request-Timeout-Ms": "soon"}, 400, "bad_option"),
        ("/classify?timeout_ms=200", images.png(images.sleep(50)), {}, 504, "deadline_exceeded"),
        ("/classify", images.png(images.FAIL_ITEM), {}, 422, "unprocessable_image"),
        ("/classify", images.png(images.FAIL_BATCH), {}, 422, "unprocessable_image"),
    ],
)
def test_every_refusal_is_typed(
    service: Service, target: str, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    check_error(service.request("POST", target, body, headers), status, code)


def test_a_refused_option_names_the_accepted_values(service: Service) -> None:
    error = check_error(service.request("POST", "/classify?top_k=0", b"x"), 400, "bad_option")
    assert error["error"] == "top_k must be an integer from 1 to 1000"
    error = check_error(service.request("POST", "/classify?topk=3", b"x"), 400, "bad_option")
    assert "top_k" in error["error"]


def test_options_are_read_from_query_and_headers(service: Service) -> None:
    image = images.png(images.number(3))
    assert len(service.request("POST", "/classify?top_k=2", image).json()["predictions"]) == 2
    by_header = service.request("POST", "/classify", image, {"X-Squint-Top-K": "3"})
    assert len(by_header.json()["predictions"]) == 3
    both = service.request("POST", "/classify?top_k=1", image, {"X-Squint-Top-K": "3"})
    assert len(both.json()["predictions"]) == 1


def test_request_ids_are_kept_when_harmless(service: Service) -> None:
    image = images.png((9, 9, 9))
    assert service.request("POST", "/classify", image, {"X-Request-Id": "abc-1"}).json()["request_id"] == "abc-1"
    odd = service.request("POST", "/classify", image, {"X-Request-Id": 'a" {b}'}).json()["request_id"]
    assert len(odd) == 32


def test_too_large_a_body_is_refused_by_its_length_and_by_its_bytes(service: Service) -> None:
    check_error(service.request("POST", "/classify", b"x" * 20_000_001), 413, "body_too_large")

    async def chunked() -> Any:
        connection = Connection(service.port)
        head = b"POST /classify HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
        block = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
        reply = await connection.send(head + block * 21)
        await connection.close()
        return reply

    check_error(asyncio.run(chunked()), 413, "body_too_large")


def test_a_large_dimension_is_refused_before_it_is_decoded(service: Service) -> None:
    check_error(service.request("POST", "/classify", images.png((1, 2, 3), 20_000, 1)), 413, "image_too_large")


def test_a_head_without_end_is_refused_early(service: Service) -> None:
    async def send(data: bytes) -> Any:
        connection = Connection(service.port)
        reply = await connection.send(data)
        await connection.close()
        return reply

    for data in (
        b"GET /livez HTTP/1.1\r\nX: " + b"a" * 200_000,
        b"GET /livez HTTP/1.1\r\n" + b"X: y\r\n" * 20_000,
        b"GET /" + b"a" * 200_000,
        b"nonsense\r\n\r\n",
        b"POST /classify HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    ):
        reply = asyncio.run(send(data))
        check_error(reply, 400, "bad_request")
        assert reply.headers["connection"] == "close"


def test_a_body_may_follow_a_head_in_many_pieces(service: Service) -> None:
    image = images.png(images.number(11))
    body, headers = multipart(image, b"x" * 100_000)

    async def send() -> Any:
        connection = Connection(service.port)
        replies = []
        for _ in range(3):
            replies.append(await connection.request("POST", "/classify", body, {**headers, "X-Filler": "f" * 12_000}))
        await connection.close()
        return replies

    for reply in asyncio.run(send()):
        assert reply.status == 200
        assert reply.json()[1]["code"] == "unsupported_media_type"


def test_a_refused_request_of_many_images_leaves_nothing_behind(tmp_path: Path) -> None:
    with Service(tmp_path, "--in-flight", "4") as running:
        body, headers = multipart(*[images.png((2, 2, 2))] * 8)
        for _ in range(5):
            check_error(running.request("POST", "/classify", body, headers), 429, "overloaded")
        assert "squint_in_flight 0.0" in running.request("GET", "/metrics").body.decode()
        assert running.request("POST", "/classify", images.png((3, 3, 3))).status == 200


def test_health_and_models(service: Service) -> None:
    for path in ("/livez", "/readyz", "/startupz"):
        assert service.request("GET", path).status == 200
    models = service.request("GET", "/v1/models").json()["models"]
    assert {model["task"] for model in models} == {"classify", "detect", "segment"}
    check_error(service.request("GET", "/v1/models/nobody"), 404, "unknown_model")


def test_metrics_move_with_requests(service: Service) -> None:
    def count() -> float:
        text = service.request("GET", "/metrics").body.decode()
        prefix = 'squint_request_seconds_count{level="full",model="toyscape-classify",outcome="ok",task="classify"}'
        lines = [line for line in text.splitlines() if line.startswith(prefix)]
        return float(lines[0].split()[-1]) if lines else 0.0

    before = count()
    service.request("POST", "/classify", images.png((5, 5, 5)))
    assert count() == before + 1
    text = service.request("GET", "/metrics").body.decode()
    for name in (
        "squint_stage_seconds", "squint_batch_items", "squint_batch_closed_total", "squint_in_flight",
        "squint_queue_items", "squint_queue_delay_estimate_seconds", "squint_level_served_total",
        "squint_refused_total", "squint_model_load_seconds", "squint_build_info",
    ):  # fmt: skip
        assert f"\n{name}" in text, name


def test_one_log_line_per_request(service: Service) -> None:
    service.request("POST", "/classify", images.png((6, 6, 6)), {"X-Request-Id": "logged-once"})
    lines = [line for line in service.log_lines("request") if line["request_id"] == "logged-once"]
    assert len(lines) == 1
    assert lines[0]["status"] == 200
    assert lines[0]["level"] == "full"
    assert lines[0]["model"] == "toyscape-classify"


def test_processes_are_what_the_tree_says(service: Service) -> None:
    assert list(service.pids("gateway").values()) == ["squint: gateway"]
    assert sorted(service.pids("decoder").values()) == ["squint: decoder 0", "squint: decoder 1"]
    assert list(service.pids("worker").values()) == ["squint: worker 0"]


def test_the_openapi_document_bounds_everything(service: Service) -> None:
    document = service.request("GET", "/openapi.json").json()
    unbounded: list[str] = []

    def walk(node: Any, where: str) -> None:
        if isinstance(node, dict):
            kind = node.get("type")
            if kind == "string" and not {"enum", "const", "maxLength"} & set(node):
                unbounded.append(where)
            if kind == "integer" and not {"enum", "const", "maximum"} & set(node):
                unbounded.append(where)
            if kind == "array" and "maxItems" not in node:
                unbounded.append(where)
            for key, value in node.items():
                walk(value, f"{where}/{key}")
        elif isinstance(node, list):
            for position, value in enumerate(node):
                walk(value, f"{where}/{position}")

    walk(document, "")
    # FastAPI's own description of a validation error, which this service never sends.
    assert [where for where in unbounded if "ValidationError" not in where] == []


def test_the_docs_page_needs_nothing_from_outside(service: Service) -> None:
    page = service.request("GET", "/docs").body.decode()
    assert "swagger-ui" in page
    assert service.request("GET", "/swagger/swagger-ui-bundle.js").status == 200
    assert "cdn" not in page and "https://" not in page


def test_no_cors_unless_configured(service: Service) -> None:
    reply = service.request("GET", "/livez", headers={"Origin": "http://example.com"})
    assert "access-control-allow-origin" not in reply.headers


def test_a_client_that_leaves_is_forgotten(service: Service) -> None:
    body = images.png(images.sleep(30))
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", service.port)) as leaving:
            leaving.sendall(b"POST /classify HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            time.sleep(0.1)
    assert service.request("POST", "/classify", images.png((8, 8, 8))).status == 200

    def forgotten() -> bool:
        text = service.request("GET", "/metrics").body.decode()
        return 'squint_refused_total{code="client_closed_request"} 5.0' in text and "squint_in_flight 0.0" in text

    until(forgotten)


def test_oom_poison_and_honest_neighbours(service: Service) -> None:
    """Guilty items fail alone while those that shared their batch are answered."""
    count = classes(service)

    async def ask() -> list[tuple[int, int]]:
        async def one(value: int) -> tuple[int, int]:
            connection = Connection(service.port)
            colour = images.FAIL_BATCH if value % 10 == 0 else images.number(value)
            reply = await connection.request("POST", "/classify", images.png(colour))
            await connection.close()
            if reply.status == 200:
                assert reply.json()["predictions"][0]["index"] == images.expected_index(colour, count)
            return value, reply.status

        return list(await asyncio.gather(*(one(value) for value in range(60))))

    for value, status in asyncio.run(ask()):
        assert status == (422 if value % 10 == 0 else 200), value


def test_configured_origins_are_allowed(tmp_path: Path) -> None:
    with Service(tmp_path, "--cors-origins", "http://example.com") as running:
        reply = running.request("GET", "/livez", headers={"Origin": "http://example.com"})
        assert reply.headers["access-control-allow-origin"] == "http://example.com"
        assert running.stop() == 0
