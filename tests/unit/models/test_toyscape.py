"""Toyscape renders the same scene for the same seed, and its labels say exactly what is in the picture."""

import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.toyscape import CLASSES, SPLITS, Scene, contact_sheet, render, split
from models.toyscape.layout import CLUTTER, MAIN_RATIO, arrange
from models.toyscape.scene import LONG_SIDES, frame_size
from models.toyscape.shapes import HOLE, SHAPES, placed
from models.toyscape.store import render_store, training_side


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [render(split("test", number), 360) for number in range(60)]


def test_the_same_seed_gives_the_same_scene() -> None:
    first, second = render(41, 340), render(41, 340)
    assert np.array_equal(first.rgb, second.rgb)
    assert np.array_equal(first.instances, second.instances)
    assert first.jpeg() == second.jpeg()
    assert (first.objects, first.main, first.quality) == (second.objects, second.main, second.quality)


def test_another_seed_gives_another_scene() -> None:
    pictures = {render(seed, 330).rgb.tobytes() for seed in range(8)}
    assert len(pictures) == 8


def test_boxes_are_tight_and_areas_exact(scenes: list[Scene]) -> None:
    for scene in scenes:
        for number, item in enumerate(scene.objects, start=1):
            rows, columns = np.nonzero(scene.instances == number)
            assert item.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert item.area == len(rows)


def test_every_labelled_pixel_belongs_to_an_object(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert scene.instances.max() == len(scene.objects)
        present = set(np.unique(scene.class_map()).tolist()) - {0}
        assert present == {item.index + 1 for item in scene.objects}


def test_one_to_five_objects_and_the_main_one_is_half_as_large_again(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert 1 <= len(scene.objects) <= 5
        ranked = sorted(scene.objects, key=lambda item: -item.area)
        assert ranked[0].index == scene.main
        if len(ranked) > 1:
            assert ranked[0].area >= MAIN_RATIO * ranked[1].area


def test_the_centre_crop_shows_the_main_object_and_mostly_as_the_largest(scenes: list[Scene]) -> None:
    largest = 0
    for scene in scenes:
        height, width = scene.instances.shape
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        crop = scene.instances[top : top + side, left : left + side]
        areas = np.bincount(crop.ravel(), minlength=len(scene.objects) + 1)[1:]
        main = max(range(len(scene.objects)), key=lambda at: scene.objects[at].area)
        assert areas[main] >= 0.45 * scene.objects[main].area
        largest += int(areas.argmax()) == main
    assert largest >= 0.9 * len(scenes)


def test_clutter_covers_but_is_never_labelled() -> None:
    rng = np.random.default_rng(3)
    pieces, main, top = arrange(rng, 400, 300)
    while not any(piece.index == CLUTTER for piece in pieces):
        pieces, main, top = arrange(rng, 400, 300)
    assert any(piece is main for piece in pieces)
    assert set(np.unique(top).tolist()) <= set(range(len(pieces) + 1))


def test_sizes_cover_the_promised_range_and_are_known_ahead() -> None:
    sizes = [frame_size(split("test", number)) for number in range(300)]
    longest = [max(size) for size in sizes]
    assert LONG_SIDES[0] <= min(longest) < 400
    assert 1000 < max(longest) <= LONG_SIDES[1]
    ratios = [width / height for width, height in sizes]
    assert min(ratios) < 0.8
    assert 1.7 < max(ratios) < 1.8
    assert render(split("test", 5)).rgb.shape[1::-1] == sizes[5]


def test_a_scene_is_the_same_at_another_size() -> None:
    for seed in range(6):
        small, large = render(seed, 400), render(seed, 800)
        assert small.main == large.main
        ours, theirs = (max(scene.objects, key=lambda item: item.area) for scene in (small, large))
        assert np.allclose(np.array(ours.box) * 2, theirs.box, atol=6)


def test_the_jpeg_is_the_picture() -> None:
    scene = render(11, 400)
    picture = np.asarray(Image.open(io.BytesIO(scene.jpeg())))
    assert picture.shape == scene.rgb.shape
    assert np.abs(picture.astype(int) - scene.rgb).mean() < 12


def test_splits_share_no_seed() -> None:
    spans = sorted((seeds.start, seeds.stop) for seeds in SPLITS.values())
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    assert split("val", 0) in SPLITS["val"]
    with pytest.raises(ValueError, match="unknown split"):
        split("holdout", 0)
    with pytest.raises(ValueError, match="train"):
        split("train", len(SPLITS["train"]))


@pytest.mark.parametrize("name", CLASSES)
def test_every_shape_fills_its_frame(name: str) -> None:
    parts = placed(SHAPES[name](np.random.default_rng(0)))
    corners = np.concatenate([part.points for part in parts if part.role != HOLE])
    extent = corners.max(axis=0) - corners.min(axis=0)
    assert extent.max() == pytest.approx(2.0)
    assert extent.min() > 0.6
    assert np.allclose(corners.max(axis=0) + corners.min(axis=0), 0.0)


def test_a_store_holds_the_scenes_of_its_split(tmp_path: Path) -> None:
    store = render_store(tmp_path, "train", 3, processes=1)
    scene = render(split("train", 2), training_side(2))
    assert store.rgb.shape == (3, 256, 256, 3)
    assert store.classes[2][: len(scene.objects) + 1].tolist() == [0, *(item.index + 1 for item in scene.objects)]
    assert set(np.unique(store.instances[2]).tolist()) <= set(range(len(scene.objects) + 1))
    stretched = Image.fromarray(scene.rgb).resize((256, 256), Image.Resampling.BICUBIC)
    assert np.array_equal(store.rgb[2], np.asarray(stretched))


def test_the_contact_sheet_is_a_picture(tmp_path: Path) -> None:
    contact_sheet(tmp_path / "sheet.png", rows=1, columns=2, cell=120)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (240, 120)
        assert len(sheet.getcolors(100_000) or []) > 50
