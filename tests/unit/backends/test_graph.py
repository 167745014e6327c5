from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from models import manifest
from models.levels import plan
from service.backends import graph
from service.backends.graph import GraphError
from tests.contract import models
from tests.walls import ROOT

LEVELS = ["full", "tome:3", "tome:5,-1+width:1/2"]
SHIPPED = manifest.find([ROOT / "models" / "zoo", ROOT / "models" / "extra"])


def inputs_of(described: manifest.Manifest, explicit: str) -> dict[str, NDArray[np.int64]]:
    return {name: np.array(values, np.int64) for name, values in plan(explicit, described.trunk).inputs.items()}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.levelled(tmp_path_factory.mktemp("models"), "classify")


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_written_into_the_graph_answers_as_the_level_given_to_it(directory: Path, level: str) -> None:
    described = manifest.load(directory)
    data = manifest.read_file(directory, described, described.graph)
    fixed = graph.with_level(data, inputs_of(described, level))
    assert graph.inputs(fixed) == ["images"]
    onnx.checker.check_model(onnx.load_from_string(fixed), full_check=True)
    pictures = models.images(2, described.transform.height)
    wanted = models.answers_at(data, pictures, level)
    evaluator = ReferenceEvaluator(fixed)
    given = dict(zip(evaluator.output_names, evaluator.run(None, {"images": pictures}), strict=True))
    assert all(np.array_equal(given[name], wanted[name]) for name in wanted)


def test_the_batch_is_the_one_free_dimension(directory: Path) -> None:
    described = manifest.load(directory)
    data = manifest.read_file(directory, described, described.graph)
    assert graph.free_dimensions(data) == ["B"]
    for place in SHIPPED.values():
        shipped = manifest.load(place)
        assert len(graph.free_dimensions(manifest.read_file(place, shipped, shipped.graph))) == 1


@pytest.mark.parametrize("name", SHIPPED)
def test_no_shipped_model_pads_pixels_before_it_makes_floats_of_them(name: str) -> None:
    described = manifest.load(SHIPPED[name])
    data = manifest.read_file(SHIPPED[name], described, described.graph)
    before, after = padded(data), padded(graph.with_level(data, inputs_of(described, "full")))
    assert before == [TensorProto.UINT8]
    assert after == [TensorProto.FLOAT]


def padded(data: bytes) -> list[int]:
    """What kind of numbers each Pad of a graph pads with."""
    parsed = onnx.load_from_string(data).graph
    kinds = {tensor.name: tensor.data_type for tensor in parsed.initializer}
    return [kinds[node.input[2]] for node in parsed.node if node.op_type == "Pad"]


def small(*, also: bool) -> bytes:
    """uint8 [B, 2] padded with 7 and made floats of; `also` has somebody read the padded pixels as they are."""
    nodes = [
        helper.make_node("Pad", ["images", "pads", "grey"], ["wide"]),
        helper.make_node("Cast", ["wide"], ["floats"], to=TensorProto.FLOAT),
    ]
    outputs = [helper.make_tensor_value_info("floats", TensorProto.FLOAT, ["B", 4])]
    if also:
        nodes.append(helper.make_node("Identity", ["wide"], ["pixels"]))
        outputs.append(helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["B", 4]))
    made = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["B", 2])],
        outputs,
        [
            numpy_helper.from_array(np.array([0, 1, 0, 1]), "pads"),
            numpy_helper.from_array(np.array(7, np.uint8), "grey"),
        ],
        value_info=[helper.make_tensor_value_info("wide", TensorProto.UINT8, ["B", 4])],
    )
    return bytes(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString())


@pytest.mark.parametrize("also", [False, True])
def test_pixels_are_padded_as_floats_where_nobody_else_reads_them(also: bool) -> None:
    changed = graph.with_level(small(also=also), {})
    assert padded(changed) == [TensorProto.UINT8 if also else TensorProto.FLOAT]
    onnx.checker.check_model(onnx.load_from_string(changed), full_check=True)
    pixels = np.array([[1, 255]], np.uint8)
    given = ReferenceEvaluator(changed).run(["floats"], {"images": pixels})[0]
    assert given.tolist() == [[7, 1, 255, 7]] and given.dtype == np.float32


def test_an_input_that_is_not_there_is_an_error(directory: Path) -> None:
    described = manifest.load(directory)
    data = manifest.read_file(directory, described, described.graph)
    with pytest.raises(GraphError, match="has no input 'grid'"):
        graph.with_level(data, {"grid": np.array([4, 5])})


@pytest.mark.parametrize("data", [b"\x3a\xff", b"\x3a\x05ab", b"\xff" * 30, b"\x07", b"\x38"])
def test_bytes_that_are_no_graph_are_an_error(data: bytes) -> None:
    with pytest.raises(GraphError):
        graph.with_level(data, {"merge": np.array([1])})
