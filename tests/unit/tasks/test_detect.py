from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.tasks import detect
from service.wire.messages.decoder import Geometry
from service.wire.messages.results import Detection, Options

WHOLE = Geometry(200, 100, (0.0, 0.0, 200.0, 100.0))


def outputs(*objects: tuple[float, int, tuple[float, float, float, float]]) -> dict[str, NDArray[Any]]:
    return {
        "boxes": np.array([box for _, _, box in objects], np.float32).reshape(-1, 4),
        "scores": np.array([score for score, _, _ in objects], np.float32),
        "labels": np.array([label for _, label, _ in objects], np.int64),
    }


def batch(*images: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name: np.stack([image[name] for image in images]) for name in detect.OUTPUTS}


def test_boxes_are_in_pixels_of_the_displayed_image() -> None:
    answer = detect.result(outputs((0.75, 4, (0.25, 0.5, 0.5, 1.0))), WHOLE, Options())
    assert answer.objects == [Detection(4, 0.75, (50.0, 50.0, 100.0, 100.0))]


def test_letterboxed_boxes_are_moved_and_cut_to_the_image() -> None:
    place = Geometry(200, 100, (0.0, -50.0, 200.0, 150.0))
    answer = detect.result(outputs((0.75, 0, (0.1, 0.0, 0.6, 0.5))), place, Options())
    assert answer.objects[0].box == pytest.approx((20.0, 0.0, 120.0, 50.0))


def test_a_crop_lies_inside_the_image() -> None:
    place = Geometry(200, 100, (50.0, 0.0, 150.0, 100.0))
    assert detect.result(outputs((0.75, 0, (0.0, 0.0, 1.0, 1.0))), place, Options()).objects[0].box == (50, 0, 150, 100)


def test_boxes_outside_and_boxes_without_area_are_left_out() -> None:
    place = Geometry(200, 100, (0.0, -50.0, 200.0, 150.0))
    found = outputs((0.9, 0, (0.1, 0.0, 0.6, 0.2)), (0.8, 0, (0.5, 0.5, 0.5, 0.9)), (0.7, 0, (0.6, 0.5, 0.4, 0.9)))
    assert detect.result(found, place, Options()).objects == []


def test_threshold_order_and_number() -> None:
    box = (0.0, 0.0, 1.0, 1.0)
    found = outputs((0.25, 1, box), (0.5, 2, box), (1.0, 3, box), (0.5, 4, box))
    assert [one.index for one in detect.result(found, WHOLE, Options(threshold=0.5)).objects] == [3, 2, 4]
    assert [one.index for one in detect.result(found, WHOLE, Options(max_detections=1)).objects] == [3]
    assert len(detect.result(found, WHOLE, Options(threshold=0.0)).objects) == 4


@pytest.mark.parametrize("name", ["boxes", "scores"])
def test_values_that_are_no_numbers_are_an_error(name: str) -> None:
    found = outputs((0.5, 0, (0.0, 0.0, 1.0, 1.0)))
    found[name][0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        detect.result(found, WHOLE, Options())


def test_a_batch_is_its_images_one_by_one() -> None:
    images = [outputs((0.5, i, (0.0, 0.0, 0.5 + i / 4, 1.0))) for i in range(2)]
    answers = detect.results(batch(*images), [WHOLE, WHOLE], [Options(), Options()])
    assert answers == [detect.result(image, WHOLE, Options()) for image in images]


def test_agreement_of_equal_outputs_is_whole_and_of_none_too() -> None:
    one = batch(outputs((0.5, 1, (0.0, 0.0, 0.5, 0.5)), (0.1, 1, (0.0, 0.0, 0.5, 0.5))))
    assert detect.agreement(one, one) == (1.0, 0.0)
    faint = batch(outputs((0.125, 1, (0.0, 0.0, 0.5, 0.5))))
    fainter = batch(outputs((0.0625, 2, (0.5, 0.0, 1.0, 0.5))))
    assert detect.agreement(faint, fainter) == (1.0, 0.0625)


def test_agreement_matches_class_and_place_whatever_the_order() -> None:
    left, right = (0.0, 0.0, 0.5, 0.5), (0.5, 0.5, 1.0, 1.0)
    reference = batch(outputs((0.75, 1, left), (0.5, 2, right)))
    swapped = batch(outputs((0.5, 2, right), (0.625, 1, left)))
    assert detect.agreement(reference, swapped) == (1.0, 0.125)
    other_class = batch(outputs((0.75, 1, left), (0.5, 3, right)))
    assert detect.agreement(reference, other_class) == (0.5, 0.0)
    moved = batch(outputs((0.75, 1, left), (0.5, 2, (0.0, 0.5, 0.5, 1.0))))
    assert detect.agreement(reference, moved) == (0.5, 0.0)


def test_an_object_at_the_threshold_is_no_disagreement_but_a_doubled_one_is() -> None:
    box = (0.0, 0.0, 0.5, 0.5)
    above, below = batch(outputs((0.31, 1, box))), batch(outputs((0.29, 1, box)))
    found = detect.agreement(above, below)
    assert found.share == 1.0 and found.score == pytest.approx(0.02)
    once = batch(outputs((0.5, 1, box), (0.0, 0, box)))
    twice = batch(outputs((0.5, 1, box), (0.5, 1, box)))
    assert detect.agreement(once, twice).share == pytest.approx(2 / 3)


def test_agreement_with_what_is_no_number_is_none() -> None:
    one = batch(outputs((0.5, 1, (0.0, 0.0, 0.5, 0.5))))
    other = batch(outputs((np.nan, 1, (0.0, 0.0, 0.5, 0.5))))
    assert detect.agreement(one, other) == (0.0, 1.0)
    assert detect.highest(one) == 1
