"""A network in bfloat16 keeps in float32 what has to be exact, and answers nearly the same."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from models.levels import plan  # noqa: E402
from models.manifest import Task  # noqa: E402
from models.precision import Convolution, Linear, convert  # noqa: E402
from tests.contract import models, networks  # noqa: E402

pytestmark = pytest.mark.torch

PRECISE = {"classify": {"head.linear"}, "detect": {"head.heat", "head.sides"}, "segment": {"head.out"}}


def pictures() -> Any:
    return torch.from_numpy(models.images(3, networks.SHAPE["side"]))


@pytest.mark.parametrize("task", PRECISE)
def test_all_but_the_first_and_last_layers_are_converted(task: Task) -> None:
    network = networks.served(task)
    convert(network, "bf16")
    layers = {name: module for name, module in network.named_modules() if isinstance(module, Linear | Convolution)}
    kept = {name for name, layer in layers.items() if layer.weight.dtype == torch.float32}
    assert kept == PRECISE[task] | {"trunk.stem.conv1.0"}
    assert not [module for module in network.modules() if type(module) in (torch.nn.Linear, torch.nn.Conv2d)]
    rest = [value for name, value in network.named_parameters() if name.rpartition(".")[0] not in layers]
    assert rest and {value.dtype for value in rest} == {torch.float32}


@pytest.mark.parametrize("level", ["full", "tome:3", "tome:5,-1+width:1/2"])
@pytest.mark.parametrize("kind", ["vit", "lookup"])
def test_answers_are_nearly_the_same_and_as_exact_in_type(kind: networks.Kind, level: str) -> None:
    if kind == "lookup" and level != "full":
        pytest.skip("a level of the other kind")
    network, half = networks.served("classify", kind), networks.served("classify", kind)
    convert(half, "bf16")
    at = plan(level, network.levels(pictures()))
    wanted, given = network.at(pictures(), at), half.at(pictures(), at)
    assert {name: value.dtype for name, value in given.items()} == {name: value.dtype for name, value in wanted.items()}
    if level == "full":
        spread = float(wanted["logits"].std())
        assert 0 < float((given["logits"] - wanted["logits"]).abs().max()) < 0.2 * spread


def test_in_float32_nothing_changes() -> None:
    network = networks.served("detect")
    before = [*network.modules()]
    convert(network, "f32")
    assert [*network.modules()] == before
