"""Both clients against a service of the test's own, which says what it likes and notes what it was sent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from squint.client import (
    AsyncClient,
    Client,
    ClientError,
    DeadlineExceeded,
    Refused,
    Retries,
    Unreachable,
    Unreadable,
)
from tests.unit.client import answers

Says = Callable[[httpx.Request], httpx.Response]
QUICK = Retries(first_wait=0.001)


def reply(status: int, told: Any, **headers: str) -> httpx.Response:
    return httpx.Response(status, json=told, headers={name.replace("_", "-"): value for name, value in headers.items()})


class Stub:
    """Answers with what it holds, one after the other, the last for ever; exceptions are raised as a network would."""

    def __init__(self, *says: httpx.Response | Exception) -> None:
        self.says = list(says)
        self.seen: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.seen.append(request)
        said = self.says[min(len(self.seen), len(self.says)) - 1]
        if isinstance(said, Exception):
            raise said
        return httpx.Response(said.status_code, headers=said.headers, content=said.content)

    async def later(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        return self(request)


Ask = Callable[..., Any]


def blocking(stub: Stub, method: str, *arguments: Any, settings: dict[str, Any] | None = None, **options: Any) -> Any:
    given = {"retries": QUICK, **(settings or {})}
    with Client("http://squint.test", transport=httpx.MockTransport(stub), **given) as client:
        return getattr(client, method)(*arguments, **options)


def concurrent(stub: Stub, method: str, *arguments: Any, settings: dict[str, Any] | None = None, **options: Any) -> Any:
    async def ask() -> Any:
        given = {"retries": QUICK, **(settings or {})}
        async with AsyncClient("http://squint.test", transport=httpx.MockTransport(stub.later), **given) as client:
            return await getattr(client, method)(*arguments, **options)

    return asyncio.run(ask())


@pytest.fixture(params=[blocking, concurrent], ids=["Client", "AsyncClient"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """One call by either client."""
    asking: Ask = request.param
    return asking


def test_a_call_says_what_was_asked(ask: Ask) -> None:
    stub = Stub(reply(200, answers.CLASSIFICATION))
    result = ask(
        stub, "classify", b"image", model="m", level="tome:8+width:1/2", top_k=2, timeout=2.0, request_id="mine",
        min_level=None, settings={"api_key": "secret"},
    )  # fmt: skip
    assert (result.best.label, result.level, result.timing_ms.total) == ("star", "fast", 4)
    (sent,) = stub.seen
    assert (sent.method, sent.url.path, sent.content) == ("POST", "/v1/classify", b"image")
    assert dict(sent.url.params) == {"model": "m", "level": "tome:8+width:1/2", "top_k": "2"}
    assert sent.headers["authorization"] == "Bearer secret"
    assert sent.headers["x-request-id"] == "mine"
    assert 1500 < int(sent.headers["x-request-timeout-ms"]) <= 2000
    assert sent.headers["user-agent"].startswith("squint-client/")


def test_each_task_has_its_result(ask: Ask) -> None:
    found = ask(Stub(reply(200, answers.DETECTIONS)), "detect", b"i", threshold=0.1)
    assert found.predictions[0].box == (10.0, 20.5, 60.0, 70.0) and found.explain is None
    mask = ask(Stub(reply(200, answers.SEGMENTATION)), "segment", b"i", mask="rle")
    assert mask.size == (2, 3) and mask.segments[0].label == "car"


def test_what_a_newer_service_adds_is_left_aside(ask: Ask) -> None:
    told = {**answers.CLASSIFICATION, "novel": {"a": [1]}}
    assert ask(Stub(reply(200, told)), "classify", b"i").best.index == 1


def test_several_images_go_in_one_request_and_come_back_in_order(ask: Ask) -> None:
    late = answers.error("deadline_exceeded", "too late")
    told = [answers.CLASSIFICATION, answers.error("undecodable_image", "no image"), late]
    stub = Stub(reply(200, told))
    first, second, third = ask(stub, "classify_all", [b"one", b"two", b"three"])
    assert first.best.label == "star"
    assert isinstance(second, Refused) and (second.code, second.request_id) == ("undecodable_image", "r9")
    assert isinstance(third, DeadlineExceeded)
    (sent,) = stub.seen
    assert sent.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert sent.content.index(b"one") < sent.content.index(b"two") < sent.content.index(b"three")
    with pytest.raises(Unreadable, match="1 answers for 2 images"):
        ask(Stub(reply(200, told[:1])), "detect_all", [b"one", b"two"])


def test_one_image_of_several_is_still_a_list(ask: Ask) -> None:
    assert [one.best.index for one in ask(Stub(reply(200, answers.CLASSIFICATION)), "classify_all", [b"i"])] == [1]
    with pytest.raises(Refused, match="undecodable_image"):
        ask(Stub(reply(422, answers.error("undecodable_image"))), "segment_all", [b"i"])
    with pytest.raises(ValueError, match="no images"):
        ask(Stub(), "classify_all", [])


def test_models_and_levels(ask: Ask) -> None:
    assert [model.name for model in ask(Stub(reply(200, {"models": [answers.MODEL]})), "models")] == ["toy"]
    stub = Stub(reply(200, answers.MODEL))
    assert [level.name for level in ask(stub, "levels", "to/y")] == ["full", "fast"]
    assert stub.seen[0].url.raw_path == b"/v1/models/to%2Fy"
    with pytest.raises(Refused, match="unknown_model") as caught:
        ask(Stub(reply(404, answers.error("unknown_model"))), "model", "none")
    assert caught.value.status == 404


@pytest.mark.parametrize(
    ("said", "ready"),
    [(reply(200, {}), True), (reply(503, {"status": "draining"}), False), (httpx.ConnectError("no"), False)],
)
def test_ready_asks_once(ask: Ask, said: httpx.Response | Exception, ready: bool) -> None:
    stub = Stub(said)
    assert ask(stub, "ready") is ready
    assert [request.url.path for request in stub.seen] == ["/readyz"]


def test_refusals_are_typed(ask: Ask) -> None:
    with pytest.raises(Refused) as caught:
        ask(Stub(reply(400, answers.error("bad_option", "top_k must be less"))), "classify", b"i")
    error = caught.value
    assert (error.code, error.status, error.message, error.request_id) == (
        "bad_option",
        400,
        "top_k must be less",
        "r9",
    )
    assert str(error) == "bad_option: top_k must be less (request r9)"
    with pytest.raises(DeadlineExceeded) as late:
        ask(Stub(reply(504, answers.error("deadline_exceeded"))), "classify", b"i")
    assert isinstance(late.value, Refused) and late.value.status == 504


@pytest.mark.parametrize("status", [429, 503])
def test_what_passes_is_asked_again_under_the_same_id(ask: Ask, status: int) -> None:
    stub = Stub(reply(status, answers.error()), reply(status, answers.error()), reply(200, answers.CLASSIFICATION))
    assert ask(stub, "classify", b"image").best.label == "star"
    assert len(stub.seen) == 3 and {request.content for request in stub.seen} == {b"image"}
    assert len({request.headers["x-request-id"] for request in stub.seen}) == 1
    left = [int(request.headers["x-request-timeout-ms"]) for request in stub.seen]
    assert left == sorted(left, reverse=True) and left[0] <= 10_000


def test_the_last_refusal_is_told(ask: Ask) -> None:
    stub = Stub(reply(429, answers.error(), retry_after="0"))
    with pytest.raises(Refused) as caught:
        ask(stub, "classify", b"i")
    assert (caught.value.retry_after, len(stub.seen)) == (0.0, 3)


def test_retry_after_beyond_the_deadline_ends_it_at_once(ask: Ask) -> None:
    stub = Stub(reply(429, answers.error(), retry_after="3"))
    with pytest.raises(Refused):
        ask(stub, "classify", b"i", timeout=1.0)
    assert len(stub.seen) == 1


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422, 500, 502])
def test_other_errors_are_final(ask: Ask, status: int) -> None:
    stub = Stub(reply(status, answers.error("internal")))
    with pytest.raises(Refused):
        ask(stub, "classify", b"i")
    assert len(stub.seen) == 1


@pytest.mark.parametrize(
    "error", [httpx.ConnectError, httpx.ConnectTimeout, httpx.ReadError, httpx.RemoteProtocolError]
)
def test_a_connection_that_breaks_before_an_answer_is_tried_again(ask: Ask, error: type[httpx.TransportError]) -> None:
    stub = Stub(error("gone"), reply(200, answers.CLASSIFICATION))
    assert ask(stub, "classify", b"i").best.label == "star"
    with pytest.raises(Unreachable, match=r"no answer from http://squint\.test: gone"):
        ask(Stub(error("gone")), "classify", b"i")


def test_silence_until_the_deadline_is_no_reason_to_ask_again(ask: Ask) -> None:
    stub = Stub(httpx.ReadTimeout("slow"))
    with pytest.raises(DeadlineExceeded, match="no answer before the deadline"):
        ask(stub, "classify", b"i")
    assert len(stub.seen) == 1


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"predictions": 3}', b"\xff\xfe", b"[" * 5000])
def test_an_answer_of_something_else_is_unreadable(ask: Ask, body: bytes) -> None:
    with pytest.raises(Unreadable):
        ask(Stub(httpx.Response(200, content=body)), "classify", b"i")
    with pytest.raises(Refused, match="no word from Squint") as caught:
        ask(Stub(httpx.Response(502, content=body)), "classify", b"i")
    assert caught.value.status == 502


def test_an_answer_is_not_read_beyond_its_limit(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("squint.client.exchange.MAX_ANSWER_BYTES", 100)
    with pytest.raises(Unreadable, match="more than 100 bytes"):
        ask(Stub(httpx.Response(200, content=b" " * 101)), "classify", b"i")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"api_key": "two\r\nlines"}, "visible ASCII"),
        ({"api_key": ""}, "visible ASCII"),
        ({"timeout": 0}, "timeout=0"),
        ({"timeout": float("nan")}, "timeout=nan"),
        ({"timeout": 4000}, "at most 3600"),
    ],
)
def test_settings_have_bounds(ask: Ask, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        ask(Stub(), "models", settings=settings)
    assert "lines" not in str(caught.value)


@pytest.mark.parametrize("options", [{"request_id": "a b"}, {"request_id": "x" * 65}, {"timeout": -1.0}])
def test_options_that_no_header_can_carry_are_refused(ask: Ask, options: dict[str, Any]) -> None:
    stub = Stub()
    with pytest.raises(ValueError, match=next(iter(options))):
        ask(stub, "classify", b"i", **options)
    assert not stub.seen


@pytest.mark.parametrize("url", ["", "squint.test", "ftp://squint.test", "http://", "http://a/?b=c"])
def test_an_address_is_one(url: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(ValueError, match="expected http"):
            kind(url)


def test_a_service_below_a_path(ask: Ask) -> None:
    stub = Stub(reply(200, answers.CLASSIFICATION))
    with Client("https://squint.test/vision/", transport=httpx.MockTransport(stub)) as client:
        client.classify(b"i")
    assert str(stub.seen[0].url) == "https://squint.test/vision/v1/classify"


def test_the_budget_is_one_for_all_calls_of_a_client() -> None:
    stub = Stub(reply(503, answers.error("unavailable")))
    policy = Retries(first_wait=0.0, reserve=3.0, budget=0.1)
    with Client("http://squint.test", transport=httpx.MockTransport(stub), retries=policy) as client:
        for _ in range(50):
            with pytest.raises(Refused):
                client.classify(b"i")
    assert 50 + 3 <= len(stub.seen) <= 50 + 3 + 5


def test_cancelling_ends_the_wait() -> None:
    async def forever(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(60)
        raise AssertionError("nobody waits")

    async def ask() -> float:
        async with AsyncClient("http://squint.test", transport=httpx.MockTransport(forever)) as client:
            call = asyncio.ensure_future(client.classify(b"i"))
            await asyncio.sleep(0.05)
            call.cancel()
            begin = time.monotonic()
            with pytest.raises(asyncio.CancelledError):
                await call
            with pytest.raises(DeadlineExceeded):
                await client.classify(b"i", timeout=0.05)
            return time.monotonic() - begin

    assert asyncio.run(ask()) < 30


def test_every_error_is_a_client_error() -> None:
    for kind in (Refused, DeadlineExceeded, Unreachable, Unreadable):
        assert issubclass(kind, ClientError)
