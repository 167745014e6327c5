"""Render one toyscape scene from a seed: the picture, and exact labels for three tasks.

The same seed gives the same scene, to the last bit. Lengths are relative to the frame's short side, so a scene can be
rendered small to train on and at any size to evaluate.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from models.toyscape.background import background
from models.toyscape.layout import CLUTTER, Piece, arrange
from models.toyscape.paint import TEXTURES, Array, Rng, colour, contrasting, noise, pattern, variant
from models.toyscape.shapes import ACCENT, BODY, DARK, HOLE, LIGHT

LONG_SIDES = (320, 1280)
ASPECTS = (1.0, 1.15, 1.25, 4 / 3, 4 / 3, 1.4, 1.5, 16 / 9)  # long side over short side

SPLITS: dict[str, range] = {
    "train": range(10_000_000),
    "val": range(10_000_000, 20_000_000),
    "test": range(20_000_000, 1_000_000_000),
}


@dataclass(frozen=True)
class SceneObject:
    """A labelled object: class index, box around its visible pixels (x0, y0, x1, y1, ends exclusive), their number."""

    index: int
    box: tuple[int, int, int, int]
    area: int


@dataclass(frozen=True)
class Scene:
    """rgb uint8 [H, W, 3]; instances uint8 [H, W], 0 background and i + 1 for objects[i]; main: index of its class."""

    seed: int
    rgb: NDArray[np.uint8]
    instances: NDArray[np.uint8]
    objects: tuple[SceneObject, ...]
    main: int
    quality: int

    def class_map(self) -> NDArray[np.uint8]:
        """Per-pixel classes [H, W]: 0 background, class index + 1."""
        table = np.array([0, *(o.index + 1 for o in self.objects)], dtype=np.uint8)
        return np.asarray(table[self.instances])

    def jpeg(self) -> bytes:
        """The picture as a JPEG file; its quality varies with the seed."""
        out = io.BytesIO()
        Image.fromarray(self.rgb).save(out, "JPEG", quality=self.quality)
        return out.getvalue()


def split(name: str, number: int) -> int:
    """The seed of scene `number` of a split; splits never share a seed."""
    seeds = SPLITS.get(name)
    if seeds is None:
        raise ValueError(f"unknown split {name!r}; accepted: {', '.join(SPLITS)}")
    if not 0 <= number < len(seeds):
        raise ValueError(f"split {name} has scenes 0 to {len(seeds) - 1}, not {number}")
    return seeds[number]


def _frame(rng: Rng, long_side: int | None) -> tuple[int, int]:
    """Width and height in pixels."""
    low, high = LONG_SIDES
    drawn = int(np.exp(rng.uniform(np.log(low), np.log(high))))
    aspect = ASPECTS[int(rng.integers(len(ASPECTS)))]
    upright = rng.random() < 0.3
    side = drawn if long_side is None else long_side
    short = round(side / (min(aspect, 1.34) if upright else aspect))
    return (short, side) if upright else (side, short)


def frame_size(seed: int, long_side: int | None = None) -> tuple[int, int]:
    """Width and height of a seed's scene, without rendering it."""
    return _frame(np.random.default_rng(seed), long_side)


def _palette(rng: Rng, ground: Array) -> dict[str, Array]:
    """Colours of an object's parts; the body stands out from what lies behind it (rarely: only just)."""
    body = contrasting(rng, ground, 45.0 if rng.random() < 0.03 else float(rng.uniform(90, 140)))
    return {
        BODY: body,
        ACCENT: contrasting(rng, body, 90.0),
        DARK: colour(rng, (0.1, 0.6), (0.05, 0.25)),
        LIGHT: colour(rng, (0.0, 0.2), (0.85, 1.0)),
    }


def _flat(piece: Piece, palette: dict[str, Array]) -> tuple[Array, Array]:
    """The piece's parts in flat colours [h, w, 3] and how much of each pixel is body [h, w], 0..1."""
    x0, y0, x1, y1 = piece.window
    size = (2 * (x1 - x0), 2 * (y1 - y0))
    base = tuple(int(v) for v in palette[BODY])
    image, body = Image.new("RGB", size, base), Image.new("L", size, 255)
    draw, draw_body = ImageDraw.Draw(image), ImageDraw.Draw(body)
    for role, points in piece.parts:
        if role == HOLE:
            continue
        corners = ((points - [x0, y0]) * 2 - 0.5).ravel().tolist()
        draw.polygon(corners, fill=tuple(int(v) for v in palette[role]))
        draw_body.polygon(corners, fill=255 if role == BODY else 0)
    share = np.asarray(body.reduce(2), dtype=np.float32) / np.float32(255)
    return np.asarray(image.reduce(2), dtype=np.float32), share


