from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from service.tasks import contours, segment
from service.tasks.grid import Grid, grid
from service.tasks.outline import FINE, refine
from service.wire.messages.decoder import Geometry
from service.wire.messages.results import Options, Segmentation

# COCO's decoder predates numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

Mask = NDArray[np.uint8]


def whole(width: int, height: int) -> Geometry:
    return Geometry(width, height, (0.0, 0.0, float(width), float(height)))


def decoded(answer: Segmentation) -> Mask:
    """All segments of an RLE answer as one mask, by COCO's own decoder."""
    pixels = np.zeros(answer.size, np.uint8)
    for one in answer.segments:
        pixels[coco.decode({"counts": one.rle.encode(), "size": list(answer.size)}) == 1] = one.index
    return pixels


def area(ring: list[float]) -> float:
    """Positive for a ring that turns clockwise on the screen."""
    points = np.array(ring).reshape(-1, 2)
    following = np.roll(points, -1, axis=0)
    return float((points[:, 0] * following[:, 1] - points[:, 1] * following[:, 0]).sum() / 2)


MASK = np.array([[0, 1], [2, 2]], np.uint8)


def test_a_mask_is_brought_to_the_image_and_the_background_is_not_told() -> None:
    answer = segment.result({"mask": MASK}, whole(4, 4), Options())
    assert answer.size == (4, 4) and answer.format == "rle" and answer.png == b""
    assert [(one.index, one.area) for one in answer.segments] == [(1, 4), (2, 8)]
    assert decoded(answer).tolist() == [[0, 0, 1, 1]] * 2 + [[2, 2, 2, 2]] * 2


def test_rle_is_cocos_own_text() -> None:
    answer = segment.result({"mask": MASK}, whole(4, 4), Options())
    pixels = segment.pixels({"mask": MASK}, whole(4, 4))
    for one in answer.segments:
        assert one.rle == coco.encode(np.asfortranarray(pixels == one.index).astype(np.uint8))["counts"].decode()


def test_a_class_over_the_whole_image_is_one_run() -> None:
    answer = segment.result({"mask": np.full((3, 3), 7, np.uint8)}, whole(5, 4), Options())
    assert [(one.index, one.area) for one in answer.segments] == [(7, 20)]
    assert (decoded(answer) == 7).all()


def test_a_crop_leaves_the_rest_background_and_a_letterbox_cuts() -> None:
    mask = np.array([[1, 2]], np.uint8)
    crop = segment.pixels({"mask": mask}, Geometry(8, 2, (2.0, 0.0, 6.0, 2.0)))
    assert crop.tolist() == [[0, 0, 1, 1, 2, 2, 0, 0]] * 2
    boxed = segment.pixels({"mask": mask.T.repeat(2, axis=0)}, Geometry(2, 2, (0.0, -1.0, 2.0, 3.0)))
    assert boxed.tolist() == [[1, 1], [2, 2]]


def test_classes_too_small_to_have_a_pixel_are_not_told() -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[0, 0], mask[5, 5] = 1, 2
    answer = segment.result({"mask": mask}, whole(2, 2), Options())
    pixels = segment.pixels({"mask": mask}, whole(2, 2))
    assert {one.index for one in answer.segments} == set(np.unique(pixels).tolist()) - {0}
    assert segment.result({"mask": np.zeros((4, 4), np.uint8)}, whole(2, 2), Options()).segments == []


