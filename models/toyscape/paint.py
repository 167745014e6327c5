"""Colours, textures and noise for toyscape, all cheap: precomputed tiles, vectorised fills.

Pixel values are float32 in 0..255 until the very end.
"""

from __future__ import annotations

import colorsys
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float32]
Rng = np.random.Generator

TEXTURES = ("plain", "gradient", "stripes", "dots", "checker", "grain")
_TILE = 768


@lru_cache(maxsize=1)
def _noise_tile() -> Array:
    """Unit-variance grey-and-colour noise [768, 768, 3], the same on every machine (fixed seed)."""
    rng = np.random.default_rng(20210628)
    grey = rng.standard_normal((_TILE, _TILE, 1), dtype=np.float32)
    colour = rng.standard_normal((_TILE, _TILE, 3), dtype=np.float32)
    return np.asarray(0.8 * grey + 0.6 * colour, dtype=np.float32)


def noise(rng: Rng, height: int, width: int) -> Array:
    """Noise [height, width, 3] of unit variance, cut from the tile at a random place."""
    tile = _noise_tile()
    repeats = (-(-height // _TILE), -(-width // _TILE), 1)
    if repeats != (1, 1, 1):
        tile = np.tile(tile, repeats)
    y = int(rng.integers(0, tile.shape[0] - height + 1))
    x = int(rng.integers(0, tile.shape[1] - width + 1))
    return tile[y : y + height, x : x + width]


def smooth_noise(rng: Rng, height: int, width: int, cells_y: int, cells_x: int) -> Array:
    """Bicubic value noise in 0..1, [height, width], with about cells_y x cells_x bumps."""
    small = rng.integers(0, 256, (cells_y + 1, cells_x + 1), dtype=np.uint8)
    big = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(big, dtype=np.float32) / np.float32(255.0)


def colour(rng: Rng, saturation: tuple[float, float] = (0.25, 0.95), value: tuple[float, float] = (0.3, 1.0)) -> Array:
    """A random colour [3] in 0..255."""
    rgb = colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
    return np.array(rgb, dtype=np.float32) * np.float32(255.0)


def contrasting(rng: Rng, ground: Array, distance: float) -> Array:
    """A random colour at least `distance` (RGB, Euclidean) from `ground`: the furthest of some tries if none is."""
    best, best_distance = colour(rng), -1.0
    for _ in range(12):
        tried = colour(rng)
        apart = float(np.linalg.norm(tried - ground))
        if apart >= distance:
            return tried
        if apart > best_distance:
            best, best_distance = tried, apart
    return best


def variant(rng: Rng, base: Array) -> Array:
    """A colour to pattern `base` with: usually lighter or darker, at times another hue."""
    if rng.random() < 0.3:
        return colour(rng)
    factor = rng.uniform(0.5, 0.8) if rng.random() < 0.5 else rng.uniform(1.2, 1.5)
    return np.asarray(np.clip(base * np.float32(factor) + np.float32(8.0), 0, 255), dtype=np.float32)


def pattern(rng: Rng, kind: str, u: Array, v: Array) -> Array:
    """How much of the second colour shows, 0..1, same shape as u and v.

    u, v are coordinates in the object's own frame (about -1..1 over the object), so that patterns turn with it.
    """
    return np.asarray(np.clip(_pattern(rng, kind, u, v), 0, 1), dtype=np.float32)


def _pattern(rng: Rng, kind: str, u: Array, v: Array) -> Array:
    if kind == "plain":
        return np.zeros_like(u)
    angle = rng.uniform(0, np.pi)
    along = u * np.float32(np.cos(angle)) + v * np.float32(np.sin(angle))
    if kind == "gradient":
        return np.float32(0.5) + np.float32(0.6) * along
    pitch = np.float32(rng.uniform(6.0, 14.0))
    if kind == "stripes":
        return np.float32(0.5) + np.float32(2.0) * np.sin(along * pitch)
    across = v * np.float32(np.cos(angle)) - u * np.float32(np.sin(angle))
    if kind == "checker":
        return np.float32(0.5) + np.float32(4.0) * np.sin(along * pitch) * np.sin(across * pitch)
    if kind == "dots":
        return np.float32(4.0) * (np.cos(along * pitch) + np.cos(across * pitch) - np.float32(1.0))
    if kind == "grain":
        return np.float32(0.4) + np.float32(0.3) * noise(rng, *u.shape)[:, :, 0]
    raise ValueError(f"unknown texture {kind!r}; accepted: {', '.join(TEXTURES)}")
