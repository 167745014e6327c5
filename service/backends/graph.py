"""An ONNX graph as a GPU wants it: its level fixed, and no step that only a CPU can do.

A graph takes its level as small integer inputs. Written into it as constants, they let a runtime that knows the batch
fold away the steps that the level leaves out, and all arithmetic on shapes: what is left has no branch, so that it can
be captured. ONNX Runtime's CUDA provider has no kernel that pads uint8 (says its docs/OperatorKernels.md), and our
networks pad the image before they make floats of it: the two change places.

All this is done on the message itself, which is a list of fields: no reader of ONNX is needed, and weights are copied
once, never parsed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from service.backends import message
from service.backends.message import MessageError

_GRAPH = 7
"""Of ModelProto."""
_NODE, _INITIALIZER, _INPUT, _VALUE_INFO = 1, 5, 11, 13
"""Of GraphProto."""
_NAME, _TYPE = 1, 2
"""Of ValueInfoProto."""
_TO_DIMENSIONS = (1, 2, 1)
"""From TypeProto by way of its tensor type and shape to each dimension."""
_PARAMETER = 2
"""Of a dimension: the name of one that is no number."""
_READS, _WRITES, _KIND, _ATTRIBUTE = 1, 2, 4, 5
"""Of NodeProto."""
_DIMS, _NUMBERS_ARE, _INT32_DATA, _TENSOR_NAME, _RAW_DATA = 1, 2, 5, 8, 9
"""Of TensorProto."""
_FLOAT, _UINT8, _INT64 = 1, 2, 7
"""Kinds of numbers."""
_TO = message.contents(1, b"to") + message.number(3, _FLOAT) + message.number(20, 2)
"""The attribute of a Cast to float: name, value, and that the value is an integer."""


class GraphError(ValueError):
    """The bytes are no ONNX graph, or not one with this input; one line."""


def with_level(graph: bytes, values: Mapping[str, NDArray[np.int64]]) -> bytes:
    """The graph of a model with these int64 vectors [n] in place of its inputs of the same names. Raises GraphError."""
    try:
        return b"".join(
            message.contents(_GRAPH, _rewritten(contents, values))
            if number == _GRAPH and contents is not None
            else bytes(raw)
            for number, raw, contents in message.fields(graph)
        )
    except MessageError as error:
        raise GraphError(str(error)) from None


def inputs(graph: bytes) -> list[str]:
    """The names of a graph's inputs. Raises GraphError."""
    try:
        return message.texts(graph, _GRAPH, _INPUT, _NAME)
    except MessageError as error:
        raise GraphError(str(error)) from None


def free_dimensions(graph: bytes) -> list[str]:
    """The names of those dimensions of a graph's inputs that are no numbers: the batch. Raises GraphError."""
    try:
        return sorted(set(message.texts(graph, _GRAPH, _INPUT, _TYPE, *_TO_DIMENSIONS, _PARAMETER)))
    except MessageError as error:
        raise GraphError(str(error)) from None


def _rewritten(graph: memoryview, values: Mapping[str, NDArray[np.int64]]) -> bytes:
    wanted = set(values)
    pads = _pads_of_pixels(graph)
    parts: list[bytes | memoryview] = []
    for number, raw, contents in message.fields(graph):
        if contents is None or number not in (_NODE, _INPUT, _VALUE_INFO):
            parts.append(raw)
        elif number == _INPUT and (known := message.texts(contents, _NAME)[:1]) and known[0] in wanted:
            wanted.remove(known[0])
        elif number == _NODE and (written := message.texts(contents, _WRITES)[:1]) and written[0] in pads:
            parts += _padding_floats(contents, pads[written[0]])
        elif number != _VALUE_INFO:  # what was said of values may be true no more; it is found out again
            parts.append(raw)
    if wanted:
        raise GraphError(f"the graph has no input {min(wanted)!r}")
    for name, value in values.items():
        parts.append(message.contents(_INITIALIZER, _tensor(name, value, _INT64)))
    return b"".join(parts)


def _pads_of_pixels(graph: memoryview) -> dict[str, int]:
    """The nodes that pad uint8 of which floats are made next, by what they write: the value that they pad with."""
    constants = {}
    for tensor in message.within(graph, _INITIALIZER):
        if message.numbers(tensor, _NUMBERS_ARE) == [_UINT8]:
            data = b"".join(bytes(one) for one in message.within(tensor, _RAW_DATA))
            found = list(data) or message.numbers(tensor, _INT32_DATA)
            if len(found) == 1:
                constants[message.texts(tensor, _TENSOR_NAME)[0]] = found[0]
    pads: dict[str, int] = {}
    others: set[str] = set()
    for node in message.within(graph, _NODE):
        kind, reads = message.texts(node, _KIND)[:1], message.texts(node, _READS)
        if kind == ["Pad"] and len(reads) == 3 and reads[2] in constants:
            pads[message.texts(node, _WRITES)[0]] = constants[reads[2]]
        if kind != ["Cast"] or _TO not in [bytes(one) for one in message.within(node, _ATTRIBUTE)]:
            others.update(reads)
    return {written: value for written, value in pads.items() if written not in others}


def _padding_floats(node: memoryview, value: int) -> Iterable[bytes]:
    """A node that pads uint8 as one that makes floats, their padding as a constant, and one that pads these."""
    data, *rest = message.texts(node, _READS)
    name = message.texts(node, _WRITES)[0]
    floats, padding = f"{name}.floats", f"{name}.padding"
    cast = _inputs([data]) + message.contents(_WRITES, floats.encode())
    cast += message.contents(_KIND, b"Cast") + message.contents(_ATTRIBUTE, _TO)
    pad = _inputs([floats, rest[0], padding])
    pad += b"".join(bytes(raw) for number, raw, _ in message.fields(node) if number != _READS)
    yield message.contents(_INITIALIZER, _tensor(padding, np.array(value, np.float32), _FLOAT))
    yield message.contents(_NODE, cast)
    yield message.contents(_NODE, pad)


def _inputs(names: Iterable[str]) -> bytes:
    return b"".join(message.contents(_READS, name.encode()) for name in names)


def _tensor(name: str, value: NDArray[np.int64] | NDArray[np.float32], kind: int) -> bytes:
    dims = b"".join(message.number(_DIMS, size) for size in value.shape)
    data = np.ascontiguousarray(value, value.dtype.newbyteorder("<")).tobytes()
    named = message.contents(_TENSOR_NAME, name.encode())
    return dims + message.number(_NUMBERS_ARE, kind) + named + message.contents(_RAW_DATA, data)
