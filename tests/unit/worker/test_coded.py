"""JPEGs that are handed on to a device, here the CPU, against what a decoder makes of them itself.

What the library does on a GPU is checked there, by the same comparison: `make gpu-check`.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.manifest import Transform
from service.backends import arrays
from service.backends.base import BackendError
from service.config import Limits
from service.decoder import handing, image
from service.decoder.cost import TooHeavy
from service.errors import ConfigError, Refusal
from service.wire.messages.decoder import Coded, Fitting
from service.worker import codec as codec_module
from service.worker.codec import Codec
from service.worker.coded import Unpacker
from tests.unit.decoder.golden import GOLDEN
from tests.unit.decoder.scenes import Pixels, exif, noise, photo, save, with_exif, with_segment

LIMITS = Limits()
ROOM = 1 << 20
FILL = (114, 50, 200)
FITTINGS = [
    Fitting(fit="crop", height=224, width=224, fill=FILL),
    Fitting(fit="stretch", height=96, width=160, fill=FILL),
    Fitting(fit="letterbox", height=224, width=288, fill=FILL),
    Fitting(fit="crop", height=96, width=128, fill=FILL, keep=0.8, filter="bilinear"),
]
HERE = ("cmyk", "ycck", "rgb-coded")
"""Kinds that stay with the decoder."""
JPEGS = [name for name in GOLDEN if name.startswith("jpeg")]
STEPS = 2
"""Of 255, by which the two may differ: decoders resample in whole numbers."""


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec("cpu")


@pytest.fixture(params=["numpy", "torch"])
def unpacker(request: pytest.FixtureRequest, codec: Codec) -> Unpacker:
    """Each test with each of the two that compute."""
    if request.param == "torch":
        pytest.importorskip("torch")
        return Unpacker(codec, arrays.ByTorch("cpu"))
    return Unpacker(codec, arrays.on("cpu"))


def transform(fitting: Fitting) -> Transform:
    return Transform(fitting.fit, fitting.height, fitting.width, fitting.fill, fitting.keep, fitting.filter)


def handed(data: bytes, fitting: Fitting, room: int = ROOM) -> tuple[bytes, Coded] | None:
    """What a decoder hands on."""
    out = memoryview(bytearray(room))
    found = handing.hand_on(memoryview(data).toreadonly(), out, fitting, LIMITS)
    if found is None:
        return None
    geometry, coded = found
    assert geometry == image.decode(data, memoryview(bytearray(ROOM)), fitting, LIMITS)
    return bytes(out[: coded.size]), coded


def decoded(data: bytes, fitting: Fitting) -> Pixels:
    """What a decoder makes of it itself."""
    out = bytearray(fitting.height * fitting.width * 3)
    image.decode(data, memoryview(out), fitting, LIMITS)
    return np.frombuffer(out, np.uint8).reshape(fitting.height, fitting.width, 3)


def unpacked(unpacker: Unpacker, asked: list[tuple[bytes, Coded]], fitting: Fitting) -> list[Pixels]:
    """What becomes of a batch on the device."""
    canvases = [np.full((fitting.height, fitting.width, 3), 7, np.uint8) for _ in asked]
    found = unpacker.decode(asked)
    assert None not in found
    told = [(pixels, coded, canvas) for pixels, (_, coded), canvas in zip(found, asked, canvases, strict=True)]
    unpacker.fit(told, transform(fitting))
    return canvases


def assert_same(got: Pixels, expected: Pixels, what: str) -> None:
    difference = np.abs(got.astype(int) - expected)
    assert difference.max() <= STEPS, what
    assert difference.mean() <= 0.5, what


def compare(unpacker: Unpacker, bodies: dict[str, bytes]) -> None:
    for fitting in FITTINGS:
        asked = {name: handed(data, fitting) for name, data in bodies.items()}
        assert all(asked.values()), [name for name, one in asked.items() if one is None]
        got = unpacked(unpacker, [one for one in asked.values() if one], fitting)
        for (name, data), canvas in zip(bodies.items(), got, strict=True):
            assert_same(canvas, decoded(data, fitting), f"{name} {fitting}")


def test_every_golden_jpeg(unpacker: Unpacker) -> None:
    compare(unpacker, {name: GOLDEN[name]().data for name in JPEGS if not any(kind in name for kind in HERE)})


@pytest.mark.parametrize("size", [(500, 375), (375, 501), (224, 224), (50, 31)])
def test_photos_of_every_chroma_and_orientation(size: tuple[int, int], unpacker: Unpacker) -> None:
    scene = photo(*size)
    bodies = {}
    for number in range(8):
        data = save(scene, "JPEG", quality=90, subsampling=number % 3, progressive=bool(number & 4))
        bodies[f"orientation {number + 1}"] = with_exif(data, exif(number + 1))
    compare(unpacker, bodies)


def test_noise_shows_every_difference_of_the_kernels(unpacker: Unpacker) -> None:
    rng = np.random.default_rng(1)
    bodies = {}
    for number in range(12):
        width, height = (int(side) for side in rng.integers(1, 400, 2))
        grey = np.repeat((noise(width, height, 1, number) // 128) * 255, 3, axis=2)
        data = save(grey, "JPEG", quality=100, subsampling=0)
        bodies[f"{width}x{height}"] = with_exif(data, exif(1 + number % 8))
    compare(unpacker, bodies)


@pytest.mark.parametrize(
    "what",
    ["cmyk", "ycck", "RGB", "PNG", "WebP", "SOF1", "two luma tables", "no end", "shrunk", "adobe", "scan by scan"],
)
def test_stays_with_the_decoder(what: str) -> None:
    scene = photo(120, 80)
    plain = save(scene, "JPEG", quality=90)
    at = plain.index(b"\xff\xc0")
    bodies = {
        "cmyk": GOLDEN["jpeg-cmyk-adobe-inverted"],
        "ycck": GOLDEN["jpeg-ycck"],
        "RGB": GOLDEN["jpeg-rgb-coded"],
    }
    others = {
        "PNG": save(scene, "PNG"),
        "WebP": save(scene, "WEBP"),
        "SOF1": plain[: at + 1] + b"\xc1" + plain[at + 2 :],
        "two luma tables": plain[: at + 11] + b"\x24" + plain[at + 12 :],
        "no end": plain[: plain.rindex(b"\xff\xd9")],
        "shrunk": save(photo(1700, 1300), "JPEG", quality=20),
        "adobe": with_segment(plain, 0xEE, b"Adobe\0\x64\0\0\0\0\x00"),
    }
    # An interleaved scan that says it has one component: several scans would follow.
    scan = plain.index(b"\xff\xda")
    others["scan by scan"] = plain[: scan + 3] + b"\x08\x01\x01\x00\x00\x3f\x00" + plain[scan + 14 :]
    data = others[what] if what in others else bodies[what]().data
    assert handing.hand_on(data, memoryview(bytearray(ROOM)), FITTINGS[0], LIMITS) is None


def test_what_is_longer_than_the_slot_stays_with_the_decoder() -> None:
    data = save(photo(500, 375), "JPEG", quality=90)
    whole = handed(data, FITTINGS[0])
    assert whole is not None
    assert handed(data, FITTINGS[0], len(whole[0])) == whole
    assert handing.hand_on(data, memoryview(bytearray(len(whole[0]) - 1)), FITTINGS[0], LIMITS) is None


def test_only_what_makes_pixels_is_handed_on() -> None:
    plain = save(photo(60, 40), "JPEG")
    told = with_segment(with_exif(plain, exif(6)), 0xFE, b"a secret")
    found, bare = handed(told + b"trailing", FITTINGS[0]), handed(plain, FITTINGS[0])
    assert found and bare and found[0] == bare[0]
    assert found[1].turned and not bare[1].turned


def test_only_the_part_that_is_needed_is_decoded(codec: Codec) -> None:
    data = with_exif(save(photo(500, 375), "JPEG"), exif(6))
    found = handed(data, FITTINGS[0])
    assert found is not None
    (pixels,) = codec.decode([found])
    x0, y0, x1, y1 = found[1].part
    assert pixels is not None and pixels.shape == (y1 - y0, x1 - x0, 3)
    assert (y1 - y0, x1 - x0) == (375, 382)


def test_limits_and_refusals_are_the_decoders() -> None:
    out = memoryview(bytearray(ROOM))
    data = save(photo(300, 200), "JPEG")
    for body, limits, code in [
        (b"", LIMITS, "bad_request"),
        (b"nonsense", LIMITS, "unsupported_media_type"),
        (data[:200], LIMITS, "undecodable_image"),
        (data, Limits(jpeg_pixels=59_999), "image_too_large"),
        (data, Limits(side=299), "image_too_large"),
    ]:
        with pytest.raises(Refusal) as caught:
            handing.hand_on(body, out, FITTINGS[0], limits)
        assert caught.value.code == code
    with pytest.raises(TooHeavy):
        handing.hand_on(data, out, FITTINGS[0], LIMITS, most=1e-6)


def damaged(asked: tuple[bytes, Coded]) -> list[tuple[bytes, Coded]]:
    """Ways in which an image can turn out to be none."""
    data, coded = asked
    told = {name: getattr(coded, name) for name in Coded.__struct_fields__}
    return [
        (data[: len(data) // 2], coded),
        (data[:100], coded),
        (b"", coded),
        (b"\xff\xd8\xff\xe0 nonsense", coded),
        (save(photo(9, 9), "PNG"), coded),
        (save(photo(1000, 1000), "JPEG"), coded),
        (data, Coded(**(told | {"width": coded.width + 1}))),
    ]


def test_what_the_library_refuses_costs_its_neighbours_nothing(unpacker: Unpacker) -> None:
    fitting = FITTINGS[0]
    good = handed(save(photo(500, 375), "JPEG"), fitting)
    assert good is not None
    bad = damaged(good)
    asked = [item for one in bad for item in (good, one)]
    found = unpacker.decode(asked)
    assert [one is None for one in found] == [False, True] * len(bad)
    told = [(pixels, good[1], np.empty((224, 224, 3), np.uint8)) for pixels in found[::2]]
    unpacker.fit(told, transform(fitting))
    for _, _, canvas in told:
        assert_same(canvas, decoded(save(photo(500, 375), "JPEG"), fitting), "neighbour")


def test_refused_images_are_not_the_devices_fault_until_it_decodes_none(
    codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = handed(save(photo(50, 37), "JPEG"), FITTINGS[0])
    assert good is not None
    unpacker = Unpacker(codec, arrays.on("cpu"))
    assert unpacker.decode([damaged(good)[0]]) == [None]
    monkeypatch.setattr(codec, "_decoded", lambda streams: [None] * len(streams))
    assert unpacker.decode([good]) == [None]  # it was well a moment ago
    unpacker = Unpacker(codec, arrays.on("cpu"))
    with pytest.raises(BackendError) as caught:
        unpacker.decode([good])
    assert caught.value.kind == "fatal"


def test_a_part_that_does_not_hold_what_is_read_fails(codec: Codec) -> None:
    """As only a decoder could ask for that has been taken over."""
    good = handed(save(photo(500, 375), "JPEG"), FITTINGS[0])
    assert good is not None
    data, coded = good
    told = {name: getattr(coded, name) for name in Coded.__struct_fields__}
    less = Coded(**(told | {"part": (200, 100, 300, 200)}))
    unpacker = Unpacker(codec, arrays.on("cpu"))
    (pixels,) = unpacker.decode([(data, less)])
    with pytest.raises(BackendError) as caught:
        unpacker.fit([(pixels, less, np.empty((224, 224, 3), np.uint8))], transform(FITTINGS[0]))
    assert caught.value.kind == "batch"


def test_says_in_one_line_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/dev/nvidia0").exists():
        with pytest.raises(ConfigError, match=r"^--decode-on device: nvI?[^\n]*$"):
            Codec("cuda:0")
    monkeypatch.setattr(codec_module, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="install nvidia-nvimgcodec-cu13"):
        Codec("cpu")


def test_of_the_librarys_readers_one_is_loaded() -> None:
    """And it says nothing, whatever it is shown."""
    script = (
        "from service.worker.codec import Codec\n"
        "codec = Codec('cpu')\n"
        "found = codec._decoded([codec._library.CodeStream(open('/dev/stdin', 'rb').read())])\n"
        "print(found, *{line.split()[-1] for line in open('/proc/self/maps') if '_ext.so' in line})\n"
    )
    body = io.BytesIO()
    Image.fromarray(photo(90, 60)).save(body, "JPEG")
    data = body.getvalue()[:-500]
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=data,
        capture_output=True,
        check=True,
        env=os.environ | {"PYNVIMGCODEC_VERBOSITY": "0"},
    )
    assert done.stderr == b""
    assert re.fullmatch(rb"\[None\] \S+/libjpeg_turbo_ext\.so\S*\n", done.stdout)
