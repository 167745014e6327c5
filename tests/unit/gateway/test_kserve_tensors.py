"""The codec of tensors: what goes in comes out, and nothing that is not right goes in."""

from __future__ import annotations

import base64
import json
import struct
from array import array
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.config import Limits
from service.dispatcher.tickets import Tensor
from service.errors import Refusal
from service.gateway.kserve import message, tensors
from service.gateway.kserve.infer import Answer, Asked
from service.gateway.kserve.outputs import Wanted
from service.gateway.kserve.tensors import Output

LIMITS = Limits(images=4, side=64, pixels=2000, body_bytes=20_000)
FILES = st.lists(st.binary(max_size=40), min_size=1, max_size=4)


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(value).encode())


@given(FILES)
def test_elements_survive_the_binary_form(files: list[bytes]) -> None:
    data = tensors.join(files)
    assert [bytes(one) for one in tensors.split(memoryview(data))] == files
    assert tensors.images_of_bytes([len(files)], tensors.split(memoryview(data)), LIMITS) == files


@given(FILES, st.integers(1, 200))
def test_cut_binary_data_are_refused_or_fewer(files: list[bytes], cut: int) -> None:
    data = tensors.join(files)
    try:
        found = tensors.split(memoryview(data)[:-cut])
    except Refusal as refusal:
        assert refusal.code == "bad_request"
    else:
        assert [bytes(one) for one in found] == files[: len(found)]
        assert len(found) < len(files)


@given(st.binary(max_size=60))
def test_any_bytes_are_elements_or_refused(data: bytes) -> None:
    try:
        found = tensors.split(memoryview(data))
    except Refusal as refusal:
        assert refusal.code == "bad_request"
    else:
        assert tensors.join(bytes(one) for one in found) == data


@given(FILES, st.booleans(), st.booleans())
def test_files_in_json_are_base64(files: list[bytes], objects: bool, nested: bool) -> None:
    texts = [base64.b64encode(file).decode() for file in files]
    elements: list[Any] = [{"b64": text} for text in texts] if objects else list(texts)
    if nested:
        shape, data = [len(files), 1], raw([[one] for one in elements])
    else:
        shape, data = [len(files)], raw(elements)
    assert tensors.images_of_json("BYTES", shape, data, LIMITS) == files


@st.composite
def pixels(draw: st.DrawFn) -> tuple[list[int], bytes]:
    shape = [draw(st.integers(1, 3)), draw(st.integers(1, 5)), draw(st.integers(1, 5)), 3]
    size = shape[0] * shape[1] * shape[2] * 3
    return shape, draw(st.binary(min_size=size, max_size=size))


def nested(values: list[Any], shape: list[int]) -> Any:
    if len(shape) == 1:
        return values
    step = len(values) // shape[0]
    return [nested(values[at : at + step], shape[1:]) for at in range(0, len(values), step)]


@given(pixels(), st.booleans())
def test_pixels_in_json_flat_or_nested_are_those_in_binary_form(given: tuple[list[int], bytes], flat: bool) -> None:
    shape, data = given
    values = list(data)
    found = tensors.images_of_json("UINT8", shape, raw(values if flat else nested(values, shape)), LIMITS)
    expected = tensors.images_of_numbers("UINT8", shape, memoryview(data), LIMITS)
    assert [bytes(one.data) for one in found if isinstance(one, Tensor)] == [
        bytes(one.data) for one in expected if isinstance(one, Tensor)
    ]
    assert len(found) == shape[0]


@given(pixels())
def test_floats_in_json_are_those_in_binary_form(given: tuple[list[int], bytes]) -> None:
    shape, data = given
    values = array("f", [value / 255 for value in data])
    found = tensors.images_of_json("FP32", shape, raw(values.tolist()), LIMITS)
    (first, *_) = found
    assert isinstance(first, Tensor)
    assert (first.kind, first.height, first.width) == ("float32", shape[1], shape[2])
    assert b"".join(bytes(one.data) for one in found if isinstance(one, Tensor)) == values.tobytes()


def test_an_image_without_a_batch_axis() -> None:
    (image,) = tensors.images_of_numbers("UINT8", [2, 3, 3], memoryview(bytes(18)), LIMITS)
    assert isinstance(image, Tensor)
    assert (image.height, image.width) == (2, 3)


