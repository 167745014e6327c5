"""Whatever a user holds an image in, the same pixels are sent; what is no image is refused before."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from squint.client.images import encoded, form, picture

PIXELS = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)


def png(pixels: Any = PIXELS) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_files_go_as_they_are(tmp_path: Path) -> None:
    data = b"\xff\xd8 whatever it is"
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    with path.open("rb") as file:
        for image in (data, bytearray(data), memoryview(data), path, str(path), io.BytesIO(data), file):
            assert encoded(image) == data


@pytest.mark.parametrize("image", [PIXELS, PIXELS[:, ::-1], PIXELS[::2], PIXELS[..., 0], Image.fromarray(PIXELS)])
def test_pixels_arrive_unchanged(image: Any) -> None:
    sent = np.asarray(Image.open(io.BytesIO(encoded(image))).convert("RGB"))
    expected = np.asarray(image)
    assert np.array_equal(sent, expected if expected.ndim == 3 else expected[..., None].repeat(3, axis=2))


def test_pixels_may_go_as_jpeg() -> None:
    smooth = np.linspace(0, 255, 64 * 64 * 3).astype(np.uint8).reshape(64, 64, 3)
    sent = encoded(smooth, "jpeg")
    assert sent.startswith(b"\xff\xd8\xff")
    assert np.abs(np.asarray(Image.open(io.BytesIO(sent))).astype(int) - smooth).mean() < 4


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "I;16", "LA"])
def test_images_of_any_mode_are_sent(mode: str) -> None:
    assert Image.open(io.BytesIO(encoded(Image.new(mode, (6, 4))))).size == (6, 4)


def test_orientation_is_applied_and_the_callers_image_is_left_alone() -> None:
    turned = Image.fromarray(PIXELS)
    turned.getexif()[0x0112] = 6
    assert picture(turned).size == (4, 5) and turned.size == (5, 4)
    assert Image.open(io.BytesIO(encoded(turned))).size == (4, 5)
    plain = Image.fromarray(PIXELS)
    picture(plain).paste((0, 0, 0), (0, 0, 5, 4))
    assert np.array_equal(np.asarray(plain), PIXELS)


@pytest.mark.parametrize(
    ("image", "error", "words"),
    [
        (None, TypeError, "NoneType is no image"),
        (7, TypeError, "int is no image"),
        ([PIXELS], TypeError, "list is no image"),
        (io.StringIO("text"), TypeError, "StringIO is no image"),
        (PIXELS.astype(np.float32), ValueError, r"float32 \[4, 5, 3\]"),
        (PIXELS[None], ValueError, r"uint8 \[1, 4, 5, 3\]"),
        (PIXELS[..., :2], ValueError, r"uint8 \[4, 5, 2\]"),
        ("no/such/file.jpg", FileNotFoundError, "no/such"),
    ],
)
def test_what_is_no_image_is_refused_by_name(image: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        encoded(image)


def test_a_file_beyond_all_limits_is_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("squint.client.images.MAX_BYTES", 10)
    path = tmp_path / "large"
    path.write_bytes(b"x" * 11)
    for image in (path, b"x" * 11, io.BytesIO(b"x" * 1000)):
        with pytest.raises(ValueError, match="no service takes"):
            encoded(image)
    assert encoded(b"x" * 10) == b"x" * 10


def test_a_form_holds_the_images_in_their_order() -> None:
    body, kind = form([b"one", b"two"])
    boundary = kind.removeprefix("multipart/form-data; boundary=").encode()
    assert body.index(b"one") < body.index(b"two")
    assert body.count(b"--" + boundary) == 3 and body.endswith(b"--" + boundary + b"--\r\n")