def _shadow(rgb: Array, piece: Piece, offset: tuple[float, float], strength: float) -> None:
    """Darken the ground where the piece's soft shadow falls, in place."""
    reach = max(2, int(piece.half * 0.12))
    x0, y0, x1, y1 = piece.window
    image = Image.new("L", (x1 - x0 + 2 * reach, y1 - y0 + 2 * reach))
    image.paste(Image.fromarray(piece.mask), (reach, reach))
    soft = np.asarray(image.filter(ImageFilter.BoxBlur(reach / 2)), dtype=np.float32) / 255
    left, top = x0 - reach + int(offset[0] * piece.half), y0 - reach + int(offset[1] * piece.half)
    ys, xs = max(top, 0), max(left, 0)
    ye, xe = min(top + soft.shape[0], rgb.shape[0]), min(left + soft.shape[1], rgb.shape[1])
    if ye > ys and xe > xs:
        rgb[ys:ye, xs:xe] *= 1 - np.float32(strength) * soft[ys - top : ye - top, xs - left : xe - left, None]


def _paint(rng: Rng, rgb: Array, piece: Piece, light: float) -> None:
    """Paint a piece over the picture, in place; `light` is the direction the light comes from, radians."""
    x0, y0, x1, y1 = piece.window
    alpha = piece.mask.astype(np.float32)[:, :, None] / 255
    view = rgb[y0:y1, x0:x1]
    ground = view[::4, ::4].mean(axis=(0, 1))
    palette = _palette(rng, ground)
    flat, body = _flat(piece, palette)
    kind = "plain" if piece.index == CLUTTER and rng.random() < 0.6 else TEXTURES[int(rng.integers(len(TEXTURES)))]
    dx = (np.arange(x0, x1, dtype=np.float32)[None, :] - np.float32(piece.centre[0])) / np.float32(piece.half)
    dy = (np.arange(y0, y1, dtype=np.float32)[:, None] - np.float32(piece.centre[1])) / np.float32(piece.half)
    c, s = np.float32(np.cos(piece.turn)), np.float32(np.sin(piece.turn))
    amount = pattern(rng, kind, dx * c + dy * s, dy * c - dx * s) * body * np.float32(rng.uniform(0.4, 1.0))
    flat = flat + amount[:, :, None] * (variant(rng, palette[BODY]) - palette[BODY])
    shade = np.float32(rng.uniform(0, 0.25))
    flat *= (1 - shade * (dx * np.float32(np.cos(light)) + dy * np.float32(np.sin(light))))[:, :, None]
    view += alpha * (flat - view)


def _develop(rng: Rng, rgb: Array) -> NDArray[np.uint8]:
    """Light fall-off, vignette, blur and sensor noise: the camera's part."""
    height, width = rgb.shape[:2]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    tilt = rng.uniform(-0.2, 0.2, 2).astype(np.float32)
    field = 1 + tilt[0] * x + tilt[1] * y - np.float32(rng.uniform(0, 0.22)) * (x * x + y * y)
    rgb *= (field * np.float32(rng.uniform(0.85, 1.1)))[:, :, None]
    blur = rng.uniform(0.0, 0.005) if rng.random() < 0.35 else 0.0
    sigma = np.float32(rng.uniform(0.5, 7.0))
    if blur * min(height, width) > 0.3:
        np.clip(rgb, 0, 255, out=rgb)
        soft = Image.fromarray(rgb.astype(np.uint8)).filter(ImageFilter.GaussianBlur(blur * min(height, width)))
        rgb = np.asarray(soft, dtype=np.float32)
    return np.clip(rgb + sigma * noise(rng, height, width), 0, 255).astype(np.uint8)


def _label(pieces: list[Piece], top: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], list[SceneObject]]:
    """The instance map without clutter, and its objects in drawing order."""
    table = np.zeros(len(pieces) + 1, dtype=np.uint8)
    objects: list[SceneObject] = []
    for number, piece in enumerate(pieces, start=1):
        if piece.index == CLUTTER:
            continue
        x0, y0, x1, y1 = piece.window
        seen = top[y0:y1, x0:x1] == number
        rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
        box = (x0 + int(columns[0]), y0 + int(rows[0]), x0 + int(columns[-1]) + 1, y0 + int(rows[-1]) + 1)
        objects.append(SceneObject(piece.index, box, int(seen.sum())))
        table[number] = len(objects)
    return table[top], objects


def render(seed: int, long_side: int | None = None) -> Scene:
    """The scene of a seed; `long_side` overrides its drawn size (320 to 1280 pixels)."""
    rng = np.random.default_rng(seed)
    width, height = _frame(rng, long_side)
    quality = int(rng.integers(70, 96))
    pieces, main, top = arrange(rng, width, height)
    rgb = background(rng, height, width)
    light = float(rng.uniform(0, 2 * np.pi))
    fall = (0.2 * np.cos(light), 0.2 * np.sin(light))
    strength = float(rng.uniform(0.1, 0.5)) if rng.random() < 0.75 else 0.0
    for piece in pieces:
        if strength:
            _shadow(rgb, piece, fall, strength)
        _paint(rng, rgb, piece, light)
    instances, objects = _label(pieces, top)
    return Scene(seed, _develop(rng, rgb), instances, tuple(objects), main.index, quality)
