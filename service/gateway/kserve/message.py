"""An inference of the protocol in its HTTP form: JSON, with binary tensors behind it; or one image and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from service.config import Limits
from service.dispatcher.tickets import Image
from service.errors import Refusal
from service.gateway.kserve import tensors
from service.gateway.kserve.infer import Answer, Asked
from service.gateway.kserve.outputs import Wanted
from service.gateway.kserve.tensors import BYTES, INPUT

MAX_PARAMETERS, MAX_TEXT = 64, 4096
MAX_CLASSES = 1000

_Name = Annotated[str, msgspec.Meta(max_length=256)]
_Value = bool | int | float | Annotated[str, msgspec.Meta(max_length=MAX_TEXT)] | None
_Parameters = Annotated[dict[_Name, _Value], msgspec.Meta(max_length=MAX_PARAMETERS)]
_Side = Annotated[int, msgspec.Meta(ge=0, le=1 << 31)]
_BINARY_SIZE = "binary_data_size"
_SHARED = "shared_memory_region"


class _Input(msgspec.Struct):
    name: _Name
    shape: Annotated[list[_Side], msgspec.Meta(min_length=1, max_length=8)]
    datatype: Annotated[str, msgspec.Meta(max_length=16)]
    parameters: _Parameters = {}
    data: msgspec.Raw = msgspec.Raw()


class _Output(msgspec.Struct):
    name: _Name
    parameters: _Parameters = {}


class _Request(msgspec.Struct):
    inputs: Annotated[list[_Input], msgspec.Meta(max_length=16)]
    id: _Name = ""
    parameters: _Parameters = {}
    outputs: Annotated[list[_Output], msgspec.Meta(max_length=64)] = []


_decoder = msgspec.json.Decoder(_Request)
_encoder = msgspec.json.Encoder()


class Read(msgspec.Struct, frozen=True):
    """A request as it was read; `binary` says how outputs are written that do not say themselves."""

    asked: Asked
    id: str = ""
    binary: bool = False


def read(body: bytes | bytearray, json_bytes: int | None, limits: Limits) -> Read:
    """Read a request whose first `json_bytes` bytes are JSON (None: all of them; 0: the body is one image, and the
    outputs are wanted in binary form). Raises Refusal."""
    view = memoryview(body)
    if json_bytes == 0:
        return Read(Asked(tensors.images_of_bytes([1], [view], limits)), binary=True)
    if json_bytes is not None and json_bytes > len(view):
        raise Refusal("bad_request", "Inference-Header-Content-Length says more than the body holds")
    try:
        request = _decoder.decode(view[:json_bytes])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise Refusal("bad_request", f"the request is not as the protocol has it: {_reason(error)}") from None
    rest = view[len(view) if json_bytes is None else json_bytes :]
    asked = Asked(
        _images(request.inputs, rest, limits), request.parameters, [_wanted(output) for output in request.outputs]
    )
    return Read(asked, request.id, request.parameters.get("binary_data_output") is True)


def _reason(error: Exception) -> str:
    """What is wrong, as far as it says where; a parser's words for what is no JSON at all say less."""
    if isinstance(error, msgspec.ValidationError) and str(error).isprintable():
        return str(error)[:200]
    return "no JSON"


def _images(inputs: Sequence[_Input], rest: memoryview, limits: Limits) -> list[Image]:
    if len(inputs) != 1 or inputs[0].name != INPUT:
        raise Refusal("bad_request", f"the model has one input, {INPUT}")
    given = inputs[0]
    if _SHARED in given.parameters:
        raise Refusal("bad_request", "this server reads no memory of clients; send the data")
    size = given.parameters.get(_BINARY_SIZE)
    if size is None:
        if rest:
            raise Refusal("bad_request", f"binary data without a {_BINARY_SIZE}")
        return tensors.images_of_json(given.datatype, given.shape, given.data, limits)
    if isinstance(size, bool) or size != len(rest):
        raise Refusal("bad_request", f"{_BINARY_SIZE} differs from the {len(rest)} bytes behind the JSON")
    return images(given.datatype, given.shape, rest, limits)


def images(datatype: str, shape: Sequence[int], data: memoryview, limits: Limits) -> list[Image]:
    """The images of an input in binary form. Raises Refusal."""
    if datatype == BYTES:
        return tensors.images_of_bytes(shape, tensors.split(data), limits)
    return tensors.images_of_numbers(datatype, shape, data, limits)


def _wanted(output: _Output) -> Wanted:
    if _SHARED in output.parameters:
        raise Refusal("bad_request", "this server writes to no memory of clients")
    binary = output.parameters.get("binary_data")
    return Wanted(
        output.name, classes(output.parameters.get("classification")), None if binary is None else bool(binary)
    )


def classes(parameter: Any) -> int:
    """How many classes the parameter `classification` of an output asks for. Raises Refusal."""
    if parameter is None:
        return 0
    if isinstance(parameter, bool | str) or not 0 <= parameter <= MAX_CLASSES:
        raise Refusal("bad_request", f"classification is a number of classes, at most {MAX_CLASSES}")
    return int(parameter)


def written(answer: Answer, read: Read) -> tuple[bytes, int | None]:
    """The body of an answer, and how much of it is JSON; None when all is."""
    asked = {one.name: one.binary for one in read.asked.outputs}
    parts: list[bytes] = []
    described = []
    for output in answer.outputs:
        one: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": output.shape}
        binary = asked.get(output.name)
        if read.binary if binary is None else binary:
            parts.append(tensors.binary(output))
            one["parameters"] = {_BINARY_SIZE: len(parts[-1])}
        else:
            one["data"] = tensors.listed(output)
        described.append(one)
    whole: dict[str, Any] = {"model_name": answer.model, "model_version": answer.version}
    if read.id:
        whole["id"] = read.id
    whole |= {"parameters": answer.parameters, "outputs": described}
    head = _encoder.encode(whole)
    return (b"".join((head, *parts)), len(head)) if parts else (head, None)
