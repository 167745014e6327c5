"""Where things go in a scene: sizes, places, drawing order, and what remains visible.

Everything is drawn first as coverage masks only, so that a scene is settled (the main object is the largest, there
are no slivers) before a single colour is spent on it. Lengths are fractions of the frame's short side until they become
pixels here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from models.toyscape.background import clutter_outline
from models.toyscape.paint import Rng
from models.toyscape.shapes import BODY, CLASSES, HOLE, SHAPES, Part, placed

Mask = NDArray[np.uint8]

MAIN_SIZE = (0.44, 0.68)
OTHER_SIZE = (0.27, 0.58)
MIN_VISIBLE = 0.6  # an object less visible than this is taken out of the scene
MIN_MAIN_VISIBLE = 0.6
MAIN_RATIO = 1.5  # the main object's visible area over the next one's
RIVAL_RATIO = (1.5, 1.7)  # what an object that would be too large a rival is shrunk to
RIVALS = 0.75  # share of the scenes whose next largest object grows until it nearly is a rival
CLOSE = (1.51, 1.6)  # the ratio it grows to
OTHERS = (0.12, 0.38, 0.26, 0.15, 0.09)  # how often a scene is laid out with 0, 1, .. other objects
CUT = 0.4  # of the main object's size: how far it may reach out of the central square
CLUTTER = -1


@dataclass(eq=False)
class Piece:
    """One thing in a scene: an object or clutter, its parts in pixels and its coverage inside its own window."""

    index: int  # class index, or CLUTTER
    parts: list[Part]
    centre: tuple[float, float]
    half: float  # half of its longer side, pixels
    turn: float  # radians
    window: tuple[int, int, int, int]  # x0, y0, x1, y1 in the frame
    mask: Mask  # coverage 0..255 over the window
    area: int


def coverage(parts: list[Part], window: tuple[int, int, int, int]) -> Mask:
    """Antialiased coverage of the parts over a window, drawn at twice the size and averaged down."""
    x0, y0, x1, y1 = window
    image = Image.new("L", (2 * (x1 - x0), 2 * (y1 - y0)))
    draw = ImageDraw.Draw(image)
    for role, points in parts:
        draw.polygon(((points - [x0, y0]) * 2 - 0.5).ravel().tolist(), fill=0 if role == HOLE else 255)
    return np.asarray(image.reduce(2))


def _piece(
    index: int, parts: list[Part], centre: tuple[float, float], half: float, turn: float, frame: tuple[int, int]
) -> Piece | None:
    """Settle a piece in a frame (width, height); None when it lies outside."""
    corners = np.concatenate([p.points for p in parts])
    x0, y0 = np.maximum(np.floor(corners.min(axis=0)).astype(int) - 1, 0)
    x1, y1 = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 1, frame)
    if x1 - x0 < 2 or y1 - y0 < 2:
        return None
    window = (int(x0), int(y0), int(x1), int(y1))
    mask = coverage(parts, window)
    return Piece(index, parts, centre, half, turn, window, mask, int((mask >= 128).sum()))


def _object(rng: Rng, index: int, size: float, centre: tuple[float, float], frame: tuple[int, int]) -> Piece | None:
    """An object of a class at a place (pixels), turned, mirrored and a little squeezed."""
    half = size * min(frame) / 2
    turn = float(rng.uniform(-np.pi / 4, np.pi / 4))
    squeeze = rng.uniform(0.85, 1.18)
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    shear = rng.uniform(-0.12, 0.12)
    c, s = np.cos(turn), np.sin(turn)
    matrix = np.array([[c, -s], [s, c]]) @ np.array([[mirror * squeeze**0.5, shear], [0.0, squeeze**-0.5]]) * half
    parts = [Part(p.role, p.points @ matrix.T + centre) for p in placed(SHAPES[CLASSES[index]](rng))]
    return _piece(index, parts, centre, half, turn, frame)


def _scaled(piece: Piece, factor: float, frame: tuple[int, int]) -> Piece | None:
    """The piece at the same place, `factor` times as large."""
    centre = np.array(piece.centre)
    parts = [Part(role, (points - centre) * factor + centre) for role, points in piece.parts]
    return _piece(piece.index, parts, piece.centre, piece.half * factor, piece.turn, frame)


def _clutter(rng: Rng, size: float, frame: tuple[int, int]) -> Piece | None:
    width, height = frame
    centre = (float(rng.uniform(0, width)), float(rng.uniform(0, height)))
    outline = clutter_outline(rng, size * min(frame)) + centre
    return _piece(CLUTTER, [Part(BODY, outline)], centre, size * min(frame) / 2, 0.0, frame)


def _main(rng: Rng, frame: tuple[int, int]) -> Piece:
    """The main object: inside the central square or nearly so, so that a centre crop shows it."""
    width, height = frame
    short = min(frame)
    index = int(rng.integers(len(CLASSES)))
    size = float(rng.uniform(*MAIN_SIZE))
    if CLASSES[index] == "key":  # thin: as large as the others by area
        size = max(size, 0.45)
    free = max(0.0, 0.5 - 0.5 * size) * short
    # Along the longer side a centre crop may cut into it, never by much.
    along, across = free + min(max(frame) / 2 - short / 2, CUT * size * short), free
    reach = (along, across) if width > height else (across, along)
    centre = (float(width / 2 + rng.uniform(-reach[0], reach[0])), float(height / 2 + rng.uniform(-reach[1], reach[1])))
    piece = _object(rng, index, size, centre, frame)
    if piece is None:
        raise ValueError(f"a frame of {width}x{height} pixels is too small for a scene")
    return piece


def visible_areas(pieces: list[Piece], frame: tuple[int, int]) -> tuple[Mask, list[int]]:
    """The map of topmost pieces [H, W] (0 none, i + 1 pieces[i]) and each piece's visible pixels."""
    width, height = frame
    top = np.zeros((height, width), dtype=np.uint8)
    for number, piece in enumerate(pieces, start=1):
        x0, y0, x1, y1 = piece.window
        top[y0:y1, x0:x1][piece.mask >= 128] = number
    return top, np.bincount(top.ravel(), minlength=len(pieces) + 1)[1:].tolist()


