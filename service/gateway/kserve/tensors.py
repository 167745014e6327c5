"""Tensors as the KServe v2 protocol writes them, without numpy: in binary form, as JSON, and as the images they hold.

Binary numbers are little-endian and row by row; of BYTES each element is a length (4 bytes) and then as many bytes.
In JSON an element of BYTES is base64, as a string or as `{"b64": "..."}`: an image is no text.
"""

from __future__ import annotations

import base64
import binascii
import struct
from array import array
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Annotated, Any

import msgspec

from service.config import Limits
from service.dispatcher.tickets import Image, Tensor
from service.errors import Refusal
from service.wire.messages.decoder import Kind

INPUT = "images"
"""The one input of every model."""
KINDS: dict[str, Kind] = {"UINT8": "uint8", "FP32": "float32"}
"""Data types that hold pixels, as the decoders know them."""
ITEM_BYTES: dict[Kind, int] = {"uint8": 1, "float32": 4}
BYTES = "BYTES"

_CODES = {
    "BOOL": "B",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "FP32": "f",
    "FP64": "d",
}
"""Data types of outputs as `array` and memoryview spell them."""
MAX_NUMBERS = 1 << 20
"""Read one by one, of JSON or of typed elements; more would hold everybody up, and belong in binary form."""
_MAX_LETTERS = 64
"""Of JSON for one number, with what stands around it."""
_LENGTH = struct.Struct("<I")
_CHANNELS = 3
_MAX_DEPTH = 4


class Output(msgspec.Struct, frozen=True):
    """A tensor of an answer. `values` are its elements row by row, numbers or bytes; or all of it in binary form."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: list[Any] | bytes


# --- answers ---------------------------------------------------------------------------------------------------


def binary(output: Output) -> bytes:
    """The binary form of an output."""
    values = output.values
    if isinstance(values, bytes):
        return values
    if output.datatype == BYTES:
        return join(values)
    return array(_CODES[output.datatype], values).tobytes()


def listed(output: Output) -> list[Any]:
    """An output's elements for JSON; bytes that are no text as base64."""
    values = output.values
    if isinstance(values, bytes):
        numbers = array(_CODES[output.datatype], values).tolist()
        return [bool(value) for value in numbers] if output.datatype == "BOOL" else numbers
    return [_text(value) if isinstance(value, bytes) else value for value in values]


def join(elements: Iterable[bytes]) -> bytes:
    """Elements of BYTES in binary form."""
    return b"".join(part for element in elements for part in (_LENGTH.pack(len(element)), element))


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return base64.b64encode(value).decode("ascii")


# --- requests --------------------------------------------------------------------------------------------------


def split(data: memoryview) -> list[memoryview]:
    """The elements of BYTES in binary form. Raises Refusal."""
    elements, at = [], 0
    while at < len(data):
        begin = at + _LENGTH.size
        if begin > len(data):
            raise Refusal("bad_request", "the input's binary data ends within the length of an element")
        end = begin + _LENGTH.unpack_from(data, at)[0]
        if end > len(data):
            raise Refusal("bad_request", "an element of the input is longer than its binary data")
        elements.append(data[begin:end])
        at = end
    return elements


def images_of_bytes(shape: Sequence[int], elements: Sequence[bytes | memoryview], limits: Limits) -> list[Image]:
    """The encoded images of a BYTES input of shape [N] or [N, 1]. Raises Refusal."""
    if len(shape) not in (1, 2) or (len(shape) == 2 and shape[1] != 1):
        raise Refusal("bad_request", f"{INPUT} of BYTES has the shape [N]: N files, each JPEG, PNG or WebP")
    _check_count(shape[0], limits)
    if len(elements) != shape[0]:
        raise Refusal("bad_request", f"{INPUT} holds {len(elements)} elements; its shape says {shape[0]}")
    for element in elements:
        _check_size(len(element), limits)
    return [bytes(element) for element in elements]


def images_of_numbers(datatype: str, shape: Sequence[int], data: memoryview, limits: Limits) -> list[Image]:
    """The images of a UINT8 or FP32 input of shape [N, H, W, 3] or [H, W, 3], in binary form. Raises Refusal."""
    count, height, width = _placed(datatype, shape, limits)
    kind = KINDS[datatype]
    size = height * width * _CHANNELS * ITEM_BYTES[kind]
    if len(data) != count * size:
        raise Refusal("bad_request", f"{INPUT} holds {len(data)} bytes; its shape makes {count * size}")
    return [Tensor(data[at : at + size], kind, height, width) for at in range(0, count * size, size)]


