"""Masks and token maps come out as the service meant them, in every form; what is malformed is refused."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco

from service.tasks import segment
from service.tasks.outline import refine
from service.wire.messages import results
from service.wire.messages.decoder import Geometry
from service.wire.messages.results import Options
from squint.client import Segmentation, TokenGroups, Unreadable
from squint.client.masks import filled, run_lengths
from tests.unit.client import answers

Form = Any


def told(answer: results.Segmentation) -> Segmentation:
    """A worker's result as a client gets it."""
    mask: dict[str, Any] = {"format": answer.format}
    if answer.format == "png":
        mask["data"] = base64.b64encode(answer.png).decode()
    segments = []
    for one in answer.segments:
        part: dict[str, Any] = {"label": str(one.index), "index": one.index, "area": one.area}
        if answer.format == "rle":
            part["counts"] = one.rle
        elif answer.format == "polygons":
            part["polygons"] = one.polygons
        segments.append(part)
    common = {**answers.COMMON, "size": answer.size, "mask": mask, "segments": segments}
    return msgspec.json.decode(msgspec.json.encode(common), type=Segmentation)


@pytest.mark.parametrize("form", ["rle", "png", "polygons"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_form_gives_the_pixels_that_the_task_has(form: Form, data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    kind = data.draw(st.sampled_from([np.uint8, np.uint16]))
    # Indices beyond a byte where they may be, but no 65,536 classes of their own.
    indices = [0, 1, 2, 255] if kind is np.uint8 else [0, 1, 256, 300]
    cells = data.draw(st.lists(st.sampled_from(indices), min_size=height * width, max_size=height * width))
    mask = np.array(cells, kind).reshape(height, width)
    across, down = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    place = Geometry(across, down, (0.0, 0.0, float(across), float(down)))
    answer = told(segment.result({"mask": mask}, place, Options(mask=form)))
    expected = segment.pixels({"mask": mask}, place)
    found = answer.array()
    assert found.shape == (down, across)
    assert found.dtype in (np.uint8, np.uint16)
    assert np.array_equal(found, expected)


def test_slanted_outlines_take_the_pixels_whose_centre_is_inside() -> None:
    # A triangle with its right angle at the origin: on row y the centres with x + y < 4.
    triangle = filled([[0, 0, 4, 0, 0, 4]], 4, 5)
    assert triangle.tolist() == [[x + 0.5 + y + 0.5 < 4 for x in range(5)] for y in range(4)]
    hole = filled([[0, 0, 4, 0, 4, 4, 0, 4], [1, 1, 1, 3, 3, 3, 3, 1]], 4, 4)
    assert hole.sum() == 12 and not hole[1:3, 1:3].any()
    beyond = filled([[-10, -10, 20, -10, 20, 20, -10, 20]], 3, 3)
    assert beyond.all()


def test_run_lengths_are_those_that_were_compressed() -> None:
    for counts in ([5], [0, 4], [3, 1, 2], [7, 9, 1, 900, 40, 3, 100_000, 1, 1], [0, 31, 32, 33, 1023, 1024, 5]):
        height, width = sum(counts), 1
        text = coco.frPyObjects({"counts": counts, "size": [height, width]}, height, width)["counts"]
        assert run_lengths(text.decode()) == counts


def test_a_mask_by_hand() -> None:
    answer = msgspec.convert(answers.SEGMENTATION, Segmentation)
    assert answer.array().tolist() == [[0, 2, 0], [0, 2, 2]]


def broken(**changes: Any) -> Segmentation:
    return msgspec.convert({**answers.SEGMENTATION, **changes}, Segmentation)


def rle(counts: str) -> list[dict[str, Any]]:
    return [{"label": "car", "index": 2, "area": 3, "counts": counts}]


@pytest.mark.parametrize(
    "answer",
    [
        broken(size=[0, 3]),
        broken(size=[-1, -3]),
        broken(size=[70_000, 70_000]),
        broken(size=[3, 3]),
        broken(segments=rle("")),
        broken(segments=rle("1")),
        broken(segments=rle("22O")),
        broken(segments=rle("\U0001f600")),
        broken(mask={"format": "png", "data": "no base64"}),
        broken(mask={"format": "png", "data": base64.b64encode(b"no png").decode()}),
        broken(mask={"format": "png"}),
        broken(mask={"format": "polygons"}, segments=[{"label": "a", "index": 1, "area": 1, "polygons": [[1, 2, 3]]}]),
    ],
    ids=lambda answer: f"{answer.mask.format}-{answer.size}",
)
def test_a_malformed_mask_is_unreadable(answer: Segmentation) -> None:
    with pytest.raises(Unreadable) as caught:
        answer.array()
    assert caught.value.request_id == "r1"


def token_map(runs: list[tuple[int, int]], grid: tuple[int, int]) -> NDArray[Any]:
    return msgspec.convert({"grid": grid, "groups": {"runs": runs}, "sizes": [4, 2]}, TokenGroups).array()


def test_a_token_map_is_read_row_by_row() -> None:
    assert token_map([(0, 3), (1, 2), (0, 1)], (2, 3)).tolist() == [[0, 0, 0], [1, 1, 0]]
    for runs, grid in (([(0, 3)], (2, 3)), ([(0, 9), (1, -3)], (2, 3)), ([], (0, 0))):
        with pytest.raises(Unreadable):
            token_map(runs, grid)


def test_the_finest_outlines_survive() -> None:
    """A mask whose cells are large is refined by the service; its polygons still say the same pixels."""
    mask = np.array([[0, 1, 0], [2, 2, 1]], np.uint8)
    place = Geometry(30, 20, (0.0, 0.0, 30.0, 20.0))
    assert refine(mask).shape != mask.shape
    for form in ("rle", "png", "polygons"):
        answer = told(segment.result({"mask": mask}, place, Options(mask=form)))
        assert np.array_equal(answer.array(), segment.pixels({"mask": mask}, place)), form
