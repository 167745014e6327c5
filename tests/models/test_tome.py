"""Token merging: what it must conserve, and one step worked out by hand."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from models.reduction.tome import clamp_count, drop_random, match, merge  # noqa: E402

pytestmark = pytest.mark.torch


def tokens(count: int = 9, width: int = 12) -> tuple[Any, Any]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(2, count, width, generator=generator), torch.randn(2, 3, count, 4, generator=generator)


def test_one_step_by_hand() -> None:
    # CLS, then odd b0, even a1, odd b1, even a2; a2 is b0's twin, a1 like nothing
    keys = torch.tensor([[[[9.0, 9.0], [1.0, 0.0], [-1.0, 0.1], [0.0, 1.0], [1.0, 0.0]]]])
    x = torch.tensor([[[0.0], [2.0], [7.0], [5.0], [8.0]]])
    size = torch.tensor([[[1.0], [3.0], [1.0], [1.0], [1.0]]])
    merged, sizes = merge(x, size, keys, 1)
    assert merged[0, :, 0].tolist() == [0.0, 7.0, (3 * 2.0 + 8.0) / 4, 5.0]
    assert sizes[0, :, 0].tolist() == [1.0, 1.0, 4.0, 1.0]


def test_merging_conserves_sizes_and_sums() -> None:
    x, keys = tokens()
    size = torch.ones(2, 9, 1)
    merged, sizes = merge(x, size, keys, 3)
    assert merged.shape == (2, 6, 12)
    assert torch.allclose(sizes.sum(dim=1), size.sum(dim=1))
    assert torch.allclose((merged * sizes).sum(dim=1), x.sum(dim=1), atol=1e-5)
    assert torch.equal(merged[:, 0], x[:, 0])  # the class token is first and untouched


def test_nothing_to_merge_is_the_identity() -> None:
    x, keys = tokens()
    size = torch.ones(2, 9, 1)
    assert merge(x, size, keys, 0)[0] is x


def test_the_class_token_never_merges_away() -> None:
    x, keys = tokens()
    keys[:, :, 1] = keys[:, :, 0]  # its closest likeness is right beside it
    assert clamp_count(9, 100) == 4
    assert torch.equal(merge(x, torch.ones(2, 9, 1), keys, 100)[0][:, 0], x[:, 0])
    assert not (match(keys.mean(dim=1), 4).merged == 0).any()


def test_one_image_is_merged_the_same_whoever_shares_the_batch() -> None:
    x, keys = tokens()
    size = torch.ones(2, 9, 1)
    alone = merge(x[:1], size[:1], keys[:1], 3)[0]
    assert torch.allclose(merge(x, size, keys, 3)[0][:1], alone)


def test_random_removal_keeps_the_class_token_and_the_order() -> None:
    x, _ = tokens()
    kept, size = drop_random(x, torch.ones(2, 9, 1), 4, torch.Generator().manual_seed(0))
    assert kept.shape == (2, 5, 12)
    assert size.shape == (2, 5, 1)
    for row, source in zip(kept, x, strict=True):
        places = [int((source == token).all(dim=1).nonzero()[0]) for token in row]
        assert places == sorted(places)
        assert places[0] == 0
