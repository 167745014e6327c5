"""A network in bfloat16: matrices and kernels and what they multiply; sums, norms and last layers stay in float32.

The residual stream, token sizes and the choice of what is merged keep float32, and so do the layers named in a module's
`precise`: the first, whose folded normalisation cancels large numbers, and the last ones, whose small differences are
answers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TYPES: dict[str, torch.dtype] = {"f32": torch.float32, "bf16": torch.bfloat16}


class Linear(nn.Module):
    """A linear layer that takes any type and answers in its own."""

    def __init__(self, source: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.in_features, self.out_features = source.in_features, source.out_features
        self.weight = _in(source.weight, dtype)
        self.bias = None if source.bias is None else _in(source.bias, dtype)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)


class Convolution(nn.Module):
    """A convolution in two dimensions that takes any type and answers in its own."""

    def __init__(self, source: nn.Conv2d, dtype: torch.dtype) -> None:
        super().__init__()
        self.stride, self.padding, self.dilation = source.stride, source.padding, source.dilation
        self.groups = source.groups
        self.weight = _in(source.weight, dtype)
        self.bias = None if source.bias is None else _in(source.bias, dtype)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(
            x.to(self.weight.dtype), self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )


def _in(value: Tensor, dtype: torch.dtype) -> nn.Parameter:
    return nn.Parameter(value.detach().to(dtype), requires_grad=False)


def convert(network: nn.Module, precision: str) -> None:
    """Have a network compute in a precision of TYPES, in place; in float32 nothing is changed."""
    if TYPES[precision] != torch.float32:
        _convert(network, TYPES[precision], ())


def _convert(parent: nn.Module, dtype: torch.dtype, precise: Sequence[str]) -> None:
    """`precise` are the dotted names below `parent` that stay in float32, an empty one for all that is there."""
    precise = (*precise, *getattr(parent, "precise", ()))
    for name, child in parent.named_children():
        below = [found.removeprefix(name).removeprefix(".") for found in precise if f"{found}.".startswith(f"{name}.")]
        below += [""] if "" in precise else []
        wanted = torch.float32 if "" in below else dtype
        if type(child) is nn.Linear:
            setattr(parent, name, Linear(child, wanted))
        elif type(child) is nn.Conv2d and child.padding_mode == "zeros":
            setattr(parent, name, Convolution(child, wanted))
        else:
            _convert(child, dtype, below)
