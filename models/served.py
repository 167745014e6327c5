"""The network as it is served: uint8 pixels in, one task's answers out, everything foldable folded.

Batch norm goes into the convolution before it. Normalisation goes into the first convolution; a zero of padding there
stood for the mean grey, so the image itself is padded with the mean, as uint8, where that is cheapest. Weights are
rounded to fp16 and kept as fp32: the rounded weights are the reference for every backend.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fractions import Fraction
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from models.backbones.lookup import LOOKUP_SIDES, LookupVit
from models.backbones.vit import MEAN, PREFIX, STD, Block, Features, Stem, Vit
from models.cost import count_macs
from models.graph import operators
from models.levels import Plan, Trunk
from models.network import Network
from models.reduction.tokens import start


def fold_batch_norms(module: nn.Module) -> None:
    """Replace every Conv2d + BatchNorm2d pair inside nn.Sequential by one Conv2d, in place."""
    for child in module.modules():
        if not isinstance(child, nn.Sequential) or len(child) < 2 or not isinstance(child[1], nn.BatchNorm2d):
            continue
        conv, norm = cast(nn.Conv2d, child[0]), child[1]
        conv.weight, conv.bias = cast(
            "tuple[nn.Parameter, nn.Parameter]",
            fuse_conv_bn_weights(
                conv.weight,
                conv.bias,
                cast(Tensor, norm.running_mean),
                cast(Tensor, norm.running_var),
                norm.eps,
                norm.weight,
                norm.bias,
            ),
        )
        child[1] = nn.Identity()


def _first_convolution(stem: Stem) -> nn.Conv2d:
    return cast(nn.Conv2d, stem.conv1[0])


def fold_normalisation(stem: Stem) -> None:
    """Let the first convolution read pixels 0..255 padded with MEAN, in place; batch norms must be folded already."""
    conv = _first_convolution(stem)
    if conv.bias is None:
        raise ValueError("fold the batch norms before the normalisation")
    with torch.no_grad():
        conv.weight.div_(STD)
        conv.weight.copy_(round_half(conv.weight))  # the bias must match the weights that will really be used
        conv.bias.sub_(MEAN * conv.weight.sum(dim=(1, 2, 3)))
    conv.padding = (0, 0)


def round_half(values: Tensor) -> Tensor:
    """The nearest fp16 values, as fp32."""
    return values.half().float()


def is_stored_half(name: str, value: Tensor) -> bool:
    """Which parameters are stored as fp16: matrices and kernels; vectors are few and stay fp32."""
    return bool(value.is_floating_point() and value.ndim >= 2 and value.numel() >= 256)


class Served(nn.Module):
    """One task of a trained network, folded and rounded. Takes the network over: train no further with it.

    `shares` are the parts of the MLPs' hidden units that it was trained to do with, such as "1/2".
    """

    def __init__(self, network: Network, task: str, shares: Sequence[str] = ()) -> None:
        super().__init__()
        self.task = task
        self.trunk = network.trunk
        self.head = network.heads[task]
        self.shares = tuple(shares)
        self.eval()
        self.requires_grad_(False)
        fold_batch_norms(self)
        fold_normalisation(self.trunk.stem)
        for name, value in self.named_parameters():
            if is_stored_half(name, value):
                value.copy_(round_half(value))

    @property
    def outputs(self) -> tuple[str, ...]:
        """What `forward` answers, by name."""
        names = cast("tuple[str, ...]", self.head.outputs)
        return names if isinstance(self.trunk, LookupVit) else (*names, "tokens")

    def forward(self, images: Tensor, **level: Any) -> tuple[Tensor, ...]:
        """uint8 images [B, H, W, 3] to the outputs (see the head), at the level that the trunk's arguments say.

        `tokens` [B, N] int32 is the group of each patch.
        """
        return self.answer(self.trunk(self.pixels(images), **level))

    def at(self, images: Tensor, plan: Plan) -> dict[str, Tensor]:
        """The outputs for images at a level, by name: what every other way of running it is compared with."""
        with torch.no_grad():
            return dict(zip(self.outputs, self(images, **self.arguments(plan)), strict=True))

    def arguments(self, plan: Plan) -> dict[str, tuple[int, ...]]:
        """A level as arguments of `forward`."""
        names = {"merge": "merge_counts"}
        return {names.get(name, name): values for name, values in plan.inputs.items()}

    def pixels(self, images: Tensor) -> Tensor:
        """uint8 images [B, H, W, 3] to what the folded stem reads."""
        # Stride 2 over an even side never reads the right and bottom padding.
        return F.pad(images.permute(0, 3, 1, 2), (1, 0, 1, 0), value=MEAN).float()

    def answer(self, features: Features) -> tuple[Tensor, ...]:
        """Features to the outputs."""
        answers = cast("tuple[Tensor, ...]", self.head(features))
        return answers if isinstance(self.trunk, LookupVit) else (*answers, features.group.to(torch.int32))

    def levels(self, images: Tensor) -> Trunk:
        """What its levels depend on; MACs of stem and head are counted on an image."""
        config = self.trunk.config
        counted = count_macs(self, images)
        lookup = config.kind == "lookup"
        return Trunk(
            kind=config.kind,
            blocks=config.depth,
            width=config.width,
            hidden=config.width * config.mlp_ratio,
            patches=config.grid**2,
            prefix=0 if lookup else PREFIX,
            fixed=counted["stem"] + counted["head"],
            merge=not lookup,
            shares=() if lookup else self.shares,
            grid=LOOKUP_SIDES if lookup else None,
        )


class Nested(nn.Module):
    """A block's MLP in pieces, the first of which are an MLP of their own: as many run as units are wanted."""

    def __init__(self, block: Block, shares: Sequence[str]) -> None:
        super().__init__()
        hidden = block.fc1.out_features
        self.ends = sorted({hidden, *(int(hidden * Fraction(share)) for share in shares)})
        self.norm, self.last_bias = block.norm2, block.fc2.bias
        begins = [0, *self.ends]
        spans = [slice(begin, end) for begin, end in zip(begins, self.ends, strict=False)]
        self.inner = _parameters(block.fc1.weight[span] for span in spans)
        self.bias = _parameters(block.fc1.bias[span] for span in spans)
        self.outer = _parameters(block.fc2.weight[:, span] for span in spans)

    def forward(self, x: Tensor, units: Tensor) -> Tensor:
        """Tokens [B, t, D] to tokens with the first `units` [1] hidden units."""
        normed = self.norm(x)
        x = x + F.linear(F.gelu(F.linear(normed, self.inner[0], self.bias[0])), self.outer[0], self.last_bias)
        for number, least in enumerate(self.ends[:-1], 1):
            x = operators.widen(x, normed, self.inner[number], self.bias[number], self.outer[number], units, least)
        return x

    def join(self, block: Block) -> None:
        """Write the pieces into the block they are from, in place."""
        block.fc1.weight.copy_(torch.cat(list(self.inner)))
        block.fc1.bias.copy_(torch.cat(list(self.bias)))
        block.fc2.weight.copy_(torch.cat(list(self.outer), dim=1))


