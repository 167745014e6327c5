"""Images that come as numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.config import Limits
from service.decoder import image, numbers
from service.decoder.cost import TooHeavy
from service.errors import Refusal
from service.wire.messages.decoder import Fitting, Geometry, Shape
from tests.unit.decoder import scenes

CROP = Fitting(fit="crop", height=24, width=32, fill=(1, 2, 3))


def fitted(pixels: NDArray[np.generic], fitting: Fitting = CROP) -> tuple[NDArray[np.uint8], Geometry]:
    out = bytearray(fitting.height * fitting.width * 3)
    shape = Shape("uint8" if pixels.dtype == np.uint8 else "float32", *pixels.shape[:2])
    geometry = numbers.decode(pixels.tobytes(), memoryview(out), fitting, shape, Limits())
    return np.frombuffer(bytes(out), np.uint8).reshape(fitting.height, fitting.width, 3), geometry


@pytest.mark.parametrize("fit", ["crop", "stretch", "letterbox"])
@pytest.mark.parametrize(("height", "width"), [(24, 32), (48, 64), (200, 50), (7, 90), (1, 1)])
def test_pixels_are_fitted_as_those_of_a_file(fit: str, height: int, width: int) -> None:
    fitting = Fitting(fit=fit, height=24, width=32, fill=(1, 2, 3))  # type: ignore[arg-type]
    pixels = scenes.noise(width, height)
    out = bytearray(24 * 32 * 3)
    expected = image.decode(scenes.save(pixels, "PNG"), memoryview(out), fitting, Limits())
    found, geometry = fitted(pixels, fitting)
    assert geometry == expected
    assert np.array_equal(found, np.frombuffer(bytes(out), np.uint8).reshape(24, 32, 3))


def test_an_image_of_the_inputs_size_is_taken_as_it_is() -> None:
    pixels = scenes.noise(32, 24)
    found, geometry = fitted(pixels)
    assert np.array_equal(found, pixels)
    assert geometry == Geometry(32, 24, (0.0, 0.0, 32.0, 24.0))


@given(st.integers(0, 255))
def test_floats_are_rounded_to_the_byte_they_came_from(value: int) -> None:
    found, _ = fitted(np.full((24, 32, 3), value / 255, np.float32))
    assert (found == value).all()


def test_floats_and_bytes_are_the_same_image() -> None:
    pixels = scenes.noise(40, 300)
    assert np.array_equal(fitted(pixels)[0], fitted((pixels / np.float32(255)).astype(np.float32))[0])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1.01, -0.01, 255.0, 3e38])
@pytest.mark.parametrize("row", [0, 299])
def test_numbers_that_are_no_pixels(value: float, row: int) -> None:
    pixels = np.full((300, 8, 3), 0.5, np.float32)
    pixels[row, 3, 1] = value
    with pytest.raises(Refusal) as raised:
        fitted(pixels)
    assert raised.value.code == "undecodable_image"


@pytest.mark.parametrize(
    ("shape", "size", "code"),
    [
        (Shape("uint8", 2, 2), 11, "undecodable_image"),
        (Shape("uint8", 2, 2), 13, "undecodable_image"),
        (Shape("float32", 2, 2), 12, "undecodable_image"),
        (Shape("uint8", 0, 2), 0, "image_too_large"),
        (Shape("uint8", 1, 20_000), 60_000, "image_too_large"),
        (Shape("uint8", -2, -2), 12, "image_too_large"),
    ],
)
def test_shapes_that_do_not_hold(shape: Shape, size: int, code: str) -> None:
    with pytest.raises(Refusal) as raised:
        numbers.decode(bytes(size), memoryview(bytearray(24 * 32 * 3)), CROP, shape, Limits())
    assert raised.value.code == code


def test_what_takes_long_is_given_back() -> None:
    with pytest.raises(TooHeavy) as raised:
        numbers.decode(
            bytes(3 << 20), memoryview(bytearray(24 * 32 * 3)), CROP, Shape("uint8", 1024, 1024), Limits(), 1e-6
        )
    assert 1e-6 < raised.value.seconds < 0.1
