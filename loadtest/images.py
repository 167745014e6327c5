"""Images to send: photo-like scenes made from a seed, as JPEG of the sizes that services meet."""

from __future__ import annotations

import io
import re

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

KINDS = {"thumbnail": (160, 120), "500x375": (500, 375), "1mp": (1152, 864), "12mp": (4000, 3000)}
"""Width and height by name; any other kind is `WIDTHxHEIGHT`."""

QUALITY = 90
NOISE = 10.0
"""Standard deviation of the sensor's noise; with it a JPEG has the 2.8 bits per pixel of a camera's photo."""


def size_of(kind: str) -> tuple[int, int]:
    """Width and height of a kind; ValueError for one that is unknown."""
    if kind in KINDS:
        return KINDS[kind]
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", kind)
    if match is None or int(match[1]) * int(match[2]) > 60_000_000:
        raise ValueError(f"unknown kind of image {kind!r}: one of {', '.join(KINDS)}, or WIDTHxHEIGHT")
    return int(match[1]), int(match[2])


def generate(kind: str, count: int, seed: int = 0) -> list[bytes]:
    """`count` different JPEGs of a kind. The same arguments give the same bytes."""
    width, height = size_of(kind)
    return [jpeg(scene(width, height, np.random.default_rng([seed, width, height, at]))) for at in range(count)]


def scene(width: int, height: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Pixels [height, width, 3]: light that changes slowly, things with hard edges at all scales, sensor noise."""
    coarse = rng.integers(40, 216, (5, 6, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for _ in range(60):
        _draw_one(pen, rng, width, height)
    pixels = np.asarray(image).astype(np.int16)
    # One tile of noise, laid at random places: drawing 36 million normal numbers takes seconds.
    tile = np.round(rng.standard_normal((256, 256, 3), dtype=np.float32) * NOISE).astype(np.int16)
    for top in range(0, height, 256):
        for left in range(0, width, 256):
            part = pixels[top : top + 256, left : left + 256]
            down, across = (int(value) for value in rng.integers(0, 256, 2))
            part += np.roll(tile, (down, across), (0, 1))[: part.shape[0], : part.shape[1]]
    return np.clip(pixels, 0, 255).astype(np.uint8)


def _draw_one(pen: ImageDraw.ImageDraw, rng: np.random.Generator, width: int, height: int) -> None:
    """One disc, box or line; small ones are common, large ones rare."""
    x, y = rng.uniform(0, width), rng.uniform(0, height)
    reach = width * 0.3 * rng.uniform(0.02, 1) ** 2
    stretch = rng.uniform(0.4, 1.6)
    box = (x - reach, y - reach * stretch, x + reach, y + reach * stretch)
    colour = tuple(int(value) for value in rng.integers(0, 256, 3))
    shape = rng.integers(0, 3)
    if shape == 0:
        pen.ellipse(box, fill=colour)
    elif shape == 1:
        pen.rectangle(box, fill=colour)
    else:
        pen.line(box, fill=colour, width=max(1, int(width * 0.004)))


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """Pixels [height, width, 3] as a JPEG with the usual halved colour."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=QUALITY, subsampling=2)
    return buffer.getvalue()
