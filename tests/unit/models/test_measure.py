"""The scores of squint.measure against values worked out by hand."""

from typing import Any

import msgspec
import numpy as np
import pytest

from models.toyscape import SPLITS, SceneObject
from squint.client import Classification, Detections, Segmentation
from squint.measure.answers import Found, Mask, Top, answer_of
from squint.measure.scenes import TestScene, scene_seeds
from squint.measure.scores import MeanAveragePrecision, MeanIou, Top1, score_for

TestScene.__test__ = False  # type: ignore[attr-defined]


def scene(classes: list[list[int]], main: int = 0, objects: tuple[SceneObject, ...] = ()) -> TestScene:
    return TestScene(b"", main, objects, np.array(classes, dtype=np.uint8))


def test_top1_is_the_share_of_right_answers() -> None:
    score = Top1()
    for answer in (2, 2, 1, 2):
        score.add(scene([[0]], main=2), Top(answer))
    assert score.result() == {"top1": 0.75}


def test_miou_counts_background_and_averages_over_classes_that_occur() -> None:
    score = MeanIou(classes=3)
    score.add(scene([[0, 0, 1, 1]]), Mask(np.array([[0, 1, 1, 1]], dtype=np.uint8)))
    # background 1/2, class 1 2/3; the others never occur
    assert score.result()["miou"] == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_miou_refuses_a_mask_of_another_size() -> None:
    with pytest.raises(ValueError, match="mask is"):
        MeanIou(3).add(scene([[0, 0]]), Mask(np.zeros((1, 3), dtype=np.uint8)))


def test_map_of_perfect_boxes_is_one_and_of_half_overlap_counts_only_at_low_iou() -> None:
    truth = scene([[0]], objects=(SceneObject(1, (10, 10, 110, 110), 10_000),))
    perfect = MeanAveragePrecision(3)
    perfect.add(truth, [Found(1, 0.9, (10.0, 10.0, 110.0, 110.0))])
    assert perfect.result() == {"map": pytest.approx(1.0), "map50": pytest.approx(1.0)}
    shifted = MeanAveragePrecision(3)  # IoU 0.6: right at 0.5, 0.55 and 0.6 of ten thresholds
    shifted.add(truth, [Found(1, 0.9, (10.0, 10.0, 110.0, 70.5))])
    assert shifted.result() == {"map": pytest.approx(0.3), "map50": pytest.approx(1.0)}
    wrong = MeanAveragePrecision(3)
    wrong.add(truth, [Found(2, 0.9, (10.0, 10.0, 110.0, 110.0))])
    assert wrong.result()["map50"] == 0.0


def test_nothing_found_scores_nothing() -> None:
    score = MeanAveragePrecision(2)
    score.add(scene([[0]], objects=(SceneObject(0, (0, 0, 5, 5), 25),)), [])
    assert score.result() == {"map": 0.0, "map50": 0.0}


def test_seeds_of_evaluations_are_test_seeds_and_do_not_meet() -> None:
    first, second = scene_seeds(0, 2000), scene_seeds(1, 2000)
    for seeds in (first, second, scene_seeds(123_456, 2000)):
        assert seeds.start in SPLITS["test"] and seeds[-1] in SPLITS["test"]
    assert not set(first) & set(second)
    with pytest.raises(ValueError, match="scenes"):
        scene_seeds(0, 0)


COMMON: dict[str, Any] = {
    "request_id": "r", "model": "m", "version": "1", "level": "full", "backend": "fake",
    "timing_ms": {"decode": 1, "queue": 0, "infer": 2, "post": 0, "total": 3},
}  # fmt: skip


def test_rest_answers_are_read_back() -> None:
    best = msgspec.convert({**COMMON, "predictions": [{"index": 4, "score": 0.9, "label": "car"}]}, Classification)
    assert answer_of(best) == Top(4)
    fish = {"index": 2, "score": 0.5, "label": "fish", "box": [1, 2, 3, 4]}
    assert answer_of(msgspec.convert({**COMMON, "predictions": [fish]}, Detections)) == [Found(2, 0.5, (1, 2, 3, 4))]
    # COCO's compressed form of 1 pixel off, 2 on, 1 off, down the columns of a 2 x 2 mask
    segment = {"index": 3, "label": "house", "area": 2, "counts": "121"}
    told = {**COMMON, "size": [2, 2], "mask": {"format": "rle"}, "segments": [segment]}
    mask = answer_of(msgspec.convert(told, Segmentation))
    assert isinstance(mask, Mask)
    assert mask.classes.dtype == np.uint8 and mask.classes.tolist() == [[0, 3], [3, 0]]


def test_every_task_has_its_score() -> None:
    assert isinstance(score_for("classify", 2), Top1)
    assert isinstance(score_for("segment", 2), MeanIou)
    with pytest.raises(ValueError, match="unknown task"):
        score_for("caption", 2)