def _to_remove(pieces: list[Piece], main: Piece, areas: list[int]) -> Piece | None:
    """The first piece that breaks a rule, or None when the scene is settled."""
    at = pieces.index(main)
    if areas[at] < MIN_MAIN_VISIBLE * main.area:
        return pieces[-1] if at < len(pieces) - 1 else None
    for piece, area in zip(pieces, areas, strict=True):
        if piece is main or piece.index == CLUTTER:
            continue
        if area < MIN_VISIBLE * piece.area or area * MAIN_RATIO > areas[at] or area < 60:
            return piece
    return None


def _settled(pieces: list[Piece], main: Piece, frame: tuple[int, int]) -> list[Piece]:
    """The pieces without those that break a rule."""
    while (broken := _to_remove(pieces, main, visible_areas(pieces, frame)[1])) is not None:
        pieces = [piece for piece in pieces if piece is not broken]
    return pieces


def _with_rival(pieces: list[Piece], main: Piece, frame: tuple[int, int], ratio: float) -> list[Piece]:
    """The pieces with the next largest object grown until the main one is only `ratio` times as large, where no rule
    forbids it."""
    for _ in range(3):  # what it comes to cover changes the ratio
        areas = visible_areas(pieces, frame)[1]
        seen = {at: a for at, a in enumerate(areas) if pieces[at].index != CLUTTER and pieces[at] is not main}
        if not seen:
            break
        at = max(seen, key=seen.__getitem__)
        grown = _scaled(pieces[at], (areas[pieces.index(main)] / (ratio * seen[at])) ** 0.5, frame)
        if grown is None:
            break
        changed = [*pieces[:at], grown, *pieces[at + 1 :]]
        if _to_remove(changed, main, visible_areas(changed, frame)[1]) is not None:
            break
        pieces = changed
    return pieces


def arrange(rng: Rng, width: int, height: int) -> tuple[list[Piece], Piece, Mask]:
    """Pieces in drawing order, the main one among them, and the map of topmost pieces (see `visible_areas`)."""
    frame = (width, height)
    main = _main(rng, frame)
    objects = [main]
    for _ in range(int(rng.choice(len(OTHERS), p=OTHERS))):
        size = float(rng.uniform(*OTHER_SIZE))
        centre = (float(width * rng.uniform(0.05, 0.95)), float(height * rng.uniform(0.05, 0.95)))
        piece = _object(rng, int(rng.integers(len(CLASSES))), size, centre, frame)
        ratio = float(rng.uniform(*RIVAL_RATIO))
        if piece is not None and piece.area * ratio > main.area:
            piece = _scaled(piece, (main.area / (ratio * piece.area)) ** 0.5, frame)
        if piece is not None and piece.half * 2 >= OTHER_SIZE[0] * min(frame):
            objects.append(piece)
    order = [objects[i] for i in rng.permutation(len(objects))]
    behind = [_clutter(rng, float(rng.uniform(0.1, 0.5)), frame) for _ in range(int(rng.integers(0, 4)))]
    before = [_clutter(rng, float(rng.uniform(0.08, 0.3)), frame) for _ in range(int(rng.integers(0, 2)))]
    pieces = [p for p in (*behind, *order, *before) if p is not None]
    pieces = _settled(pieces, main, frame)
    if rng.random() < RIVALS:
        pieces = _with_rival(pieces, main, frame, float(rng.uniform(*CLOSE)))
    return pieces, main, visible_areas(pieces, frame)[0]
