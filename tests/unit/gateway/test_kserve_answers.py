"""What the protocol's answers are made of: output tensors, statistics, packing, statuses."""

from __future__ import annotations

import gzip
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.dispatcher.statistics import Statistics
from service.dispatcher.tickets import Outcome
from service.errors import STATUS, Refusal
from service.gateway import packing
from service.gateway.kserve import outputs, status
from service.gateway.kserve.outputs import Results, Wanted
from service.gateway.kserve.tensors import binary, listed
from service.wire.messages.results import Classification, Detection, Detections, Prediction, Raw, Segment, Segmentation
from service.wire.messages.worker import Form

LABELS = ["star", "heart", "fish"]


def served(*results: object, raw: list[tuple[Raw, ...]] | None = None, top_k: int = 5) -> Results:
    return Results(LABELS, [*results], raw or [() for _ in results], top_k, lambda number: b"{%d}" % number)


def classified(*scores: float) -> Classification:
    return Classification([Prediction(index, score) for index, score in enumerate(scores)])


def test_classes_of_several_images() -> None:
    answer = served(classified(0.5, 0.25, 0.125), classified(0.75, 0.125, 0.0), top_k=2)
    scores = outputs.tensor(Wanted("scores"), answer)
    assert (scores.datatype, scores.shape, scores.values) == ("FP32", (2, 2), [0.5, 0.25, 0.75, 0.125])
    assert outputs.tensor(Wanted("indices"), answer).values == [0, 1, 0, 1]
    assert outputs.tensor(Wanted("labels"), answer).values == [b"star", b"heart"] * 2
    best = outputs.tensor(Wanted("scores", classes=3), answer)
    assert (best.datatype, best.shape) == ("BYTES", (2, 3))
    assert best.values[0] == b"0.500000:0:star"
    assert outputs.tensor(Wanted("json"), answer).values == [b"{0}", b"{1}"]


def test_images_with_different_numbers_of_objects() -> None:
    first = Detections([Detection(1, 0.9, (1.0, 2.0, 3.0, 4.0)), Detection(2, 0.8, (0.0, 0.0, 1.0, 1.0))])
    answer = served(first, Detections([]))
    assert outputs.tensor(Wanted("count"), answer).values == [2, 0]
    boxes = outputs.tensor(Wanted("boxes"), answer)
    assert boxes.shape == (2, 2, 4)
    assert boxes.values == [1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 1.0, 1.0, *[0.0] * 8]
    assert outputs.tensor(Wanted("indices"), answer).values == [1, 2, -1, -1]
    assert outputs.tensor(Wanted("labels"), answer).values == [b"heart", b"fish", b"", b""]
    assert outputs.tensor(Wanted("scores"), served(Detections([]))).shape == (1, 0)


def test_segments_and_masks() -> None:
    png = Segmentation((4, 6), "png", [Segment(1, 7)], png=b"\x89PNG")
    lengths = Segmentation((2, 2), "rle", [], rle="abc")
    outlines = Segmentation((2, 2), "polygons", [Segment(2, 4, polygons=[[0.0, 1.0]])])
    answer = served(png, lengths, outlines)
    assert outputs.tensor(Wanted("mask"), answer).values == [b"\x89PNG", b"abc", b"[[[0.0,1.0]]]"]
    assert outputs.tensor(Wanted("size"), answer).values == [4, 6, 2, 2, 2, 2]
    assert outputs.tensor(Wanted("areas"), answer).values == [7, 0, 4]
    assert outputs.tensor(Wanted("indices"), answer).values == [1, -1, 2]


def raw(*values: float) -> tuple[Raw, ...]:
    return (Raw("logits", "float32", (len(values),), struct.pack(f"<{len(values)}f", *values)),)


def test_raw_outputs_are_put_together() -> None:
    answer = served(classified(1.0), classified(1.0), raw=[raw(1.0, 3.0, 2.0), raw(0.0, -1.0, 4.0)])
    found = outputs.tensor(Wanted("raw_logits"), answer)
    assert (found.datatype, found.shape) == ("FP32", (2, 3))
    assert listed(found) == [1.0, 3.0, 2.0, 0.0, -1.0, 4.0]
    assert binary(found) == struct.pack("<6f", 1.0, 3.0, 2.0, 0.0, -1.0, 4.0)
    best = outputs.tensor(Wanted("raw_logits", classes=2), answer)
    assert best.values == [b"3.000000:1:heart", b"2.000000:2:fish", b"4.000000:2:fish", b"0.000000:0:star"]


def test_raw_outputs_of_different_shapes() -> None:
    answer = served(classified(1.0), classified(1.0), raw=[raw(1.0), raw(1.0, 2.0)])
    with pytest.raises(Refusal, match="one image at a time"):
        outputs.tensor(Wanted("raw_logits"), answer)


