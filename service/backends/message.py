"""Protobuf messages as lists of fields, read and written without knowing more about them.

Only as much as `graph.py` needs to change a graph, for which the service need not install a reader of ONNX.
"""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_LONGEST = 10
"""Bytes of a number."""


class MessageError(ValueError):
    """The bytes are no message; one line."""


def fields(message: bytes | memoryview) -> Iterator[tuple[int, memoryview, memoryview | None]]:
    """Each field of a message: its number, all its bytes, and of a field of bytes these alone. Raises MessageError."""
    view = memoryview(message)
    at = 0
    while at < len(view):
        begin = at
        tag, at = _read(view, at)
        kind = tag & 7
        contents = None
        if kind == VARINT:
            _, at = _read(view, at)
        elif kind in (FIXED64, FIXED32):
            at += 8 if kind == FIXED64 else 4
        elif kind == BYTES:
            length, at = _read(view, at)
            contents = view[at : at + length]
            at += length
        else:
            raise MessageError("the graph cannot be read")
        if at > len(view):
            raise MessageError("the graph is cut off")
        yield tag >> 3, view[begin:at], contents


def within(message: bytes | memoryview, first: int, *rest: int) -> Iterator[memoryview]:
    """The fields of bytes that a path of field numbers leads to. Raises MessageError."""
    for number, _, contents in fields(message):
        if number == first and contents is not None:
            if rest:
                yield from within(contents, *rest)
            else:
                yield contents


def texts(message: bytes | memoryview, *path: int) -> list[str]:
    """The same as texts."""
    return [bytes(one).decode(errors="replace") for one in within(message, *path)]


def numbers(message: bytes | memoryview, field: int) -> list[int]:
    """The values of a field of numbers, written one by one or together. Raises MessageError."""
    found = []
    for number, raw, contents in fields(message):
        if number != field:
            continue
        view, at = (raw, _read(raw, 0)[1]) if contents is None else (contents, 0)
        while at < len(view):
            value, at = _read(view, at)
            found.append(value)
    return found


def number(field: int, value: int) -> bytes:
    """A field that is a number, at least 0."""
    return _written(field << 3 | VARINT) + _written(value)


def contents(field: int, data: bytes) -> bytes:
    """A field of bytes: text, or a message in the message."""
    return _written(field << 3 | BYTES) + _written(len(data)) + data


def _written(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(view) and shift < 7 * _LONGEST:
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise MessageError("the graph is cut off")