def _parameters(parts: Any) -> nn.ParameterList:
    return nn.ParameterList(nn.Parameter(part.clone(), requires_grad=False) for part in parts)


class Levelled(nn.Module):
    """The network as it is exported: the level is an input, and each step that it may leave out an operator."""

    def __init__(self, served: Served) -> None:
        super().__init__()
        self.served = served
        self.outputs = served.outputs
        depth = served.trunk.config.depth
        if isinstance(served.trunk, LookupVit):
            self.examples = {"grid": torch.tensor([4, 5])}
            return
        self.examples = {"merge": torch.tensor([2] * depth)}
        if served.shares:
            self.examples["hidden"] = torch.tensor([1] * depth)
            self.nested = nn.ModuleList(Nested(cast(Block, block), served.shares) for block in served.trunk.blocks)

    def forward(
        self, images: Tensor, merge: Tensor | None = None, hidden: Tensor | None = None, grid: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """uint8 images [B, H, W, 3] and the level's integers (see `models.levels.Plan`) to the outputs."""
        pixels, trunk = self.served.pixels(images), self.served.trunk
        if isinstance(trunk, LookupVit):
            stride4, stride8, patches = trunk.stem(pixels)
            rows, columns = operators.matrices(cast(Tensor, grid), (trunk.config.grid, trunk.config.grid))
            return self.served.answer(trunk.features(stride4, stride8, patches, rows, columns))
        return self.served.answer(self._features(trunk, pixels, cast(Tensor, merge), hidden))

    def _features(self, trunk: Vit, pixels: Tensor, merge: Tensor, hidden: Tensor | None) -> Features:
        """`Vit.forward` with operators for its steps."""
        embedded, stride4, stride8 = trunk.embed(pixels)
        tokens = start(embedded, PREFIX)
        for number, block in enumerate(trunk.blocks):
            wanted = slice(number, number + 1)
            keys = Written(block.attn.qkv)
            attended, _ = block.attend(tokens.x, tokens.key_bias if number else None)
            tokens = operators.merge(
                tokens._replace(x=attended),
                keys.taken(),
                merge[wanted],
                prefix=PREFIX,
                heads=block.attn.heads,
                start=trunk.config.width,
                width=trunk.config.width,
            )
            fed = block.feed(tokens.x) if hidden is None else self.nested[number](tokens.x, hidden[wanted])
            tokens = tokens._replace(x=fed)
        normed = trunk.norm(tokens.x)
        side = trunk.config.grid
        patches = operators.restore(normed[:, PREFIX:], tokens.group).transpose(1, 2).unflatten(2, (side, side))
        return Features(normed[:, 0], patches, stride4, stride8, tokens.group)

    @torch.no_grad()
    def join(self) -> None:
        """Put the pieces of the MLPs back into the blocks."""
        for block, nested in zip(self.served.trunk.blocks, getattr(self, "nested", ()), strict=False):
            nested.join(cast(Block, block))

    def unnamed(self, filled: Collection[str]) -> list[str]:
        """The parameters that an answer depends on and `filled` does not name, neither directly nor as pieces."""
        aliases: dict[int, set[str]] = {}
        for name, parameter in self.named_parameters(remove_duplicate=False):
            aliases.setdefault(parameter.data_ptr(), set()).add(name)
        in_pieces = (".fc1.", ".fc2.weight") if hasattr(self, "nested") else ()
        return sorted(
            min(names)
            for names in aliases.values()
            if names.isdisjoint(filled) and not any(piece in min(names) for piece in in_pieces)
        )


class Written:
    """Listens to what a layer writes in its next call."""

    def __init__(self, layer: nn.Module) -> None:
        self._value: Tensor | None = None
        self._handle = layer.register_forward_hook(self._hear)

    def _hear(self, layer: nn.Module, inputs: Any, output: Tensor) -> None:
        self._value = output

    def taken(self) -> Tensor:
        """What it wrote. Raises ValueError if it was not called."""
        self._handle.remove()
        if self._value is None:
            raise ValueError("the layer was not called")
        return self._value
