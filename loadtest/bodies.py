"""Request bodies: an image raw, in a form, in JSON, or as a KServe v2 tensor of bytes."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

ENCODINGS = ("raw", "multipart", "json", "kserve")
BOUNDARY = "squint-load-3b1f6a90c2d74e58"


@dataclass(frozen=True)
class Body:
    """The bytes of one request body, the headers that say what they are, and the kind of image inside."""

    data: bytes
    headers: tuple[tuple[str, str], ...]
    kind: str = ""


@dataclass(frozen=True)
class Kserve:
    """How a KServe v2 server names the tensor that takes an image, and the outputs that are asked for."""

    input: str = "image"
    shape: tuple[int, ...] = (1, 1)
    outputs: tuple[str, ...] = ()
    parameters: dict[str, Any] = field(default_factory=dict)


def encode(
    image: bytes, encoding: str = "raw", kind: str = "", *, name: str = "image", kserve: Kserve | None = None
) -> Body:
    """One body. `name` is the form's part or the JSON's key; `kserve` is for that encoding alone.

    Raises ValueError for an encoding that is not in ENCODINGS.
    """
    if encoding == "raw":
        return Body(image, (("Content-Type", _media_type(image)),), kind)
    if encoding == "multipart":
        return _form(image, name, kind)
    if encoding == "json":
        text = json.dumps({name: base64.b64encode(image).decode("ascii")})
        return Body(text.encode(), (("Content-Type", "application/json"),), kind)
    if encoding == "kserve":
        return _tensor(image, kserve or Kserve(), kind)
    raise ValueError(f"unknown encoding {encoding!r}: one of {', '.join(ENCODINGS)}")


def encode_all(images: Sequence[bytes], encoding: str = "raw", kind: str = "", **more: Any) -> list[Body]:
    """`encode` for several images of one kind."""
    return [encode(image, encoding, kind, **more) for image in images]


def _media_type(image: bytes) -> str:
    if image.startswith(b"\x89PNG"):
        return "image/png"
    return "image/webp" if image[:4] == b"RIFF" and image[8:12] == b"WEBP" else "image/jpeg"


def _form(image: bytes, name: str, kind: str) -> Body:
    head = (
        f"--{BOUNDARY}\r\n"
        f'Content-Disposition: form-data; name="{name}"; filename="image"\r\n'
        f"Content-Type: {_media_type(image)}\r\n\r\n"
    )
    data = head.encode() + image + f"\r\n--{BOUNDARY}--\r\n".encode()
    return Body(data, (("Content-Type", f"multipart/form-data; boundary={BOUNDARY}"),), kind)


def _tensor(image: bytes, kserve: Kserve, kind: str) -> Body:
    """The binary form: a JSON head, then one element of type BYTES, its length in front."""
    element = struct.pack("<I", len(image)) + image
    tensor = {
        "name": kserve.input,
        "shape": list(kserve.shape),
        "datatype": "BYTES",
        "parameters": {"binary_data_size": len(element)},
    }
    wanted: dict[str, Any] = {"inputs": [tensor]}
    if kserve.outputs:
        wanted["outputs"] = [{"name": output, "parameters": {"binary_data": False}} for output in kserve.outputs]
    if kserve.parameters:
        wanted["parameters"] = kserve.parameters
    head = json.dumps(wanted, separators=(",", ":")).encode()
    headers = (("Content-Type", "application/octet-stream"), ("Inference-Header-Content-Length", str(len(head))))
    return Body(head + element, headers, kind)
