"""Decoded pixels and fitted pixels against the policy of docs/images.md."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from PIL import Image

from service.config import Limits
from service.decoder import headers, image
from service.errors import Refusal
from service.wire.messages.decoder import Fitting, Geometry
from tests.unit.decoder.golden import GOLDEN, upright
from tests.unit.decoder.own import jpeg_decoder as jpeg_decoder
from tests.unit.decoder.scenes import Pixels, exif, jpeg_header, jpeg_scan, noise, photo, save, with_chunk, with_exif

pytestmark = pytest.mark.usefixtures("jpeg_decoder")

LIMITS = Limits()
FILL = (114, 50, 200)
FITTINGS = [
    Fitting(fit="crop", height=224, width=224, fill=FILL),
    Fitting(fit="stretch", height=96, width=160, fill=FILL),
    Fitting(fit="letterbox", height=224, width=288, fill=FILL),
    Fitting(fit="crop", height=96, width=128, fill=FILL, keep=0.8, filter="bilinear"),
]
RESAMPLINGS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def fitted(data: bytes, fitting: Fitting, limits: Limits = LIMITS) -> tuple[Pixels, Geometry]:
    room = fitting.height * fitting.width * 3
    out = memoryview(bytearray(b"\xaa" * (room + 7)))
    geometry = image.decode(memoryview(data).toreadonly(), out, fitting, limits)
    assert bytes(out[room:]) == b"\xaa" * 7
    return np.frombuffer(out, np.uint8, room).reshape(fitting.height, fitting.width, 3), geometry


def reference(displayed: Pixels, fitting: Fitting, geometry: Geometry) -> Pixels:
    """One resample by Pillow straight from the source box, computed here anew."""
    height, width = displayed.shape[:2]
    whole = Image.fromarray(displayed)
    size, box = (fitting.width, fitting.height), (0.0, 0.0, float(width), float(height))
    left = top = 0
    if fitting.fit == "crop":
        scale = max(fitting.width / width, fitting.height / height)
        half = [min(width, fitting.width / scale) / 2, min(height, fitting.height / scale) / 2]
        half = [side * fitting.keep for side in half]
        box = (width / 2 - half[0], height / 2 - half[1], width / 2 + half[0], height / 2 + half[1])
        assert geometry.box == pytest.approx(box)
    elif fitting.fit == "letterbox":
        scale = min(fitting.width / width, fitting.height / height)
        size = max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5))
        left, top = (fitting.width - size[0]) // 2, (fitting.height - size[1]) // 2
    result = np.empty((fitting.height, fitting.width, 3), np.uint8)
    result[:] = fitting.fill
    small = whole.resize(size, RESAMPLINGS[fitting.filter], box)
    result[top : top + size[1], left : left + size[0]] = np.asarray(small)
    return result


def assert_near(got: Pixels, expected: Pixels) -> None:
    difference = np.abs(got.astype(int) - expected)
    assert difference.mean() <= 0.5
    assert difference.max() <= 8


def assert_shrunk(got: Pixels, expected: Pixels) -> None:
    """What decoding at 1/2, 1/4 or 1/8 may change."""
    difference = np.abs(got.astype(int) - expected)
    assert difference.mean() <= 0.6
    assert difference.max() <= 16


def test_there_are_enough_kinds() -> None:
    assert len(GOLDEN) >= 60


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name: str) -> None:
    golden = GOLDEN[name]()
    got = image.pixels(golden.data, LIMITS)
    assert got.shape == golden.expected.shape
    assert np.abs(got.astype(int) - golden.expected).max() <= golden.tolerance
    for fitting in FITTINGS:
        small, geometry = fitted(golden.data, fitting)
        assert (geometry.height, geometry.width) == golden.expected.shape[:2]
        assert_near(small, reference(golden.expected, fitting, geometry))


@pytest.mark.parametrize("fitting", FITTINGS, ids=lambda fitting: fitting.fit)
@pytest.mark.parametrize("size", [(500, 375), (501, 375), (640, 480), (375, 501), (1280, 960), (224, 224), (50, 31)])
def test_resize_of_photos(size: tuple[int, int], fitting: Fitting) -> None:
    scene = photo(*size)
    for data in (save(scene, "JPEG", quality=90), save(scene, "PNG")):
        got, geometry = fitted(data, fitting)
        assert_near(got, reference(image.pixels(data, LIMITS), fitting, geometry))


@pytest.mark.parametrize("fitting", FITTINGS, ids=lambda fitting: fitting.fit)
def test_resize_of_hard_edges(fitting: Fitting) -> None:
    """Black and white noise: overshoot is clipped between the passes, in Pillow's order."""
    scene = np.repeat((noise(401, 299, 1) // 128) * 255, 3, axis=2)
    for orientation in (1, 6):
        data = with_exif(save(scene, "JPEG", quality=100, subsampling=0), exif(orientation))
        got, geometry = fitted(data, fitting)
        expected = reference(image.pixels(data, LIMITS), fitting, geometry)
        assert np.abs(got.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_fitted_pixels_and_geometry(orientation: int) -> None:
    scene = photo(300, 200)
    data = with_exif(save(scene, "JPEG", quality=95), exif(orientation))
    shown = upright(scene, orientation)
    for fitting in FITTINGS:
        got, geometry = fitted(data, fitting)
        assert (geometry.width, geometry.height) == (shown.shape[1], shown.shape[0])
        assert_near(
            got,
            reference(upright(image.pixels(save(scene, "JPEG", quality=95), LIMITS), orientation), fitting, geometry),
        )


@pytest.mark.parametrize("filter", ["bicubic", "bilinear"])
def test_to_keep_a_part_is_to_resize_and_crop(filter: Literal["bicubic", "bilinear"]) -> None:
    """Resize the short side to 256, cut the middle 224 x 224: as most classifiers were evaluated."""
    scene = photo(800, 512)
    steps = Image.fromarray(scene).resize((400, 256), RESAMPLINGS[filter]).crop((88, 16, 312, 240))
    fitting = Fitting(fit="crop", height=224, width=224, fill=FILL, keep=224 / 256, filter=filter)
    got, geometry = fitted(save(scene, "PNG"), fitting)
    assert np.abs(got.astype(int) - np.asarray(steps)).max() <= 1
    assert geometry.box == (176.0, 32.0, 624.0, 480.0)


@pytest.mark.parametrize("keep", [0.5, 1.0])
def test_stretch_keeps_a_part_of_each_side(keep: float) -> None:
    scene = photo(200, 100)
    fitting = Fitting(fit="stretch", height=50, width=50, fill=FILL, keep=keep)
    got, geometry = fitted(save(scene, "PNG"), fitting)
    box = (100 - 100 * keep, 50 - 50 * keep, 100 + 100 * keep, 50 + 50 * keep)
    assert geometry.box == box
    assert_near(got, np.asarray(Image.fromarray(scene).resize((50, 50), Image.Resampling.BICUBIC, box)))


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> Pixels:
    """A scene of more pixels than are decoded whole; PNGs of this size are averaged down first."""
    monkeypatch.setattr(image, "LARGE_PIXELS", 2_000_000)
    return np.asarray(Image.fromarray(photo(550, 375)).resize((2001, 1501), Image.Resampling.BICUBIC))


SMALL_FITTINGS = [
    Fitting(fit="crop", height=112, width=112, fill=FILL),
    Fitting(fit="stretch", height=90, width=120, fill=FILL),
    Fitting(fit="letterbox", height=112, width=144, fill=FILL),
]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_large_jpeg_is_shrunk_while_decoding(mode: str, large: Pixels) -> None:
    """By simplejpeg, and CMYK by Pillow."""
    data = with_exif(save(Image.fromarray(large).convert(mode), "JPEG", quality=90), exif(8))
    whole = image.pixels(data, LIMITS)
    for fitting in SMALL_FITTINGS:
        got, geometry = fitted(data, fitting)
        assert_shrunk(got, reference(whole, fitting, geometry))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_large_jpeg_of_odd_sides_in_every_orientation(orientation: int, large: Pixels) -> None:
    """A shrunk axis whose last pixel reaches beyond the image must not shift when it is flipped."""
    data = with_exif(save(large, "JPEG", quality=90), exif(orientation))
    got, geometry = fitted(data, SMALL_FITTINGS[2])
    assert_shrunk(got, reference(image.pixels(data, LIMITS), SMALL_FITTINGS[2], geometry))


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_large_png_is_resized_by_pillow(mode: str, large: Pixels) -> None:
    data = with_chunk(save(Image.fromarray(large).convert(mode), "PNG", compress_level=1), b"eXIf", exif(6))
    whole = image.pixels(data, LIMITS)
    for fitting in SMALL_FITTINGS:
        got, geometry = fitted(data, fitting)
        assert_near(got, reference(whole, fitting, geometry))


def test_without_the_fast_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError

    monkeypatch.setattr("simplejpeg.decode_jpeg", refuse)
    monkeypatch.setattr(image, "_webp_decode_rgb_into", None)
    for name, make in GOLDEN.items():
        if name.startswith(("jpeg", "webp")) and name != "webp-animated-offset":
            golden = make()
            got = image.pixels(golden.data, LIMITS)
            assert np.abs(got.astype(int) - golden.expected).max() <= golden.tolerance, name


def refusal(data: bytes, limits: Limits = LIMITS) -> Refusal:
    with pytest.raises(Refusal) as caught:
        fitted(data, FITTINGS[0], limits)
    return caught.value


def test_empty_body() -> None:
    assert (refusal(b"").code, refusal(b"").message) == ("bad_request", "empty body")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_every_cut_is_refused(kind: str) -> None:
    """Truncated means refused, whichever library looks."""
    data = save(photo(60, 40), kind)
    end = data.rindex(b"\xff\xd9") if kind == "JPEG" else len(data)
    for cut in [*range(1, end, 97), end - 1, end - 2, end - 9]:
        assert refusal(data[:cut]).code in ("undecodable_image", "unsupported_media_type")


def test_a_flipped_bit_in_a_png_is_refused() -> None:
    data = bytearray(save(photo(60, 40), "PNG"))
    data[len(data) // 2] ^= 4
    assert refusal(bytes(data)).code == "undecodable_image"


@pytest.mark.parametrize("precision", [12, 16])
def test_deep_jpeg_is_refused(precision: int) -> None:
    data = bytearray(save(photo(16, 16), "JPEG"))
    data[data.index(b"\xff\xc0") + 4] = precision
    assert refusal(bytes(data)).code == "undecodable_image"


def test_limits_are_the_operators() -> None:
    limits = Limits(pixels=100, jpeg_pixels=200, side=50)
    small, large, long = photo(10, 10), photo(15, 14), photo(51, 1)
    for kind in ("PNG", "WEBP"):
        fitted(save(small, kind), FITTINGS[0], limits)
        assert refusal(save(large, kind), limits).code == "image_too_large"
        assert refusal(save(long, kind), limits).code == "image_too_large"
    fitted(save(photo(14, 14), "JPEG"), FITTINGS[0], limits)
    assert refusal(save(large, "JPEG"), limits).code == "image_too_large"
    assert refusal(save(photo(14, 14), "JPEG", progressive=True), limits).code == "image_too_large"


def test_refusals_say_nothing_of_libraries() -> None:
    assert "16384 pixels" in refusal(jpeg_header(20000, 3) + jpeg_scan()).message
    assert refusal(b"\x89PNG\r\n\x1a\nnonsense").message == headers.corrupt().message


@pytest.mark.parametrize("error", [MemoryError, RecursionError, OSError, SyntaxError, ZeroDivisionError])
def test_whatever_a_library_raises_is_one_refusal(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error("a path: /secret")

    monkeypatch.setattr(image, "read", fail)
    caught = refusal(save(photo(9, 9), "PNG"))
    assert (caught.code, caught.message) == ("undecodable_image", headers.corrupt().message)
    with pytest.raises(Refusal):
        image.pixels(save(photo(9, 9), "PNG"), LIMITS)


def test_an_output_too_small_is_an_error_of_ours() -> None:
    with pytest.raises(ValueError, match="buffer"):
        image.decode(save(photo(9, 9), "PNG"), memoryview(bytearray(5)), FITTINGS[0], LIMITS)
