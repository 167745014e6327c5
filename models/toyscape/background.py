"""Backgrounds and clutter: what surrounds the objects and is none of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from models.toyscape.paint import Array, Rng, colour, noise, smooth_noise


def _ramp(height: int, width: int, angle: float) -> Array:
    """A linear ramp over the frame in 0..1 at `angle` (radians)."""
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * np.float32(np.sin(angle))
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :] * np.float32(np.cos(angle))
    span = 2 * (abs(float(np.sin(angle))) + abs(float(np.cos(angle))))
    return np.asarray((y + x) / np.float32(span) + np.float32(0.5), dtype=np.float32)


def _mix(t: Array, a: Array, b: Array) -> Array:
    return a + t[:, :, None] * (b - a)


def _muted(rng: Rng) -> Array:
    return colour(rng, (0.05, 0.55), (0.3, 0.95))


def _near(rng: Rng, base: Array, spread: float) -> Array:
    return np.clip(base + rng.uniform(-spread, spread, 3).astype(np.float32), 0, 255)


def gradient(rng: Rng, height: int, width: int) -> Array:
    """One colour passing into another."""
    base = _muted(rng)
    return _mix(_ramp(height, width, rng.uniform(0, 2 * np.pi)), base, _near(rng, base, 80))


def horizon(rng: Rng, height: int, width: int) -> Array:
    """A sky over a textured ground."""
    line = int(height * rng.uniform(0.35, 0.7))
    sky_top = colour(rng, (0.1, 0.6), (0.5, 1.0))
    out = np.empty((height, width, 3), dtype=np.float32)
    out[:line] = _mix(_ramp(line, width, np.pi / 2), sky_top, _near(rng, sky_top, 60))
    ground = colour(rng, (0.1, 0.6), (0.25, 0.75))
    rough = smooth_noise(rng, height - line, width, int(rng.integers(8, 24)), int(rng.integers(5, 12)))
    out[line:] = _mix(rough, ground, _near(rng, ground, 50))
    return out


def tiles(rng: Rng, height: int, width: int) -> Array:
    """Two-coloured tiles or bricks with joints."""
    side = min(height, width) / rng.uniform(4, 9)
    ratio = rng.uniform(1.0, 2.2)
    y = np.arange(height, dtype=np.float32)[:, None] / np.float32(side)
    row = np.floor(y)
    x = np.arange(width, dtype=np.float32)[None, :] / np.float32(side * ratio)
    if rng.random() < 0.5:
        x = x + np.float32(0.5) * (row % 2)
    odd = (np.floor(x) + row) % 2 * np.ones((height, width), dtype=np.float32)
    joint = (y - row < np.float32(0.06)) | (x - np.floor(x) < np.float32(0.06 / ratio))
    base = _muted(rng)
    out = _mix(odd.astype(np.float32), base, _near(rng, base, 35))
    out[np.broadcast_to(joint, (height, width))] *= np.float32(rng.uniform(0.75, 1.1))
    return out


def blobs(rng: Rng, height: int, width: int) -> Array:
    """Out-of-focus colours."""
    base = _muted(rng)
    cells = int(rng.integers(2, 5)), int(rng.integers(2, 6))
    out = _mix(smooth_noise(rng, height, width, *cells), base, _near(rng, base, 110))
    return out + (smooth_noise(rng, height, width, *cells)[:, :, None] - np.float32(0.5)) * _near(rng, base, 60) * 0.3


def wood(rng: Rng, height: int, width: int) -> Array:
    """Boards with grain along one axis."""
    base = colour(rng, (0.25, 0.6), (0.35, 0.85))
    fine, broad = int(rng.integers(40, 90)), int(rng.integers(6, 14))
    flip = rng.random() < 0.5
    h, w = (width, height) if flip else (height, width)
    grain = 0.6 * smooth_noise(rng, h, w, fine, 3) + 0.4 * smooth_noise(rng, h, w, broad, 2)
    out = _mix(grain.astype(np.float32), base, base * np.float32(rng.uniform(0.55, 0.8)))
    return np.ascontiguousarray(out.transpose(1, 0, 2)) if flip else out


def plaster(rng: Rng, height: int, width: int) -> Array:
    """A rough wall: noise at three scales."""
    base = _muted(rng)
    t = 0.5 * smooth_noise(rng, height, width, 4, 5) + 0.3 * smooth_noise(rng, height, width, 14, 18)
    out = _mix(t.astype(np.float32), base, _near(rng, base, 70))
    return out + np.float32(rng.uniform(1, 7)) * noise(rng, height, width)


GROUNDS: tuple[Callable[[Rng, int, int], Array], ...] = (gradient, horizon, tiles, blobs, wood, plaster)


def background(rng: Rng, height: int, width: int) -> Array:
    """A background [height, width, 3], float32 in about 0..255."""
    return GROUNDS[int(rng.integers(len(GROUNDS)))](rng, height, width)


def clutter_outline(rng: Rng, size: float) -> NDArray[np.float64]:
    """The outline [n, 2] of a thing that is no object, about `size` across: a stick, a blob or a polygon."""
    kind = rng.random()
    turn = rng.uniform(0, 2 * np.pi)
    if kind < 0.4:
        thick = rng.uniform(0.03, 0.08)
        points = np.array([[-1, -thick], [1, -thick], [1, thick], [-1, thick]]) * rng.uniform(0.8, 1.4)
    elif kind < 0.7:
        angle = np.linspace(0, 2 * np.pi, 32, endpoint=False)
        wobble = 1 + 0.15 * np.sin(2 * angle + rng.uniform(0, 6)) + 0.1 * np.sin(3 * angle + rng.uniform(0, 6))
        points = np.stack([wobble * np.cos(angle), 0.75 * wobble * np.sin(angle)], axis=1) * 0.6
    else:
        corners = int(rng.integers(3, 6))
        angle = 2 * np.pi * (np.arange(corners) + rng.uniform(-0.25, 0.25, corners)) / corners
        points = np.stack([np.cos(angle), rng.uniform(0.4, 1.0) * np.sin(angle)], axis=1) * 0.65
    c, s = np.cos(turn), np.sin(turn)
    return np.asarray(points @ np.array([[c, s], [-s, c]]) * (size / 2), dtype=np.float64)
