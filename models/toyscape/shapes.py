"""The object classes of toyscape, as outlines in unit coordinates.

A shape is a list of parts drawn in order. Coordinates are about -1..1, x to the right, y down; `placed` brings the
whole shape to a bounding box whose longer side is 2. Proportions vary with the random generator, the plan does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Rng = np.random.Generator

BODY, ACCENT, DARK, LIGHT, HOLE = "body", "accent", "dark", "light", "hole"


class Part(NamedTuple):
    """One filled polygon: which colour it takes (or HOLE, which cuts the silhouette) and its corners [n, 2]."""

    role: str
    points: Points


def _poly(role: str, *corners: tuple[float, float]) -> Part:
    return Part(role, np.array(corners, dtype=np.float64))


def _rect(role: str, x0: float, y0: float, x1: float, y1: float) -> Part:
    return _poly(role, (x0, y0), (x1, y0), (x1, y1), (x0, y1))


def _arc(cx: float, cy: float, rx: float, ry: float, start: float = 0.0, end: float = 360.0, n: int = 36) -> Points:
    angle = np.radians(np.linspace(start, end, n))
    return np.stack([cx + rx * np.cos(angle), cy + ry * np.sin(angle)], axis=1)


def _ellipse(role: str, cx: float, cy: float, rx: float, ry: float) -> Part:
    return Part(role, _arc(cx, cy, rx, ry))


def star(rng: Rng) -> list[Part]:
    angle = np.radians(np.arange(10) * 36.0 - 90.0)
    radius = np.where(np.arange(10) % 2 == 0, 1.0, rng.uniform(0.38, 0.5))
    outline = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    parts = [Part(BODY, outline)]
    if rng.random() < 0.5:
        parts.append(Part(ACCENT, outline * rng.uniform(0.35, 0.55)))
    return parts


def heart(rng: Rng) -> list[Part]:
    t = np.linspace(0.0, 2.0 * np.pi, 60)
    x = 16.0 * np.sin(t) ** 3
    y = -(13.0 * np.cos(t) - 5.0 * np.cos(2 * t) - 2.0 * np.cos(3 * t) - np.cos(4 * t))
    outline = np.stack([x, y + 2.0], axis=1) / 16.0
    parts = [Part(BODY, outline)]
    if rng.random() < 0.5:
        parts.append(_ellipse(LIGHT, -0.45, -0.42, 0.16, 0.13))
    return parts


def fish(rng: Rng) -> list[Part]:
    fat = rng.uniform(0.36, 0.52)
    tail = rng.uniform(0.4, 0.55)
    return [
        _poly(ACCENT, (0.35, 0.0), (1.0, -tail), (0.82, 0.0), (1.0, tail)),
        _poly(ACCENT, (-0.35, -fat * 0.75), (0.05, -fat - 0.3), (0.25, -fat * 0.55)),
        _ellipse(BODY, -0.22, 0.0, 0.76, fat),
        _ellipse(LIGHT, -0.62, -0.1, 0.13, 0.13),
        _ellipse(DARK, -0.64, -0.1, 0.07, 0.07),
    ]


def house(rng: Rng) -> list[Part]:
    half = rng.uniform(0.62, 0.8)
    ridge = rng.uniform(-1.0, -0.75)
    door = rng.uniform(-0.3, 0.1)
    parts = [_rect(DARK, 0.35, ridge, 0.55, -0.2)] if rng.random() < 0.6 else []
    return [
        *parts,
        _rect(BODY, -half, -0.15, half, 0.9),
        _poly(ACCENT, (-half - 0.22, -0.1), (0.0, ridge), (half + 0.22, -0.1)),
        _rect(DARK, door - 0.16, 0.3, door + 0.16, 0.9),
        _rect(LIGHT, door + 0.28, 0.1, door + 0.55, 0.42),
    ]


def car(rng: Rng) -> list[Part]:
    roof = rng.uniform(-0.55, -0.45)
    rear = rng.uniform(-0.75, -0.6)
    wheel = rng.uniform(0.19, 0.24)
    return [
        _poly(BODY, (rear, -0.05), (rear + 0.2, roof), (0.3, roof), (0.58, -0.05)),
        _poly(LIGHT, (rear + 0.13, -0.08), (rear + 0.27, roof + 0.09), (-0.12, roof + 0.09), (-0.12, -0.08)),
        _poly(LIGHT, (0.0, -0.08), (0.0, roof + 0.09), (0.26, roof + 0.09), (0.44, -0.08)),
        _poly(BODY, (-1.0, 0.02), (-0.92, -0.08), (0.75, -0.08), (1.0, 0.08), (1.0, 0.36), (-1.0, 0.36)),
        _ellipse(DARK, -0.55, 0.36, wheel, wheel),
        _ellipse(DARK, 0.55, 0.36, wheel, wheel),
        _ellipse(LIGHT, -0.55, 0.36, wheel * 0.45, wheel * 0.45),
        _ellipse(LIGHT, 0.55, 0.36, wheel * 0.45, wheel * 0.45),
    ]


def tree(rng: Rng) -> list[Part]:
    wide = rng.uniform(0.55, 0.72)
    return [
        _rect(ACCENT, -0.12, 0.5, 0.12, 1.0),
        _poly(BODY, (-wide, 0.65), (0.0, -0.1), (wide, 0.65)),
        _poly(BODY, (-wide * 0.82, 0.18), (0.0, -0.55), (wide * 0.82, 0.18)),
        _poly(BODY, (-wide * 0.6, -0.3), (0.0, -1.0), (wide * 0.6, -0.3)),
    ]


def mushroom(rng: Rng) -> list[Part]:
    foot = rng.uniform(0.24, 0.34)
    cap = np.concatenate(
        [_arc(0.0, 0.05, 0.95, rng.uniform(0.75, 0.95), 180, 360), _arc(0.0, 0.05, 0.95, 0.12, 0, 180)]
    )
    parts = [
        _poly(LIGHT, (-foot * 0.75, 0.0), (foot * 0.75, 0.0), (foot, 0.9), (-foot, 0.9)),
        Part(BODY, cap),
    ]
    for x, y, r in ((-0.45, -0.3, 0.13), (0.05, -0.5, 0.15), (0.5, -0.22, 0.12)):
        parts.append(_ellipse(ACCENT, x, y, r, r))
    return parts


def rocket(rng: Rng) -> list[Part]:
    wide = rng.uniform(0.26, 0.34)
    right = _arc(-0.9 + wide, 0.1, 0.9, 1.1, -65, 25, 14)
    right[:, 0] = np.maximum(right[:, 0], 0.0)
    hull = np.concatenate([[[0.0, -1.0]], right, (right * [-1.0, 1.0])[::-1]])
    fin = rng.uniform(0.6, 0.72)
    return [
        _poly(LIGHT, (-0.16, 0.55), (0.0, 1.0), (0.16, 0.55)),
        _poly(ACCENT, (-wide * 0.8, 0.1), (-fin, 0.75), (-wide * 0.6, 0.6)),
        _poly(ACCENT, (wide * 0.8, 0.1), (fin, 0.75), (wide * 0.6, 0.6)),
        Part(BODY, hull),
        _ellipse(DARK, 0.0, -0.25, wide * 0.55, wide * 0.55),
        _ellipse(LIGHT, 0.0, -0.25, wide * 0.36, wide * 0.36),
    ]


def boat(rng: Rng) -> list[Part]:
    top = rng.uniform(-1.0, -0.85)
    return [
        _rect(DARK, -0.05, top, 0.03, 0.4),
        _poly(LIGHT, (0.08, top + 0.05), (0.8, 0.25), (0.08, 0.25)),
        _poly(ACCENT, (-0.1, top + 0.2), (-0.65, 0.25), (-0.1, 0.25)),
        _poly(BODY, (-1.0, 0.35), (1.0, 0.35), (0.68, 0.85), (-0.7, 0.85)),
    ]


def key(rng: Rng) -> list[Part]:
    ring = rng.uniform(0.38, 0.46)
    return [
        _rect(BODY, -0.3, -0.12, 1.0, 0.12),
        _rect(BODY, 0.82, 0.0, 1.0, 0.45),
        _rect(BODY, 0.5, 0.0, 0.66, 0.38),
        _ellipse(BODY, -0.6, 0.0, ring, ring),
        _ellipse(HOLE, -0.6, 0.0, ring * 0.5, ring * 0.5),
    ]


def cup(rng: Rng) -> list[Part]:
    foot = rng.uniform(0.36, 0.5)
    return [
        _ellipse(ACCENT, 0.52, 0.0, 0.46, 0.42),
        _ellipse(HOLE, 0.52, 0.0, 0.27, 0.24),
        _poly(BODY, (-0.7, -0.7), (0.55, -0.7), (foot - 0.05, 0.8), (-foot - 0.1, 0.8)),
        _ellipse(DARK, -0.075, -0.7, 0.625, 0.16),
    ]


def moon(rng: Rng) -> list[Part]:
    inner = rng.uniform(0.66, 0.78)
    outline = np.concatenate([_arc(0.0, 0.0, 1.0, 1.0, 62, 298, 40), _arc(0.47, 0.0, inner, 0.883, 270, 90, 30)])
    parts = [Part(BODY, outline)]
    if rng.random() < 0.5:
        parts.append(_ellipse(ACCENT, -0.65, -0.15, 0.13, 0.13))
        parts.append(_ellipse(ACCENT, -0.5, 0.35, 0.09, 0.09))
    return parts


def flower(rng: Rng) -> list[Part]:
    petals = int(rng.integers(5, 8))
    reach, size = rng.uniform(0.55, 0.62), rng.uniform(0.32, 0.38)
    parts = []
    for angle in 2.0 * np.pi * np.arange(petals) / petals - np.pi / 2:
        parts.append(_ellipse(BODY, reach * np.cos(angle), reach * np.sin(angle), size, size))
    return [*parts, _ellipse(ACCENT, 0.0, 0.0, 0.34, 0.34)]


def umbrella(rng: Rng) -> list[Part]:
    dome = _arc(0.0, 0.05, 1.0, rng.uniform(0.85, 1.0), 180, 360)
    scallops = np.concatenate([_arc(x, 0.05, 0.25, 0.14, 0, -180, 9) for x in (0.75, 0.25, -0.25, -0.75)])
    hook = np.concatenate([_arc(0.2, 0.7, 0.26, 0.26, 0, 180, 14), _arc(0.2, 0.7, 0.13, 0.13, 180, 0, 14)])
    return [
        _rect(DARK, -0.065, -0.1, 0.065, 0.72),
        Part(DARK, hook),
        Part(BODY, np.concatenate([dome, scallops])),
        _poly(ACCENT, (-0.25, 0.02), (0.0, -0.85), (0.25, 0.02)),
    ]


SHAPES: dict[str, Callable[[Rng], list[Part]]] = {
    f.__name__: f
    for f in (star, heart, fish, house, car, tree, mushroom, rocket, boat, key, cup, moon, flower, umbrella)
}
CLASSES: tuple[str, ...] = tuple(SHAPES)


def placed(parts: list[Part]) -> list[Part]:
    """Centre a shape on the origin and scale it to a bounding box whose longer side is 2."""
    corners = np.concatenate([p.points for p in parts if p.role != HOLE])
    low, high = corners.min(axis=0), corners.max(axis=0)
    scale = 2.0 / float((high - low).max())
    return [Part(p.role, (p.points - (low + high) / 2) * scale) for p in parts]
