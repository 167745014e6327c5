"""LookupViT: any grid, the cost the formula says, and a start from a plain ViT."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from models.backbones.lookup import LookupVit, compress, resampling, start_from_vit  # noqa: E402
from models.backbones.vit import Vit, VitConfig  # noqa: E402
from models.levels import lookup_block_macs  # noqa: E402

pytestmark = pytest.mark.torch

SMALL = VitConfig(kind="lookup", side=224, width=48, depth=2, heads=3, stem=(8, 16, 32))


def test_resampling_is_the_antialiased_bilinear_resize() -> None:
    torch.manual_seed(0)
    grid = torch.randn(2, 14, 14, 6)
    for rows, columns in ((3, 10), (5, 7), (14, 14), (10, 3)):
        expected = torch.nn.functional.interpolate(
            grid.permute(0, 3, 1, 2), (rows, columns), mode="bilinear", antialias=True
        )
        ours = compress(grid, resampling(rows, 14), resampling(columns, 14))
        assert torch.allclose(ours, expected.flatten(2).transpose(1, 2), atol=1e-5)


def test_one_trunk_serves_every_grid_and_each_gives_its_own_answer() -> None:
    torch.manual_seed(0)
    trunk, images = LookupVit(SMALL).eval(), torch.randn(1, 3, 224, 224)
    seen: list[Any] = []
    for grid in ((3, 3), (3, 10), (10, 3), (5, 7), (10, 10)):
        features = trunk(images, grid)
        assert features.cls.shape == (1, 48)
        assert features.patches.shape == (1, 48, 14, 14)
        assert all(not torch.allclose(features.cls, other) for other in seen)
        seen.append(features.cls)


def test_a_block_costs_what_the_formula_says() -> None:
    block, patches, compressed = LookupVit(SMALL).blocks[0], 196, 35
    linear = sum(
        layer.weight.numel() * count
        for layer, count in (
            (block.cross.query, compressed),
            (block.cross.key_value, patches),
            (block.cross.gathered, compressed),
            (block.cross.value_back, compressed),
            (block.cross.infused, patches),
            (block.refine.attn.qkv, compressed),
            (block.refine.attn.proj, compressed),
            (block.refine.fc1, compressed),
            (block.refine.fc2, compressed),
            (block.fc1, patches),
            (block.fc2, patches),
        )
    )
    products = (3 * patches * compressed + 2 * compressed**2) * 48
    assert linear + products == lookup_block_macs(patches, compressed, 48)


def test_it_starts_from_a_plain_vit_with_the_lookup_side_silent() -> None:
    torch.manual_seed(0)
    vit, trunk = Vit(SMALL), LookupVit(SMALL)
    start_from_vit(trunk, vit)
    block = trunk.blocks[1]
    compressed, lookup = torch.randn(1, 4, 48), torch.randn(1, 9, 48)
    assert torch.equal(block(compressed, lookup)[1], lookup)
    assert torch.equal(block.refine(compressed), vit.blocks[1](compressed))
    images = torch.randn(1, 3, 224, 224)
    vit_map = vit.embed(images)[0][:, 1:].transpose(1, 2).unflatten(2, (14, 14))
    assert torch.allclose(trunk.stem(images)[2] + trunk.positions.permute(0, 3, 1, 2), vit_map, atol=1e-5)
