"""Drawings show what the answer says, where it says it, and never change the image they are made from."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from squint.client import Classification, Detections, Segmentation
from squint.client.drawing import colour
from tests.unit.client import answers

GREY = np.full((300, 400, 3), 128, np.uint8)


def box_answer(*boxes: tuple[float, float, float, float]) -> Detections:
    found = [{"label": "star", "index": 1, "score": 0.9, "box": box} for box in boxes]
    return msgspec.convert({**answers.DETECTIONS, "predictions": found}, Detections)


def changed(drawing: Image.Image, original: Any = GREY) -> Any:
    return (np.asarray(drawing) != original).any(axis=2)


def test_a_box_is_drawn_on_its_edges_with_its_label_above() -> None:
    drawing = box_answer((100.0, 120.0, 300.0, 250.0)).draw(GREY)
    pixels = np.asarray(drawing)
    for x, y in ((100, 200), (300, 200), (200, 250)):
        assert tuple(pixels[y, x]) == colour(1)
    touched = changed(drawing)
    assert not touched[130:240, 110:290].any(), "the inside of the box stays as it is"
    assert touched[100:119, 100:150].any(), "the label stands on the upper edge"
    assert not touched[:80].any() and not touched[260:].any() and (GREY == 128).all()


def test_labels_stay_in_the_image() -> None:
    drawing = box_answer((380.0, 0.0, 400.0, 20.0), (-5.0, -5.0, 500.0, 400.0), (5.0, 5.0, 5.0, 5.0)).draw(GREY)
    assert drawing.size == (400, 300) and changed(drawing)[:20, 330:380].any()


def test_nothing_found_draws_nothing() -> None:
    assert not changed(box_answer().draw(GREY)).any()


def test_classes_are_listed_in_the_corner() -> None:
    touched = changed(msgspec.convert(answers.CLASSIFICATION, Classification).draw(GREY))
    assert touched[:100, :150].any() and not touched[150:].any() and not touched[:, 300:].any()


def segmentation(**changes: Any) -> Segmentation:
    ring = [[100.0, 100.0, 300.0, 100.0, 300.0, 250.0, 100.0, 250.0]]
    part = {"label": "car", "index": 2, "area": 200 * 150, "polygons": ring}
    told = {**answers.COMMON, "size": [300, 400], "mask": {"format": "polygons"}, "segments": [part]}
    return msgspec.convert({**told, **changes}, Segmentation)


def test_a_mask_tints_its_pixels_and_outlines_them() -> None:
    pixels = np.asarray(segmentation().draw(GREY)).astype(int)
    half = (np.array(colour(2)) + 128) / 2
    assert np.abs(pixels[200, 200] - half).max() <= 1
    assert tuple(pixels[249, 200]) == colour(2)
    assert (pixels[260:, 100:] == 128).all() and (pixels[200, :90] == 128).all()


def test_an_empty_mask_draws_nothing_and_another_size_is_refused() -> None:
    assert not changed(segmentation(segments=[]).draw(GREY)).any()
    with pytest.raises(ValueError, match="400 x 300 pixels, not 300 x 300"):
        segmentation().draw(GREY[:, :300])


def with_tokens(box: Any) -> Detections:
    # Two rows and columns of patches; the upper two are one group.
    tokens = {"grid": [2, 2], "groups": {"runs": [[0, 2], [1, 1], [2, 1]]}, "sizes": [2, 1, 1], "box": box}
    return msgspec.convert({**answers.DETECTIONS, "predictions": [], "explain": {"tokens": tokens}}, Detections)


def test_merged_patches_take_their_mean_and_others_stay() -> None:
    image = np.random.default_rng(3).integers(0, 256, (300, 400, 3), np.uint8)
    drawing = with_tokens([0.0, 0.0, 400.0, 300.0]).draw(image)
    pixels = np.asarray(drawing)
    assert np.array_equal(pixels[150:], image[150:]), "patches that are a group of their own"
    inside = pixels[20:130, 20:380].astype(float)
    assert inside.std() < image[20:130, 20:380].std() / 4
    assert np.abs(inside.mean() - image[:150].mean()) < 3
    assert np.array_equal(np.asarray(with_tokens([0.0, 0.0, 400.0, 300.0]).draw(image, tokens=False)), image)


def test_the_grid_lies_where_the_model_looked() -> None:
    image = np.random.default_rng(3).integers(0, 256, (300, 400, 3), np.uint8)
    middle = changed(with_tokens([50.0, 0.0, 350.0, 300.0]).draw(image), image)
    assert not middle[:, :50].any() and not middle[:, 350:].any() and middle[10:140, 60:340].mean() > 0.9
    beyond = changed(with_tokens([0.0, -50.0, 400.0, 350.0]).draw(image), image)
    assert beyond[:148].mean() > 0.9 and not beyond[152:].any()


def test_any_size_can_be_drawn_on() -> None:
    for side in (1, 8, 3000):
        image = np.full((side, side, 3), 9, np.uint8)
        assert msgspec.convert(answers.CLASSIFICATION, Classification).draw(image).size == (side, side)
        assert box_answer((0.0, 0.0, float(side), float(side))).draw(image).size == (side, side)


def test_neighbouring_classes_differ() -> None:
    colours = np.array([colour(index) for index in range(12)], float)
    apart = np.abs(colours[:, None] - colours[None]).sum(axis=2) + 1000 * np.eye(12)
    assert apart.min() > 40
