"""The maths of the heads against values worked out by hand."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from models.heads.classify import classify_loss  # noqa: E402
from models.heads.detect import (  # noqa: E402
    HIDDEN,
    TOP,
    decode,
    detect_loss,
    gaussians,
    giou,
    heat_loss,
    pick,
)
from models.heads.segment import dice_loss, pixel_weight, segment_loss  # noqa: E402

pytestmark = pytest.mark.torch


def box(*corners: float) -> Any:
    return torch.tensor(corners)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (box(0, 0, 2, 2), box(0, 0, 2, 2), 1.0),
        (box(0, 0, 2, 2), box(1, 0, 3, 2), 1 / 3),  # hull equals union
        (box(0, 0, 1, 1), box(2, 0, 3, 1), -1 / 3),  # apart: 0 - (3 - 2) / 3
        (box(0, 0, 2, 2), box(1, 1, 3, 3), 1 / 7 - 2 / 9),
    ],
)
def test_giou(a: Any, b: Any, expected: float) -> None:
    assert float(giou(a, b)) == pytest.approx(expected)
    assert float(giou(b, a)) == pytest.approx(expected)


def test_a_gaussian_is_one_at_its_centre_and_falls_by_its_sigma() -> None:
    # 0.5 wide on 28 cells: 14 cells, sigma 0.54 * 14 / 6 = 1.26; centre (0.5, 0.5) lies in cell 14
    heat = gaussians(torch.tensor([[[0.25, 0.25, 0.75, 0.75]]]), torch.tensor([[True]]), 28, 28)[0, 0]
    assert float(heat[14, 14]) == 1.0
    assert float(heat[14, 16]) == pytest.approx(float(torch.exp(torch.tensor(-0.5 * (2 / 1.26) ** 2))), rel=1e-4)
    assert float(heat[0, 0]) == 0.0
    assert float(gaussians(torch.tensor([[[0.1, 0.1, 0.9, 0.9]]]), torch.tensor([[False]]), 28, 28).sum()) == 0.0


def test_heat_loss_by_hand() -> None:
    logits = torch.tensor([[[[0.0, 0.0]]]])  # probability 0.5 everywhere
    target = torch.tensor([[[[1.0, 0.5]]]])
    log_half = float(torch.log(torch.tensor(0.5)))
    expected = -(0.25 * log_half + 0.25 * 0.5**4 * log_half)
    assert float(heat_loss(logits, target)) == pytest.approx(expected)


def test_decode_measures_from_the_cells_centres() -> None:
    sides = torch.full((1, 4, 2, 2), -50.0)  # softplus is 0: a point
    assert torch.allclose(decode(sides)[0, :, 0, 1], torch.tensor([0.75, 0.25, 0.75, 0.25]))
    sides[:, 2] = 10.0  # right by 10 * 0.25
    assert float(decode(sides)[0, 2, 0, 1]) == pytest.approx(0.75 + 2.5, abs=1e-3)


def test_pick_takes_peaks_best_first_and_hides_their_neighbours() -> None:
    heat = torch.full((1, 3, 8, 8), -9.0) + torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.1
    heat[0, 2, 4, 4], heat[0, 2, 4, 5], heat[0, 0, 1, 1] = 3.0, 2.5, 1.0
    boxes = torch.zeros(1, 4, 8, 8)
    boxes[0, :, 4, 4] = torch.tensor([0.1, 0.2, 1.4, 0.9])
    found, scores, labels = pick(heat, boxes)
    assert found.shape == (1, TOP, 4)
    assert labels[0, :2].tolist() == [2, 0]
    assert labels.dtype == torch.int64
    assert torch.allclose(scores[0, :2], torch.tensor([3.0, 1.0]).sigmoid())
    assert float(scores[0, 2]) < 0.001  # the neighbour at 2.5 is no peak
    assert torch.allclose(found[0, 0], torch.tensor([0.1, 0.2, 1.0, 0.9]))
    assert (scores[0, :-1] >= scores[0, 1:]).all()
    assert float(torch.tensor(HIDDEN).sigmoid()) < 1e-12


def test_detection_loss_is_least_for_the_truth_and_ignores_absent_objects() -> None:
    truth = torch.tensor([[[0.2, 0.2, 0.6, 0.6], [0.0, 0.0, 0.0, 0.0]]])
    labels = torch.tensor([[1, -1]])
    heat = torch.where(gaussians(truth, labels >= 0, 14, 14)[:, :1] >= 0.999, 8.0, -8.0).expand(-1, 3, -1, -1).clone()
    heat[:, [0, 2]] = -8.0
    perfect = truth[0, 0][None, :, None, None].expand(1, 4, 14, 14)
    heat_value, box_value = detect_loss(heat, perfect, truth, labels)
    assert float(box_value) == pytest.approx(0.0, abs=1e-5)
    assert float(heat_value) < 0.02
    worse = detect_loss(heat.roll(1, dims=1), perfect + 0.1, truth, labels)
    assert float(worse[0]) > 5.0
    assert float(worse[1]) > 0.2


def test_views_without_a_main_object_teach_classification_nothing() -> None:
    logits = torch.tensor([[4.0, 0.0], [0.0, 4.0]])
    alone = classify_loss(logits[:1], torch.tensor([0]))
    assert float(classify_loss(logits, torch.tensor([0, -1]))) == pytest.approx(float(alone))
    assert float(classify_loss(logits, torch.tensor([-1, -1]))) == 0.0


def test_segment_loss_falls_towards_the_truth() -> None:
    truth = torch.zeros(1, 8, 8, dtype=torch.int64)
    logits = torch.zeros(1, 2, 2, 2)
    # cross-entropy log 2; Dice of the one class present 2 * 8 / (16 + 8)
    assert float(segment_loss(logits, truth)) == pytest.approx(0.6931 + (1 - 2 / 3), abs=1e-3)
    logits[:, 0] = 8.0
    assert float(segment_loss(logits, truth)) < 0.01
    logits[:, 1] = 16.0
    assert float(segment_loss(logits, truth)) > 5.0


def test_objects_and_their_boundaries_weigh_more() -> None:
    classes = torch.zeros(1, 5, 7, dtype=torch.int64)
    classes[:, :, 4:] = 3
    assert pixel_weight(classes)[0, 2].tolist() == [1.0, 1.0, 1.0, 3.0, 4.0, 2.0, 2.0]


def test_dice_loss_by_hand() -> None:
    classes = torch.tensor([[[0, 1]]])
    shares = torch.tensor([[[[0.75, 0.5]], [[0.25, 0.5]], [[0.0, 0.0]]]])
    first, second = 2 * 0.75 / (1 + 1.25), 2 * 0.5 / (1 + 0.75)
    assert float(dice_loss(shares, classes)) == pytest.approx(1 - (first + second) / 2)