def images_of_json(datatype: str, shape: Sequence[int], data: msgspec.Raw, limits: Limits) -> list[Image]:
    """The images of an input that came as JSON, its elements nested or flat. Raises Refusal."""
    if datatype == BYTES:
        return images_of_bytes(shape, [_decoded(element) for element in _elements(data, _Element)], limits)
    count = _check_numbers(datatype, shape, limits)
    raw = memoryview(data)
    if len(raw) > _MAX_LETTERS * count:
        raise Refusal("bad_request", f"{INPUT} holds more than the {count} numbers that its shape makes")
    return images_of_typed(datatype, shape, list(_elements(data, _Byte if datatype == "UINT8" else float)), limits)


def images_of_typed(datatype: str, shape: Sequence[int], numbers: Sequence[float], limits: Limits) -> list[Image]:
    """The images of a UINT8 or FP32 input whose elements came one by one. Raises Refusal."""
    count = _check_numbers(datatype, shape, limits)
    if len(numbers) != count:
        raise Refusal("bad_request", f"{INPUT} holds {len(numbers)} numbers; its shape makes {count}")
    try:
        values = array(_CODES[datatype], numbers)
    except (OverflowError, TypeError):
        raise Refusal("bad_request", f"an element of {INPUT} is beyond its data type") from None
    return images_of_numbers(datatype, shape, memoryview(values).cast("B"), limits)


def _check_numbers(datatype: str, shape: Sequence[int], limits: Limits) -> int:
    """How many numbers the shape makes; so many that reading them one by one is no waste. Raises Refusal."""
    count, height, width = _placed(datatype, shape, limits)
    numbers = count * height * width * _CHANNELS
    if numbers > MAX_NUMBERS:
        message = f"{INPUT} holds more than {MAX_NUMBERS} numbers; send them in binary form"
        raise Refusal("body_too_large", message)
    return numbers


def _placed(datatype: str, shape: Sequence[int], limits: Limits) -> tuple[int, int, int]:
    """How many images, and their height and width. Raises Refusal."""
    if datatype not in KINDS:
        raise Refusal("bad_request", f"{INPUT} is BYTES, UINT8 or FP32")
    if len(shape) not in (3, 4) or shape[-1] != _CHANNELS:
        raise Refusal("bad_request", f"{INPUT} of {datatype} has the shape [N, height, width, 3]")
    count = shape[0] if len(shape) == 4 else 1
    height, width = shape[-3], shape[-2]
    _check_count(count, limits)
    if height < 1 or width < 1:
        raise Refusal("bad_request", "an image has at least one pixel")
    if max(height, width) > limits.side:
        message = f"the image is {width}x{height}; a side may have {limits.side} pixels"
        raise Refusal("image_too_large", message)
    if height * width > limits.pixels:
        raise Refusal("image_too_large", f"the image is {width}x{height}; it may have {limits.pixels} pixels")
    _check_size(height * width * _CHANNELS * ITEM_BYTES[KINDS[datatype]], limits)
    return count, height, width


def _check_count(count: int, limits: Limits) -> None:
    if not 1 <= count <= limits.images:
        raise Refusal("bad_request", f"one request holds 1 to {limits.images} images")


def _check_size(size: int, limits: Limits) -> None:
    if size > limits.body_bytes:
        raise Refusal("body_too_large", f"an image is limited to {limits.body_bytes} bytes")


# --- JSON ------------------------------------------------------------------------------------------------------

_Byte = Annotated[int, msgspec.Meta(ge=0, le=255)]


class _Base64(msgspec.Struct):
    b64: str


_Element = str | _Base64


def _elements(data: msgspec.Raw, kind: Any) -> Iterable[Any]:
    """The elements of a JSON array row by row, however deep it is nested. Raises Refusal."""
    raw = bytes(data)
    depth = _depth(raw)
    if not 1 <= depth <= _MAX_DEPTH:
        raise Refusal("bad_request", f"the data of {INPUT} is an array, flat or nested as its shape")
    nested = kind
    for _ in range(depth):
        nested = list[nested]  # type: ignore[valid-type]
    try:
        found: Iterable[Any] = msgspec.json.decode(raw, type=nested)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise Refusal("bad_request", f"the data of {INPUT} does not fit its data type, or is no array") from None
    for _ in range(depth - 1):
        found = chain.from_iterable(found)
    return found


def _depth(raw: bytes) -> int:
    """How many arrays begin before the first element."""
    depth = 0
    for byte in raw[:64]:
        if byte == ord("["):
            depth += 1
        elif byte not in b" \t\r\n":
            break
    return depth


def _decoded(element: str | _Base64) -> bytes:
    text = element if isinstance(element, str) else element.b64
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refusal("bad_request", f"in JSON an element of {INPUT} is a file in base64") from None
