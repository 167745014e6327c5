"""timm's vision transformers in two halves: what timm computes, and what merging does to positions and pooling."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from models.backbones.rotary import Rotary, axial, grid, turn  # noqa: E402
from models.backbones.timm_vit import TimmVit, is_plain, trunk_of  # noqa: E402
from models.levels import plan  # noqa: E402
from models.reduction.tokens import Tokens, start  # noqa: E402
from models.sources.timm_graph import macs  # noqa: E402
from tests.models.lively import VITS, tiny  # noqa: E402

pytestmark = pytest.mark.torch


def images(model: Any, count: int = 2) -> Any:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(count, 3, *model.patch_embed.img_size, generator=generator)


@pytest.mark.parametrize("kind", VITS)
def test_while_nothing_is_merged_it_computes_what_timm_computes(kind: str) -> None:
    model = tiny(kind)
    x = images(model)
    with torch.no_grad():
        expected, embedding = model(x), model.forward_head(model.forward_features(x), pre_logits=True)
        assert is_plain(model)
        ours = TimmVit(model)
        for counts in (None, (0, 0, 0)):
            answer = ours(x, counts)
            assert torch.allclose(answer.logits, expected, atol=1e-5 * float(expected.abs().max()))
            assert torch.allclose(answer.embedding, embedding, atol=1e-5 * float(embedding.abs().max()))
            assert torch.equal(answer.group, torch.arange(answer.group.shape[1]).expand(2, -1))
        merged = ours(x, (2, 3, 1))
    assert (merged.logits - expected).abs().max() > 1e-3 * expected.abs().max()
    assert merged.group.max() == answer.group.shape[1] - 7
    assert torch.isfinite(merged.logits).all()


@pytest.mark.parametrize("kind", ["class token", "distilled", "registers, mean", "mean over all", "attention pool"])
def test_pooling_counts_a_token_as_often_as_it_stands_for_one(kind: str) -> None:
    ours = TimmVit(tiny(kind))
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(1, ours.prefix + 3, 48, generator=generator)
    times = torch.tensor([1] * ours.prefix + [4, 1, 2])
    sized = Tokens(x, times.float()[None, :, None], torch.zeros(1, 7))
    repeated = x.repeat_interleave(times, dim=1)
    with torch.no_grad():
        got = ours.answer(sized)
        expected = ours.answer(start(repeated, ours.prefix))
    assert torch.allclose(got.logits, expected.logits, atol=1e-5)
    assert torch.allclose(got.embedding, expected.embedding, atol=1e-5)


def test_tokens_that_merge_meet_at_the_mean_of_their_places() -> None:
    # A prefix token, then six patches in two rows of three, of which 0, 1 and 5, and 2 and 4, became one.
    rotary = Rotary(grid((2, 3)), axial(torch.tensor([1.0])))
    group = torch.tensor([[1, 1, 0, 2, 0, 1]])
    size = torch.tensor([1.0, 2.0, 3.0, 1.0]).reshape(1, 4, 1)
    places = rotary.places(Tokens(torch.zeros(1, 4, 8), size, group), 1)
    assert torch.allclose(places[0], torch.tensor([[0, 0], [0.5, 1.5], [1 / 3, 1.0], [1, 0]]))
    unmerged = rotary.unmerged(1)
    assert torch.equal(rotary.places(start(torch.zeros(2, 7, 8), 1), 1), unmerged.expand(2, -1, -1))


def test_rotation_follows_the_place_and_the_origin_turns_by_nothing() -> None:
    rotary = Rotary(grid((2, 3)), axial(torch.tensor([1.0, 0.1])))
    x = torch.randn(1, 1, 7, 8, generator=torch.Generator().manual_seed(4))
    places = rotary.unmerged(1)
    turned = turn(x, rotary(places, 0))
    assert torch.equal(turned[:, :, 0], x[:, :, 0])
    assert torch.allclose(turned.norm(dim=-1), x.norm(dim=-1), atol=1e-5)
    # The product of two turned tokens depends on the difference of their places alone.
    moved = turn(x, rotary(places + 5, 0))
    assert torch.allclose(turned @ turned.transpose(2, 3), moved @ moved.transpose(2, 3), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("test_convnext", {}),
        ("vit_base_patch16_xp_224", {"depth": 1}),
        ("vit_relpos_small_patch16_224", {"depth": 1}),
        ("beit_base_patch16_224", {"depth": 1}),
        ("vit_base_patch16_224", {"depth": 1, "global_pool": "avgmax"}),
    ],
)
def test_other_networks_are_not_plain(name: str, options: dict[str, Any]) -> None:
    assert not is_plain(timm.create_model(name, **options))


@pytest.mark.parametrize(
    ("name", "tokens", "costs"),
    [
        ("vit_small_patch16_224", 197, {"full": 4.60, "tome:8": 3.42, "tome:13": 2.70, "tome:16": 2.29}),
        ("deit_tiny_patch16_224", 197, {"full": 1.25, "tome:12": 0.77}),
    ],
)
def test_costs_are_those_of_the_papers(name: str, tokens: int, costs: dict[str, float]) -> None:
    model = timm.create_model(name).eval()
    x = images(model, 1)
    total = macs(model, x)
    trunk = trunk_of(TimmVit(model), total)
    assert trunk.fixed == 196 * 3 * 16**2 * trunk.width + 1000 * trunk.width
    assert trunk.prefix + trunk.patches == tokens
    assert {level: round(plan(level, trunk).gmacs, 2) for level in costs} == costs


def test_a_gated_mlp_costs_its_gate_too() -> None:
    model = tiny("DINOv3, SwiGLU")
    total = macs(model, images(model, 1))
    ours = TimmVit(model)
    trunk = trunk_of(ours, total)
    assert trunk.fixed == 16 * 3 * 16**2 * 48 + 48 * 7
