"""Networks with their level as an input: traced, written as standard nodes, and run, they answer as PyTorch does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from models.backbones import lookup  # noqa: E402
from models.backbones.vit import VitConfig  # noqa: E402
from models.export import numpy_outputs, store_half, to_onnx  # noqa: E402
from models.graph import nodes, operators  # noqa: E402
from models.graph.weights import fill, name_weights  # noqa: E402
from models.levels import plan  # noqa: E402
from models.network import Network  # noqa: E402
from models.reduction.tokens import start  # noqa: E402
from models.reduction.tome import merge  # noqa: E402
from models.served import Levelled, Nested, Served, Written  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]  # the exporter's own deprecations
SHAPE: dict[str, Any] = {"side": 64, "width": 48, "depth": 3, "heads": 3, "stem": (8, 16, 24)}
MERGES = [
    "full",
    "tome:1",
    "tome:3",
    "tome:4",
    "tome:8",
    "tome:16",
    "tome:3,-1",
    "tome:2,0.5",
    "tome:0/5",
    "tome:7/0/2",
]
WIDTHS = ["width:1/2", "width:1/4", "tome:3+width:1/2", "tome:7/0/2+width:1/4"]
GRIDS = ["full", *(f"lookup:{rows}x{columns}" for rows in (3, 4, 10) for columns in (3, 7, 10))]


def served(task: str, kind: Any = "vit", shares: tuple[str, ...] = ()) -> Served:
    """A network whose tokens differ enough that rounding decides no merge."""
    torch.manual_seed(3)
    network = Network(VitConfig(kind=kind, **SHAPE), 5, (task,))
    for parameter in network.trunk.blocks.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    torch.nn.init.normal_(network.trunk.positions, std=0.5)
    return Served(network, task, shares)


def images(count: int = 3) -> Any:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 64, 64, 3), dtype=torch.uint8, generator=generator)


def session(graph: Any) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])


def run(running: Any, pictures: Any, level: str, trunk: Any) -> dict[str, Any]:
    inputs = {name: np.array(values, np.int64) for name, values in plan(level, trunk).inputs.items()}
    names = [output.name for output in running.get_outputs()]
    return dict(zip(names, running.run(None, {"images": pictures.numpy(), **inputs}), strict=True))


@pytest.mark.parametrize(
    ("task", "kind", "shares"),
    [("classify", "vit", ("1/2", "1/4")), ("detect", "vit", ()), ("segment", "vit", ()), ("classify", "lookup", ())],
)
def test_every_level_of_one_graph_answers_as_pytorch_does(task: str, kind: str, shares: tuple[str, ...]) -> None:
    model = served(task, kind, shares)
    trunk = model.levels(images())
    graph = to_onnx(Levelled(model), images())
    store_half(graph)
    onnx.checker.check_model(graph)
    assert {node.domain for node in graph.graph.node} == {""}
    running = session(graph)
    for level in GRIDS if kind == "lookup" else [*MERGES, *(WIDTHS if shares else ())]:
        for count in (1, 3):
            wanted = numpy_outputs(model.at(images(count), plan(level, trunk)))
            given = run(running, images(count), level, trunk)
            assert list(given) == list(wanted) == list(model.outputs)
            real = wanted["scores"] > 1e-6 if task == "detect" else ...  # which of no boxes come first is chance
            for name, expected in wanted.items():
                assert given[name].dtype == expected.dtype and given[name].shape == expected.shape
                one, other = (values[... if name == "tokens" else real] for values in (given[name], expected))
                if expected.dtype == np.float32:
                    assert np.abs(one - other).max() < 1e-4, (level, name)
                else:
                    assert (one == other).mean() > (0.999 if name == "mask" else 0.9999), (level, name)


def test_levels_add_next_to_nothing_to_the_file() -> None:
    torch.manual_seed(0)
    shape = {**SHAPE, "width": 192, "stem": (16, 32, 64)}
    plain = to_onnx(Served(Network(VitConfig(**shape), 5, ("classify",)), "classify"), images())
    model = Served(Network(VitConfig(**shape), 5, ("classify",)), "classify", ("1/2",))
    assert len(to_onnx(Levelled(model), images()).SerializeToString()) < 1.05 * len(plain.SerializeToString())


def test_a_batch_that_became_a_constant_is_refused() -> None:
    class Constant(torch.nn.Module):  # type: ignore[name-defined]
        outputs = ("size",)

        def forward(self, images: Any) -> Any:
            return (images.float() * len(images),)

    with pytest.raises(Exception, match="batch"):
        to_onnx(Constant(), images())


@pytest.mark.parametrize("start_at", [0, 24])
@pytest.mark.parametrize("count", [0, 1, 3, 8, 99])
def test_the_operator_merges_as_the_function_does(count: int, start_at: int) -> None:
    generator = torch.Generator().manual_seed(count)
    tokens = start(torch.randn(2, 18, 12, generator=generator), prefix=2)
    written = torch.randn(2, 18, 24 + start_at, generator=generator)
    heads = written[:, :, start_at:].unflatten(2, (3, 8)).transpose(1, 2)
    given = operators.merge(tokens, written, torch.tensor([count]), prefix=2, heads=3, start=start_at)
    for one, other in zip(given, merge(tokens, heads, count, prefix=2), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("side", [2, 3, 5, 7, 10, 14, 16])
def test_resampling_in_the_graph_is_the_one_of_training(side: int) -> None:
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    inputs = [helper.make_tensor_value_info("side", onnx.TensorProto.INT64, [1])]
    outputs = [helper.make_tensor_value_info("matrix", onnx.TensorProto.FLOAT, ["rows", 14])]
    node = helper.make_node("Resampling", ["side"], ["matrix"], domain=nodes.DOMAIN, source=14)
    domains = [helper.make_opsetid("", 18), helper.make_opsetid(nodes.DOMAIN, 1)]
    graph = helper.make_model(helper.make_graph([node], "g", inputs, outputs), opset_imports=domains)
    nodes.expand(graph)
    onnx.checker.check_model(graph)
    (matrix,) = ReferenceEvaluator(graph).run(None, {"side": np.array([side])})
    assert np.abs(matrix - lookup.resampling(side, 14).numpy()).max() < 1e-6


def test_pieces_of_an_mlp_are_the_mlp() -> None:
    block = served("classify").trunk.blocks[0]
    x = torch.randn(2, 9, 48)
    nested = Nested(block, ("1/2", "1/4"))
    for units, hidden in ((192, None), (96, 96), (48, 48)):
        assert torch.allclose(nested(x, torch.tensor([units])), block.feed(x, hidden), atol=1e-5)


def test_nothing_is_heard_of_a_layer_that_is_not_called() -> None:
    layer = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match="not called"):
        Written(layer).taken()
    heard = Written(layer)
    written = layer(torch.ones(1, 2))
    assert heard.taken() is written
    layer(torch.zeros(1, 2))
    assert torch.equal(layer(torch.ones(1, 2)), written)


class Tied(torch.nn.Module):  # type: ignore[name-defined]
    """One matrix used twice, and one that only looks like it."""

    outputs = ("answer",)

    def __init__(self, alike: bool) -> None:
        super().__init__()
        self.one, self.two, self.three = (torch.nn.Linear(48, 48) for _ in range(3))
        self.two.weight = self.one.weight
        if alike:
            self.three.load_state_dict(self.one.state_dict())

    def forward(self, images: Any) -> Any:
        """Numbers [B, 48] to as many."""
        return self.three(self.two(self.one(images).relu()).relu())


def test_weights_that_are_shared_or_alike_are_read_back() -> None:
    model, again = Tied(alike=True).eval().requires_grad_(False), Tied(alike=False)
    graph = to_onnx(model, torch.zeros(2, 48))
    name_weights(graph, model)
    assert fill(again, graph) == {"one.weight", "one.bias", "two.bias", "three.weight", "three.bias"}
    assert again.two.weight is again.one.weight and again.three.weight is not again.one.weight
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    (note,) = [note for note in graph.metadata_props if note.key == "squint.alike:three.bias"]
    note.key, note.value = "squint.uniform:three.bias", "many"
    with pytest.raises(ValueError, match="many"):
        fill(again, graph)
