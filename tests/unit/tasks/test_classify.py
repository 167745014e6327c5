from __future__ import annotations

import math

import numpy as np
import pytest

from models.manifest import Tolerance
from service.tasks import classify
from service.wire.messages.decoder import Geometry
from service.wire.messages.results import Classification, Options, Prediction

PLACE = Geometry(10, 10, (0.0, 0.0, 10.0, 10.0))


def test_the_best_classes_come_first_with_their_probabilities() -> None:
    logits = np.log(np.array([0.2, 0.5, 0.3], np.float32))
    answer = classify.result({"logits": logits}, PLACE, Options(top_k=2))
    assert [prediction.index for prediction in answer.predictions] == [1, 2]
    assert [prediction.score for prediction in answer.predictions] == pytest.approx([0.5, 0.3])


def test_top_k_is_no_more_than_there_are_classes() -> None:
    answer = classify.result({"logits": np.zeros(3, np.float32)}, PLACE, Options(top_k=50))
    assert answer == Classification([Prediction(0, 1 / 3), Prediction(1, 1 / 3), Prediction(2, 1 / 3)])


def test_huge_logits_do_not_overflow() -> None:
    scores = classify.softmax(np.array([60000.0, 59999.0, -60000.0], np.float16))
    assert scores[0] + scores[1] == pytest.approx(1.0) and scores[2] == 0.0
    scores = classify.softmax(np.array([3e38, -3e38], np.float32))
    assert scores.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_no_numbers_are_an_error(value: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        classify.result({"logits": np.array([0.0, value], np.float32)}, PLACE, Options())


def test_a_batch_is_its_images_one_by_one() -> None:
    logits = np.array([[0.0, 1.0], [3.0, 0.0]], np.float32)
    options = [Options(top_k=1), Options(top_k=2)]
    answers = classify.results({"logits": logits}, [PLACE, PLACE], options)
    assert answers == [classify.result({"logits": logits[i]}, PLACE, options[i]) for i in range(2)]
    assert [len(answer.predictions) for answer in answers] == [1, 2]


def test_agreement_counts_equal_classes_and_finds_the_largest_difference() -> None:
    reference = np.log(np.array([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9], [0.504, 0.496]]))
    ours = np.log(np.array([[0.7, 0.3], [0.4, 0.6], [0.1, 0.9], [0.496, 0.504]]))
    found = classify.agreement({"logits": reference}, {"logits": ours})
    assert found.share == 0.75, "the second is wrong, the last is a near tie"
    assert found.score == pytest.approx(0.2)
    assert found.within(Tolerance(agreement=0.75, score=0.21))
    assert not found.within(Tolerance(agreement=0.76, score=0.21))
    assert not found.within(Tolerance(agreement=0.75, score=0.19))


def test_agreement_of_other_shapes_is_an_error() -> None:
    with pytest.raises(ValueError, match="shape"):
        classify.agreement({"logits": np.zeros((2, 3))}, {"logits": np.zeros((2, 4))})
    assert classify.highest({"logits": np.zeros((2, 4))}) == 3
