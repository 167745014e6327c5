from __future__ import annotations

import base64
import json
import struct
from email.parser import BytesParser

import pytest

from loadtest import bodies
from loadtest.bodies import Kserve, encode

JPEG = b"\xff\xd8\xff\0picture"


def test_raw_is_the_image_with_its_type() -> None:
    assert encode(JPEG).data == JPEG
    assert encode(JPEG).headers == (("Content-Type", "image/jpeg"),)
    assert encode(b"\x89PNG...").headers == (("Content-Type", "image/png"),)
    assert encode(b"RIFF....WEBP").headers == (("Content-Type", "image/webp"),)


def test_multipart_can_be_parsed_again() -> None:
    body = encode(JPEG, "multipart", name="file")
    (name, value) = body.headers[0]
    whole = BytesParser().parsebytes(f"{name}: {value}\r\n\r\n".encode() + body.data)
    (part,) = [each for each in whole.walk() if not each.is_multipart()]
    assert part.get_payload(decode=True) == JPEG
    assert 'name="file"' in part["Content-Disposition"]


def test_json_holds_base64() -> None:
    assert base64.b64decode(json.loads(encode(JPEG, "json").data)["image"]) == JPEG


def test_kserve_has_a_head_and_one_element_of_bytes() -> None:
    body = encode(JPEG, "kserve", kserve=Kserve("IMAGE", (1, 1), ("TOP5",)))
    length = int(dict(body.headers)["Inference-Header-Content-Length"])
    head = json.loads(body.data[:length])
    assert head["inputs"] == [
        {"name": "IMAGE", "shape": [1, 1], "datatype": "BYTES", "parameters": {"binary_data_size": 4 + len(JPEG)}}
    ]
    assert head["outputs"][0]["name"] == "TOP5"
    assert body.data[length:] == struct.pack("<I", len(JPEG)) + JPEG


def test_an_unknown_encoding_is_an_error() -> None:
    with pytest.raises(ValueError, match="raw, multipart, json, kserve"):
        encode(JPEG, "yaml")


def test_the_kind_travels_with_every_body() -> None:
    assert [body.kind for body in bodies.encode_all([JPEG, JPEG], "json", "1mp")] == ["1mp", "1mp"]