def test_png_holds_the_class_indices() -> None:
    answer = segment.result({"mask": MASK}, whole(4, 4), Options(mask="png"))
    with Image.open(io.BytesIO(answer.png)) as image:
        image.load()
        assert image.mode == "P" and image.size == (4, 4)
        assert np.asarray(image).tolist() == [[0, 0, 1, 1]] * 2 + [[2, 2, 2, 2]] * 2
        palette = image.getpalette() or []
    assert palette[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
    assert [(one.area, one.rle, one.polygons) for one in answer.segments] == [(4, "", []), (8, "", [])]


def test_png_of_many_classes_is_16_bit() -> None:
    mask = np.array([[0, 300], [65535, 1]], np.uint16)
    answer = segment.result({"mask": mask}, whole(2, 2), Options(mask="png"))
    with Image.open(io.BytesIO(answer.png)) as image:
        assert image.mode.startswith("I") and np.asarray(image).tolist() == mask.tolist()


def test_a_square_is_four_corners_clockwise() -> None:
    mask = np.zeros((4, 4), np.uint8)
    mask[1:3, 1:3] = 3
    answer = segment.result({"mask": mask}, whole(8, 4), Options(mask="polygons"))
    assert answer.segments[0].polygons == [[2, 1, 6, 1, 6, 3, 2, 3]]
    assert answer.segments[0].area == area(answer.segments[0].polygons[0]) == 8


def test_a_hole_turns_the_other_way() -> None:
    mask = np.ones((3, 3), np.uint8)
    mask[1, 1] = 0
    rings = segment.result({"mask": mask}, whole(3, 3), Options(mask="polygons")).segments[0].polygons
    assert [area(ring) for ring in rings] == [9.0, -1.0]


def test_cells_that_touch_at_a_corner_are_two_rings() -> None:
    cells = np.array([[1, 0], [0, 1]], bool)
    assert contours.rings(cells, grid(whole(2, 2), 2, 2)) == [[0, 0, 1, 0, 1, 1, 0, 1], [1, 1, 2, 1, 2, 2, 1, 2]]
    rings = contours.rings(~cells, grid(whole(2, 2), 2, 2))
    assert [area(ring) for ring in rings] == [1.0, 1.0]


def test_a_mask_of_another_kind_is_an_error() -> None:
    for mask in (np.zeros((2, 2), np.float32), np.zeros((2, 2, 2), np.uint8)):
        with pytest.raises(ValueError, match="uint8 or uint16"):
            segment.result({"mask": mask}, whole(2, 2), Options())


def test_outlines_get_finer_where_cells_are_large() -> None:
    mask = np.zeros((4, 4), np.uint8)
    mask[1:3, 1:3] = 5
    assert (segment.pixels({"mask": mask}, whole(8, 8)) == 5).sum() == 16, "cells of 2 pixels stay as they are"
    pixels = segment.pixels({"mask": mask}, whole(16, 16))
    assert pixels[4:12, 4:12].tolist() == [
        [0, 5, 5, 5, 5, 5, 5, 0],
        *[[5] * 8] * 6,
        [0, 5, 5, 5, 5, 5, 5, 0],
    ], "corners are cut"
    assert (pixels == 5).sum() == 60


def test_a_line_of_one_cell_stays_and_so_does_what_has_no_outline() -> None:
    line = np.zeros((3, 5), np.uint8)
    line[1] = 1
    assert np.array_equal(refine(line), line.repeat(FINE, axis=0).repeat(FINE, axis=1))
    plain = np.full((3, 2), 300, np.uint16)
    assert np.array_equal(refine(plain), np.full((12, 8), 300)) and refine(plain).dtype == np.uint16


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.data())
def test_finer_outlines_are_bilinear_weights(height: int, width: int, data: st.DataObject) -> None:
    cells = data.draw(st.lists(st.integers(0, 2), min_size=height * width, max_size=height * width))
    mask = np.array(cells, np.uint8).reshape(height, width)
    padded = np.pad(mask, 1, mode="edge")
    for row, line in enumerate(refine(mask)):
        for column, chosen in enumerate(line):
            y, x = (row + 0.5) / FINE + 0.5, (column + 0.5) / FINE + 0.5
            weights = np.zeros(3)
            for dy in (0, 1):
                for dx in (0, 1):
                    share = (1 - abs(y - int(y) - dy)) * (1 - abs(x - int(x) - dx))
                    weights[padded[int(y) + dy, int(x) + dx]] += share
            assert weights[chosen] == pytest.approx(weights.max())


def test_a_batch_is_its_images_one_by_one() -> None:
    masks = np.stack([MASK, MASK.T])
    places = [whole(4, 4), whole(3, 3)]
    answers = segment.results({"mask": masks}, places, [Options(), Options(mask="png")])
    assert answers[0] == segment.result({"mask": MASK}, places[0], Options())
    assert answers[1] == segment.result({"mask": MASK.T}, places[1], Options(mask="png"))


def test_agreement_is_the_share_of_equal_cells() -> None:
    assert segment.agreement({"mask": MASK[None]}, {"mask": MASK[None]}) == (1.0, 0.0)
    other = MASK.copy()
    other[0, 0] = 1
    assert segment.agreement({"mask": MASK[None]}, {"mask": other[None]}) == (0.75, 0.0)
    assert segment.highest({"mask": MASK[None]}) == 2
    with pytest.raises(ValueError, match="shape"):
        segment.agreement({"mask": MASK[None]}, {"mask": other[None, :1]})


