"""The bias of merged tokens: as channels it is what it is as a mask."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from models.reduction.attention import attend, in_channels  # noqa: E402

pytestmark = pytest.mark.torch


def inputs(size: int, count: int = 11) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(size)
    q, k, v = torch.randn(3, 2, 4, count, size, generator=generator, dtype=torch.float64)
    sizes = torch.randint(1, 60, (2, count), generator=generator).double()
    return q, k, v, sizes.log()


@pytest.mark.parametrize("size", [16, 22, 64])
def test_channels_are_the_mask_to_the_last_digits(size: int) -> None:
    q, k, v, bias = inputs(size)
    assert torch.allclose(in_channels(q, k, v, bias), attend(q, k, v, bias), atol=1e-13)
    assert in_channels(q, k, v, bias).shape == v.shape


def test_a_bias_of_nothing_changes_nothing() -> None:
    q, k, v, bias = inputs(16)
    assert torch.allclose(in_channels(q, k, v, torch.zeros_like(bias)), attend(q, k, v, None), atol=1e-13)


def test_in_half_precision_two_channels_keep_what_one_would_lose() -> None:
    q, k, v, bias = inputs(64)
    q, k, v = (part.bfloat16() for part in (q, k, v))
    exact = attend(q.double(), k.double(), v.double(), bias)
    given = in_channels(q, k, v, bias.float())
    assert given.dtype == torch.bfloat16
    # The scores themselves, which the softmax then sees: with one channel they were wrong by up to 0.016.
    carried = (bias.float() * 8).bfloat16().double() + ((bias.float() * 8) - (bias.float() * 8).bfloat16()).bfloat16()
    assert float((carried / 8 - bias).abs().max()) < 1e-4
    assert float((given.double() - exact).abs().max()) < 2e-2


def test_rows_of_the_channels_form_need_no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = torch.nn.functional.scaled_dot_product_attention

    def watched(*args: Any, **named: Any) -> Any:
        seen.append((args[0].shape[-1], named))
        return real(*args, **named)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    in_channels(*inputs(64))
    ((size, named),) = seen
    assert size == 72 and "attn_mask" not in named
