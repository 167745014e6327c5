"""Token merging: what it must conserve, one step worked out by hand, and the group map it leaves."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from models.backbones.vit import Attention, Vit, VitConfig  # noqa: E402
from models.levels import clamp, sloped, trace  # noqa: E402
from models.reduction.tokens import Tokens, mean_patch, restore, start  # noqa: E402
from models.reduction.tome import drop_random, match, merge  # noqa: E402

pytestmark = pytest.mark.torch

PREFIXES = (0, 1, 2, 5)
SMALL = VitConfig(side=64, width=48, depth=3, heads=3, stem=(8, 16, 32))


def tokens(count: int = 9, prefix: int = 1, seed: int = 3) -> tuple[Tokens, Any]:
    """Two images of `count` tokens and some keys."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, count, 12, generator=generator)
    return start(x, prefix), torch.randn(2, 3, count, 4, generator=generator)


def test_one_step_by_hand() -> None:
    # CLS, then patches 0 to 3: 1 and 3 are sources, 3 is the twin of 0, 1 is like nothing.
    keys = torch.tensor([[[[9.0, 9.0], [1.0, 0.0], [-1.0, 0.1], [0.0, 1.0], [1.0, 0.0]]]])
    x = torch.tensor([[[0.0], [2.0], [7.0], [5.0], [8.0]]])
    size = torch.tensor([[[1.0], [3.0], [1.0], [1.0], [1.0]]])
    merged = merge(Tokens(x, size, torch.arange(4)[None]), keys, 1)
    assert merged.x[0, :, 0].tolist() == [0.0, 7.0, (3 * 2.0 + 8.0) / 4, 5.0]
    assert merged.size[0, :, 0].tolist() == [1.0, 1.0, 4.0, 1.0]
    assert merged.group[0].tolist() == [1, 0, 2, 1]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_merging_conserves_sizes_and_sums_and_leaves_the_prefix_alone(prefix: int) -> None:
    before, keys = tokens(12 + prefix, prefix)
    now = before
    for count, left in ((4, 8), (3, 5), (9, 3)):  # the last is more than can go
        now = merge(now, keys[:, :, : now.x.shape[1]], count, prefix)
        assert now.x.shape[1] == prefix + left
        assert torch.equal(now.x[:, :prefix], before.x[:, :prefix])
        assert torch.equal(now.size[:, :prefix], torch.ones(2, prefix, 1))
        assert torch.allclose(now.size.sum(dim=1), before.size.sum(dim=1))
        assert torch.allclose((now.x * now.size).sum(dim=1), before.x.sum(dim=1), atol=1e-5)
        assert torch.allclose(mean_patch(now, prefix), mean_patch(before, prefix), atol=1e-5)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_the_group_map_says_which_patches_each_token_is_the_mean_of(prefix: int) -> None:
    before, keys = tokens(14 + prefix, prefix)
    now = merge(merge(before, keys, 5, prefix), keys[:, :, 5:], 3, prefix)
    for image in range(2):
        for group in range(now.x.shape[1] - prefix):
            members = before.x[image, prefix:][now.group[image] == group]
            assert len(members) == now.size[image, prefix + group, 0]
            assert torch.allclose(members.mean(dim=0), now.x[image, prefix + group], atol=1e-5)


def test_nothing_to_merge_is_the_identity() -> None:
    before, keys = tokens()
    assert merge(before, keys, 0) is before
    assert torch.equal(restore(before.x[:, 1:], before.group), before.x[:, 1:])


@pytest.mark.parametrize("prefix", PREFIXES)
def test_merged_identical_tokens_restore_without_loss(prefix: int) -> None:
    before, _ = tokens(8 + prefix, prefix)
    twins = before.x[:, prefix:].repeat_interleave(2, dim=1)  # each source has its equal beside it
    doubled = start(torch.cat([before.x[:, :prefix], twins], dim=1), prefix)
    now = merge(doubled, doubled.x[:, None], 8, prefix)
    assert torch.equal(restore(now.x[:, prefix:], now.group), twins)


def test_the_count_is_clamped_to_half_of_the_patches() -> None:
    before, keys = tokens()
    assert clamp(9, 100, 1) == 4
    assert merge(before, keys, 100).x.shape[1] == 5
    assert trace(9, (100, 100, 100)) == (5, 3, 2)


def test_equal_likenesses_merge_the_earlier_source() -> None:
    assert match(torch.ones(1, 8, 4), 2).merged.tolist() == [[0, 1]]


def test_one_image_is_merged_the_same_whoever_shares_the_batch() -> None:
    both, keys = tokens()
    first = Tokens(*(part[:1] for part in both))
    together, alone = merge(both, keys, 3), merge(first, keys[:1], 3)
    assert torch.equal(together.group[:1], alone.group)
    assert torch.allclose(together.x[:1], alone.x)


def test_proportional_attention_is_attention_over_repeated_tokens() -> None:
    torch.manual_seed(0)
    attention = Attention(12, 3).double()
    x = torch.randn(1, 4, 12, dtype=torch.float64)
    size = torch.tensor([[1.0, 3.0, 2.0, 1.0]], dtype=torch.float64)
    repeated = x.repeat_interleave(size[0].long(), dim=1)
    expected = attention(repeated)[0][:, [0, 1, 4, 6]]
    assert torch.allclose(attention(x, size.log())[0], expected, atol=1e-12)


def test_a_trunk_at_r_0_is_the_plain_trunk_and_follows_its_trace_otherwise() -> None:
    torch.manual_seed(0)
    trunk, x = Vit(SMALL).eval(), torch.randn(2, 3, 64, 64)
    plain, zero = trunk(x), trunk(x, (0, 0, 0))
    assert torch.equal(plain.cls, zero.cls)
    assert torch.equal(plain.patches, zero.patches)
    for counts in ((1, 0, 3), (2, 2, 2), (99, 99, 99), sloped(2, -1, 3)):
        features = trunk(x, counts)
        groups = {len(row.unique()) for row in features.group}
        assert groups == {trace(17, counts)[-1] - 1}
        assert features.patches.shape == plain.patches.shape


def test_half_the_units_are_a_slice_of_the_whole_mlp() -> None:
    torch.manual_seed(0)
    block = Vit(SMALL).blocks[0]
    x = torch.randn(2, 5, 48)
    sliced = block.feed(x, 96)
    with torch.no_grad():
        block.fc1.weight[96:] = 0
        block.fc1.bias[96:] = 0
    assert torch.allclose(block.feed(x), sliced, atol=1e-6)


def test_sorting_the_units_changes_no_answer() -> None:
    torch.manual_seed(0)
    block = Vit(SMALL).blocks[0]
    x = torch.randn(2, 5, 48)
    before = block.feed(x)
    block.sort_units()
    assert torch.allclose(block.feed(x), before, atol=1e-6)
    weight = block.fc1.weight.norm(dim=1) * block.fc2.weight.norm(dim=0)
    assert torch.equal(weight, weight.sort(descending=True).values)


def test_random_removal_keeps_the_class_token_and_the_order() -> None:
    before, _ = tokens()
    kept = drop_random(before, 4, torch.Generator().manual_seed(0))
    assert kept.x.shape == (2, 5, 12)
    assert kept.size.shape == (2, 5, 1)
    for row, source in zip(kept.x, before.x, strict=True):
        places = [int((source == token).all(dim=1).nonzero()[0]) for token in row]
        assert places == sorted(places)
        assert places[0] == 0
