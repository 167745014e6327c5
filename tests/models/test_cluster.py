"""Clustering with reconstruction: tokens alike become one and come back as what they were."""

import pytest

torch = pytest.importorskip("torch")

from models.reduction.cluster import cluster, rebuild  # noqa: E402

pytestmark = pytest.mark.torch


def test_tiles_of_equal_tokens_come_back_without_loss() -> None:
    tiles = 10 * torch.randn(2, 12, 4, 4, generator=torch.Generator().manual_seed(0))
    tokens = tiles.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3).flatten(2).transpose(1, 2)
    centroids = cluster(tokens, (8, 8), (4, 4), sharpness=1.0)
    assert torch.allclose(centroids, tiles.flatten(2).transpose(1, 2), atol=1e-4)
    assert torch.allclose(rebuild(tokens, centroids, centroids, sharpness=1.0), tokens, atol=1e-4)


def test_a_token_finds_its_likes_next_door_and_not_at_the_other_end() -> None:
    tokens = torch.zeros(1, 64, 3)
    tokens[0, :, 0] = torch.arange(64) % 8 // 3  # stripes that no 2x2 tile matches
    tokens[0, 0, 1] = 50.0
    tokens[0, 63, 1] = 50.0
    centroids = cluster(tokens, (8, 8), (4, 4), sharpness=5.0)
    assert centroids.shape == (1, 16, 3)
    rebuilt = rebuild(tokens, centroids, centroids, sharpness=5.0)
    pooled = torch.nn.functional.adaptive_avg_pool2d(tokens.transpose(1, 2).reshape(1, 3, 8, 8), 4)
    plain = pooled.repeat_interleave(2, 2).repeat_interleave(2, 3).flatten(2).transpose(1, 2)
    assert (rebuilt - tokens).square().mean() < 0.5 * (plain - tokens).square().mean()


def test_what_is_rebuilt_is_a_mixture_that_sums_to_one() -> None:
    tokens, centroids = torch.randn(1, 9, 4), torch.randn(1, 5, 4)
    assert torch.allclose(rebuild(tokens, centroids, torch.ones(1, 5, 2), 0.3, nearest=3), torch.ones(1, 9, 2))