@pytest.mark.parametrize(
    ("datatype", "shape", "size", "code"),
    [
        ("UINT8", [1, 2, 2, 4], 16, "bad_request"),
        ("UINT8", [2, 2], 4, "bad_request"),
        ("UINT8", [1, 2, 2, 3], 11, "bad_request"),
        ("UINT8", [1, 2, 2, 3], 13, "bad_request"),
        ("UINT8", [0, 2, 2, 3], 0, "bad_request"),
        ("UINT8", [5, 1, 1, 3], 15, "bad_request"),
        ("UINT8", [1, 0, 2, 3], 0, "bad_request"),
        ("UINT8", [1, 65, 1, 3], 195, "image_too_large"),
        ("UINT8", [1, 50, 50, 3], 7500, "image_too_large"),
        ("FP32", [1, 44, 44, 3], 23_232, "body_too_large"),
        ("FP16", [1, 2, 2, 3], 24, "bad_request"),
        ("INT64", [1, 2, 2, 3], 96, "bad_request"),
    ],
)
def test_shapes_that_are_refused(datatype: str, shape: list[int], size: int, code: str) -> None:
    with pytest.raises(Refusal) as raised:
        tensors.images_of_numbers(datatype, shape, memoryview(bytes(size)), LIMITS)
    assert raised.value.code == code


@pytest.mark.parametrize(
    ("datatype", "shape", "data"),
    [
        ("UINT8", [1, 1, 1, 3], [0, 1]),
        ("UINT8", [1, 1, 1, 3], [0, 1, 256]),
        ("UINT8", [1, 1, 1, 3], [0, 1, -1]),
        ("UINT8", [1, 1, 1, 3], [0, 1, 0.5]),
        ("UINT8", [1, 1, 1, 3], ["a", "b", "c"]),
        ("UINT8", [1, 1, 1, 3], [[0, 1], 2]),
        ("UINT8", [1, 1, 1, 3], [[[[[0, 1, 2]]]]]),
        ("UINT8", [1, 1, 1, 3], 7),
        ("FP32", [1, 1, 1, 3], [0.0, None, 1.0]),
        ("BYTES", [1], ["not base64!"]),
        ("BYTES", [2], ["QUJD"]),
        ("BYTES", [1], [7]),
        ("BYTES", [1, 1, 1], ["QUJD"]),
        ("BYTES", [1], [{"b65": "QUJD"}]),
    ],
)
def test_json_that_does_not_fit(datatype: str, shape: list[int], data: Any) -> None:
    with pytest.raises(Refusal) as raised:
        tensors.images_of_json(datatype, shape, raw(data), LIMITS)
    assert raised.value.code == "bad_request"


def test_numbers_one_by_one_are_bounded() -> None:
    limits = Limits()
    with pytest.raises(Refusal) as raised:
        tensors.images_of_json("UINT8", [1, 600, 600, 3], raw([0]), limits)
    assert raised.value.code == "body_too_large"
    with pytest.raises(Refusal) as raised:
        tensors.images_of_json("UINT8", [1, 1, 1, 3], raw([0] * 100), limits)
    assert raised.value.code == "bad_request"
    with pytest.raises(Refusal, match="more than the 3"):
        tensors.images_of_json("UINT8", [1, 1, 1, 3], raw([0] * 10_000), limits)


@pytest.mark.parametrize(
    ("datatype", "values", "packed"),
    [
        ("FP32", [0.5, -1.0], struct.pack("<2f", 0.5, -1.0)),
        ("INT32", [-1, 7], struct.pack("<2i", -1, 7)),
        ("INT64", [-1, 1 << 40], struct.pack("<2q", -1, 1 << 40)),
        ("BYTES", [b"ab", b""], b"\x02\0\0\0ab\0\0\0\0"),
    ],
)
def test_outputs_in_both_forms(datatype: str, values: list[Any], packed: bytes) -> None:
    output = Output("x", datatype, (2,), values)
    assert tensors.binary(output) == packed
    assert tensors.listed(output) == [value.decode() if isinstance(value, bytes) else value for value in values]
    if datatype != "BYTES":
        assert tensors.listed(Output("x", datatype, (2,), packed)) == values
        assert tensors.binary(Output("x", datatype, (2,), packed)) == packed


def test_bytes_that_are_no_text_are_base64_in_json() -> None:
    assert tensors.listed(Output("x", "BYTES", (1,), [b"\xff\xd8"])) == [base64.b64encode(b"\xff\xd8").decode()]


# --- whole requests and answers --------------------------------------------------------------------------------


