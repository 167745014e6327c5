"""Decoding on the device, here the CPU in its place: every answer and every refusal is as it is without."""

from __future__ import annotations

import asyncio
import io
import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.e2e import images
from tests.e2e.http import Connection
from tests.e2e.service import Service

SIDE = 224
BECOMES_HANG_LOCKED = (253, 1, 6)
"""As a JPEG: a colour that has the fake stand still."""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with Service(tmp_path, "--decode-on", "device", "--decoders", "2", "--fake-batch-ms", "5") as running:
        yield running


def jpeg(colour: images.Colour, width: int = 90, height: int = 60, **options: object) -> bytes:
    body = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(body, "JPEG", quality=100, **options)
    return body.getvalue()


def grey(number: int) -> images.Colour:
    """One that JPEG keeps exactly."""
    return (number, number, number)


def ask(service: Service, bodies: list[bytes]) -> list[tuple[int, int | str]]:
    """All at once: status, and class or code."""

    async def one(body: bytes) -> tuple[int, int | str]:
        connection = Connection(service.port)
        try:
            reply = await connection.request("POST", "/classify", body)
            answer = json.loads(reply.body)
            return reply.status, answer["predictions"][0]["index"] if reply.status == 200 else answer["code"]
        finally:
            await connection.close()

    async def everyone() -> list[tuple[int, int | str]]:
        return list(await asyncio.gather(*(one(body) for body in bodies)))

    return asyncio.run(everyone())


def classes(service: Service) -> int:
    models = json.loads(service.request("GET", "/v1/models").body)["models"]
    return len(next(one for one in models if one["task"] == "classify")["labels"])


def coded(service: Service) -> bool:
    """Whether workers have the library."""
    return any("_ext.so" in Path(f"/proc/{pid}/maps").read_text() for pid in service.pids("worker"))


def test_answers_and_refusals_are_those_of_a_decoder(service: Service) -> None:
    assert coded(service) and service.log_lines("decoding_on_device")
    count = classes(service)
    wanted: dict[bytes, tuple[int, int | str]] = {}
    for number in range(0, 240, 6):
        right = (200, images.expected_index(grey(number), count))
        wanted[jpeg(grey(number), progressive=number % 4 == 0)] = right
        wanted[images.png(grey(number))] = right
        wanted[jpeg(grey(number), 130 + number, 70)] = right
    whole = jpeg(grey(77), 300, 200)
    tables, frame = whole.index(b"\xff\xdb"), whole.index(b"\xff\xc0")
    wanted |= {
        whole[:tables] + whole[frame:]: (422, "undecodable_image"),
        whole[:-20]: (422, "undecodable_image"),
        jpeg(grey(9), 17_000, 8): (413, "image_too_large"),
        b"nonsense": (415, "unsupported_media_type"),
    }
    bodies = list(wanted)
    random.Random(1).shuffle(bodies)
    assert ask(service, bodies) == [wanted[body] for body in bodies]


def test_a_jpeg_that_kills_a_worker_harms_only_itself(service: Service) -> None:
    count = classes(service)
    killer = jpeg(BECOMES_HANG_LOCKED, subsampling=0)
    assert np.asarray(Image.open(io.BytesIO(killer)))[30, 45].tolist() == [254, 1, 6]
    greys = [grey(number) for number in range(0, 240, 10)]
    found = ask(service, [killer, *(jpeg(colour) for colour in greys)])
    assert found[0][0] == 422
    assert found[1:] == [(200, images.expected_index(colour, count)) for colour in greys]


def test_it_is_off_by_default_and_needs_a_gpu(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        assert ask(service, [jpeg(grey(50))])[0][0] == 200
        assert not coded(service)
    refused = Service(tmp_path, "--decode-on", "device", fake=False)
    refused.start()
    assert refused.process is not None and refused.process.wait(30) != 0
    assert "--decode-on device: expected --devices cuda:N with it" in refused.log_text()
