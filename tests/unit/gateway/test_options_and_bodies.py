"""Options and bodies are read the same way whether or not they were seen before, and however they arrive."""

from __future__ import annotations

import base64
import json

import pytest

from service.config import Limits
from service.errors import Refusal
from service.gateway import schemas
from service.gateway.body import Budget, Upload

FORM = (
    b'--cut\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\none\r\n'
    b'--cut\r\nContent-Disposition: form-data; name="file"\r\n\r\ntwo\r\n--cut--\r\n'
)


def read(data: bytes, kind: str | None, pieces: int, budget: Budget, limits: Limits) -> list[bytes]:
    share = budget.share()
    try:
        upload = Upload(kind, limits, share)
        for start in range(0, len(data), pieces):
            upload.add(data[start : start + pieces])
            assert budget.held == min(start + pieces, len(data))
        return [bytes(image) for image in upload.images()]
    finally:
        share.release()


@pytest.mark.parametrize("pieces", [1, 7, 1 << 20])
def test_every_form_of_body_in_any_pieces(pieces: int) -> None:
    budget, limits = Budget(10_000), Limits()
    encoded = json.dumps({"image": base64.b64encode(b"one").decode()}).encode()
    assert read(b"one", "image/jpeg", pieces, budget, limits) == [b"one"]
    assert read(b"one", None, pieces, budget, limits) == [b"one"]
    assert read(encoded, "application/json; charset=utf-8", pieces, budget, limits) == [b"one"]
    assert read(FORM, "multipart/form-data; boundary=cut", pieces, budget, limits) == [b"one", b"two"]
    assert budget.held == 0


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"no JSON", r'of the form \{"image": "<base64>"\}$'),
        (b'["AAAA"]', r'of the form \{"image": "<base64>"\}$'),
        (b'{"picture": "AAAA"}', r'of the form \{"image": "<base64>"\}$'),
        (b'{"image": "AAAA", "top_k": 3}', "options go into the query"),
        (b'{"image": "data:image/png;base64,AAAA"}', "take off what comes before the base64"),
        (b'{"image": "http://example.org/a.jpg"}', "is not base64"),
        (b'{"image": ["AAAA"]}', "is not base64"),
        (b'{"image": ' + b"[" * 100_000, r'of the form \{"image": "<base64>"\}$'),
    ],
)
def test_a_json_body_that_is_none_of_ours_is_told_what_is_wrong(body: bytes, said: str) -> None:
    budget = Budget(len(body))
    with pytest.raises(Refusal, match=said) as caught:
        read(body, "application/json", len(body), budget, Limits())
    assert (caught.value.code, budget.held) == ("bad_request", 0)


def test_a_large_body_is_whole() -> None:
    data = bytes(range(256)) * 12_000
    limits = Limits()
    assert len(data) < limits.body_bytes
    assert read(data, "image/png", 70_000, Budget(len(data)), limits) == [data]


def test_what_is_over_a_limit_is_refused_when_it_is_reached() -> None:
    limits = Limits(body_bytes=100)
    for budget, code in ((Budget(1000), "body_too_large"), (Budget(60), "overloaded")):
        with pytest.raises(Refusal) as caught:
            read(b"x" * 101, None, 50, budget, limits)
        assert caught.value.code == code
        assert budget.held == 0


def test_options_are_the_same_the_second_time_and_belong_to_their_request() -> None:
    headers = [(b"host", b"a"), (b"x-squint-top-k", b"3"), (b"x-squint-top-k", b"4"), (b"x-request-timeout-ms", b"70")]
    for _ in range(2):
        parsed, result = schemas.options("classify", b"priority=low", headers)
        assert (result.top_k, parsed.priority, parsed.timeout_ms) == (3, "low", 70)
        parsed, result = schemas.options("classify", b"priority=high&top_k=9&top_k=8", headers)
        assert (result.top_k, parsed.priority, parsed.timeout_ms) == (8, "high", 70)
        assert schemas.options("classify", b"", [])[1].top_k == 5
        assert schemas.options("detect", b"threshold=0.5", [])[1].threshold == 0.5
        with pytest.raises(Refusal, match="top_k must be an integer from 1 to 1000"):
            schemas.options("classify", b"top_k=0", [])


def test_long_options_are_not_kept() -> None:
    before = schemas._cached.cache_info().currsize
    with pytest.raises(Refusal):
        schemas.options("classify", b"level=" + b"x" * 1000, [])
    schemas.options(
        "classify", b"model=" + b"a" * 60, [(b"x-squint-level", b"l" * 190), (b"x-squint-min-level", b"m" * 199)]
    )
    schemas.options("classify", b"priority=low" + b"&priority=low" * 100, [])
    assert schemas._cached.cache_info().currsize == before + 1