def request(**fields: Any) -> bytes:
    tensor = {"name": "images", "shape": [1], "datatype": "BYTES", "data": ["QUJD"]}
    return json.dumps({"inputs": [tensor]} | fields).encode()


def test_a_request_as_json() -> None:
    body = request(id="7", parameters={"top_k": 3, "binary_data_output": True}, outputs=[{"name": "scores"}])
    read = message.read(body, None, LIMITS)
    assert read.asked.images == [b"ABC"]
    assert read.asked.parameters["top_k"] == 3
    assert read.asked.outputs == [Wanted("scores")]
    assert (read.id, read.binary) == ("7", True)


@given(st.binary(min_size=1, max_size=200))
def test_a_body_that_is_one_image(file: bytes) -> None:
    read = message.read(file, 0, LIMITS)
    assert read.asked.images == [file]
    assert read.binary


@given(st.binary(max_size=300), st.none() | st.integers(0, 400))
def test_any_body_is_a_request_or_refused(body: bytes, json_bytes: int | None) -> None:
    try:
        message.read(body, json_bytes, LIMITS)
    except Refusal as refusal:
        assert refusal.status in (400, 413)
        assert refusal.message.isprintable()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"inputs": []}',
        b'{"inputs": 5}',
        b"[" * 100_000,
        b'{"inputs": [{"name": "images", "shape": [1], "datatype": "BYTES"}]}',
        b'{"inputs": [{"name": "images", "shape": [-1], "datatype": "BYTES", "data": []}]}',
        b'{"inputs": [{"name": "images", "shape": [1], "datatype": "BYTES", "data": ' + b"[" * 50_000,
        request(parameters={"x": {"deep": [1]}}),
        request(parameters={str(number): 1 for number in range(65)}),
        request(id="x" * 257),
        request(outputs=[{"name": "scores", "parameters": {"classification": -1}}]),
        request(outputs=[{"name": "scores", "parameters": {"shared_memory_region": "r"}}]),
        request(inputs=[{"name": "pictures", "shape": [1], "datatype": "BYTES", "data": ["QUJD"]}]),
        request(
            inputs=[{"name": "images", "shape": [1], "datatype": "BYTES", "parameters": {"shared_memory_region": "r"}}]
        ),
    ],
)
def test_requests_that_are_refused(body: bytes) -> None:
    with pytest.raises(Refusal) as raised:
        message.read(body, None, LIMITS)
    assert raised.value.code == "bad_request"
    assert len(raised.value.message) < 400


@pytest.mark.parametrize(("size", "rest"), [(7, b"\x03\0\0\0ABCD"), (9, b"\x03\0\0\0ABC"), (True, b"A"), ("8", b"ABC")])
def test_binary_data_of_another_size_than_was_said(size: Any, rest: bytes) -> None:
    tensor = {"name": "images", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": size}}
    head = json.dumps({"inputs": [tensor]}).encode()
    with pytest.raises(Refusal):
        message.read(head + rest, len(head), LIMITS)


def test_binary_data_that_nobody_said() -> None:
    head = request()
    with pytest.raises(Refusal):
        message.read(head + b"more", len(head), LIMITS)


@given(st.lists(st.sampled_from([None, True, False]), min_size=3, max_size=3), st.booleans())
def test_answers_mix_both_forms(forms: list[bool | None], default: bool) -> None:
    outputs = [
        Output("a", "FP32", (1, 2), [0.25, 0.5]),
        Output("b", "BYTES", (1, 1), [b"star"]),
        Output("c", "INT32", (1, 0), []),
    ]
    wanted = [Wanted(output.name, binary=form) for output, form in zip(outputs, forms, strict=True)]
    read = message.Read(Asked([b"ABC"], outputs=wanted), "id-1", default)
    answer = Answer("m", "1", {"level": "full"}, outputs)
    body, json_bytes = message.written(answer, read)
    head = json.loads(body[:json_bytes])
    assert (head["model_name"], head["model_version"], head["id"]) == ("m", "1", "id-1")
    assert head["parameters"] == {"level": "full"}
    at = json_bytes if json_bytes is not None else len(body)
    for output, form, told in zip(outputs, forms, head["outputs"], strict=True):
        assert (told["name"], told["datatype"], tuple(told["shape"])) == (output.name, output.datatype, output.shape)
        if default if form is None else form:
            size = told["parameters"]["binary_data_size"]
            assert body[at : at + size] == tensors.binary(output)
            at += size
        else:
            assert told["data"] == tensors.listed(output)
    assert at == len(body)