@st.composite
def cases(draw: st.DrawFn) -> tuple[Mask, Geometry]:
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    cells = draw(st.lists(st.integers(0, 3), min_size=height * width, max_size=height * width))
    image = (draw(st.integers(1, 40)), draw(st.integers(1, 40)))
    low = [draw(st.integers(-1000, 600)) / 1000 for _ in range(2)]
    high = [start + draw(st.integers(200, 2000)) / 1000 for start in low]
    box = (low[0] * image[0], low[1] * image[1], high[0] * image[0], high[1] * image[1])
    return np.array(cells, np.uint8).reshape(height, width), Geometry(*image, box)


def nearest(mask: Mask, place: Geometry) -> Mask:
    """The definition, pixel by pixel."""
    x0, y0, x1, y1 = place.box
    if max((x1 - x0) / mask.shape[1], (y1 - y0) / mask.shape[0]) > segment.COARSE:
        mask = np.asarray(refine(mask), np.uint8)
    pixels = np.zeros((place.height, place.width), np.uint8)
    for y in range(place.height):
        for x in range(place.width):
            row = (y + 0.5 - y0) / (y1 - y0) * mask.shape[0] + 1e-7
            column = (x + 0.5 - x0) / (x1 - x0) * mask.shape[1] + 1e-7
            if 0 <= row < mask.shape[0] and 0 <= column < mask.shape[1]:
                pixels[y, x] = mask[int(row), int(column)]
    return pixels


def walked(cells: NDArray[np.bool_], columns: list[int], rows: list[int]) -> list[list[float]]:
    """The rings by definition: edge after edge along every cell, the set one on the right hand."""
    framed = np.pad(cells, 1).astype(int)
    ahead: dict[tuple[int, int], list[tuple[int, int]]] = {}
    across, down = np.diff(framed, axis=0)[:, 1:-1], np.diff(framed, axis=1)[1:-1]
    for found, begin, end in (
        (across == 1, (0, 0), (1, 0)),
        (across == -1, (1, 0), (0, 0)),
        (down == -1, (0, 0), (0, 1)),
        (down == 1, (0, 1), (0, 0)),
    ):
        for y, x in np.argwhere(found).tolist():
            ahead.setdefault((x + begin[0], y + begin[1]), []).append((x + end[0], y + end[1]))
    rings = []
    for start in list(ahead):
        while ahead.get(start):
            ring, here = [start], ahead[start].pop(0)
            while here != start:
                before, ways = ring[-1], ahead[here]
                ring.append(here)
                right = (here[0] - (here[1] - before[1]), here[1] + (here[0] - before[0]))
                here = ways.pop(ways.index(right) if len(ways) > 1 else 0)
            placed = [(columns[x], rows[y]) for x, y in ring]
            left: list[tuple[int, int]] = []
            while left != placed:
                left = placed
                apart = [one for i, one in enumerate(left) if one != left[i - 1]]
                around = [(apart[i - 1], one, apart[(i + 1) % len(apart)]) for i, one in enumerate(apart)]
                placed = [b for a, b, c in around if not any(a[k] == b[k] == c[k] for k in (0, 1))]
            if len(placed) >= 4:
                rings.append([float(value) for point in placed for value in point])
    return rings


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_rings_are_those_that_a_walk_along_every_cell_finds(data: st.DataObject) -> None:
    """Also where cells cover no pixel, so that points of a ring fall together."""
    height, width = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    cells = np.array(data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width)))
    steps = [data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)) for n in (height, width)]
    rows, columns = (np.cumsum([0, *step]) for step in steps)
    place = Grid(rows, columns, int(rows[-1]), int(columns[-1]))
    cells = cells.reshape(height, width)
    assert contours.rings(cells, place) == walked(cells, columns.tolist(), rows.tolist())


@settings(max_examples=80, deadline=None)
@given(cases())
def test_all_forms_tell_the_same_pixels(case: tuple[Mask, Geometry]) -> None:
    mask, place = case
    pixels = segment.pixels({"mask": mask}, place)
    agreeing = pixels == nearest(mask, place)
    assert agreeing.all(), "neither has a rule for a boundary on a pixel's centre but rounding"
    rle = segment.result({"mask": mask}, place, Options(mask="rle"))
    assert np.array_equal(decoded(rle), pixels)
    polygons = segment.result({"mask": mask}, place, Options(mask="polygons"))
    png = segment.result({"mask": mask}, place, Options(mask="png"))
    with Image.open(io.BytesIO(png.png)) as image:
        assert np.array_equal(np.asarray(image), pixels)
    for form in (rle, polygons, png):
        assert [(one.index, one.area) for one in form.segments] == [
            (index, int((pixels == index).sum())) for index in np.unique(pixels).tolist() if index
        ]
    for one in polygons.segments:
        assert sum(area(ring) for ring in one.polygons) == one.area