def test_outputs_that_are_offered() -> None:
    specs = outputs.offered("classify", [Form("logits", "float32", (3,)), Form("odd", "complex64", (3,))])
    assert [spec.name for spec in specs] == ["scores", "indices", "labels", "json", "raw_logits"]
    assert [one.name for one in outputs.check([], specs, "classify")] == [spec.name for spec in specs]
    for wanted in (
        [Wanted("mask")],
        [Wanted("scores"), Wanted("scores")],
        [Wanted("labels", classes=2)],
    ):
        with pytest.raises(Refusal):
            outputs.check(wanted, specs, "classify")
    with pytest.raises(Refusal, match="classification"):
        outputs.check([Wanted("scores", classes=2)], outputs.offered("detect", []), "detect")


# --- statistics ------------------------------------------------------------------------------------------------


def test_statistics_of_requests_and_batches() -> None:
    statistics = Statistics(lambda: 12.5)
    statistics.ran("m", "1", 2, 0.004, 0.002, 0.001)
    statistics.ran("m", "1", 2, 0.006, 0.002, 0.001)
    statistics.ran("m", "1", 1, 0.001, 0.001, 0.0)
    slow = Outcome(decode=0.003, queue=0.001, decoder_wait=0.002, infer=0.002, post=0.001)
    quick = Outcome(decode=0.001, queue=0.002, infer=0.004)
    statistics.answered("m", "1", [slow, quick], 0.020)
    statistics.answered("m", "1", [quick, Outcome(refusal=Refusal("undecodable_image", "no"))], 0.010)
    statistics.refused("m", "1", 0.5)
    counts = statistics.of("m", "1")
    assert (counts.inferences, counts.executions, counts.last_ms) == (3, 3, 12_500)
    assert (counts.success.count, counts.success.ns) == (2, 30_000_000)
    assert (counts.fail.count, counts.fail.ns) == (1, 500_000_000)
    assert (counts.queue.count, counts.queue.ns) == (2, 5_000_000)
    assert (counts.decode.ns, counts.infer.ns, counts.post.ns) == (4_000_000, 6_000_000, 1_000_000)
    assert sorted(counts.batches) == [1, 2]
    assert (counts.batches[2].infer.count, counts.batches[2].decode.ns) == (2, 10_000_000)
    assert statistics.of("other", "1").success.count == 0


# --- packing ---------------------------------------------------------------------------------------------------


@given(st.binary(max_size=2000), st.sampled_from(packing.NAMES))
def test_what_is_packed_is_unpacked(data: bytes, encoding: str) -> None:
    assert packing.unpacked(packing.packed(data, encoding), encoding, 2000) == data


def test_the_libraries_of_others_are_understood() -> None:
    data = b"squint" * 99
    assert packing.unpacked(gzip.compress(data), "gzip", 1000) == data
    assert packing.unpacked(zlib.compress(data), "deflate", 1000) == data
    bare = zlib.compressobj(9, zlib.DEFLATED, -15)
    assert packing.unpacked(bare.compress(data) + bare.flush(), "deflate", 1000) == data
    assert gzip.decompress(packing.packed(data, "gzip")) == data
    assert zlib.decompress(packing.packed(data, "deflate")) == data


@pytest.mark.parametrize(
    ("data", "encoding", "code"),
    [
        (gzip.compress(bytes(10_000_000)), "gzip", "body_too_large"),
        (zlib.compress(bytes(10_000_000)), "deflate", "body_too_large"),
        (gzip.compress(b"x")[:-3], "gzip", "bad_request"),
        (gzip.compress(b"x") + b"more", "gzip", "bad_request"),
        (b"", "gzip", "bad_request"),
        (b"nothing of the kind", "gzip", "bad_request"),
        (b"nothing of the kind", "deflate", "bad_request"),
        (b"x", "br", "unsupported_media_type"),
    ],
)
def test_bodies_that_are_not_unpacked(data: bytes, encoding: str, code: str) -> None:
    with pytest.raises(Refusal) as raised:
        packing.unpacked(data, encoding, 1000)
    assert raised.value.code == code


@pytest.mark.parametrize(
    ("header", "encoding"),
    [
        (None, ""),
        ("", ""),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate, br", "gzip"),
        ("br, deflate;q=0.5", "deflate"),
        ("gzip;q=0, deflate", "deflate"),
        ("GZIP", "gzip"),
        ("identity", ""),
        ("gzip;q=0", ""),
    ],
)
def test_the_encoding_of_an_answer(header: str | None, encoding: str) -> None:
    assert packing.accepted(header) == encoding


# --- statuses --------------------------------------------------------------------------------------------------


def test_statuses_as_triton_has_them() -> None:
    assert status.triton(Refusal("overloaded", "")) == status.triton(Refusal("rate_limited", "")) == 503
    assert status.triton(Refusal("starting", "")) == 400
    assert status.triton(Refusal("unknown_model", "")) == 404
    assert {status.triton(Refusal(code, "")) for code in STATUS} <= {400, 401, 403, 404, 405, 499, 500, 503}
    assert status.triton(Refusal("undecodable_image", "")) == status.triton(Refusal("image_too_large", "")) == 400
