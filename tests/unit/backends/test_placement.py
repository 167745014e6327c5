from __future__ import annotations

from pathlib import Path

import pytest

from models import manifest
from service.backends import cuda, onnxruntime, placement
from service.backends.base import Artefact, BackendError
from service.backends.placement import CPU, Node
from tests.contract import models

CUDA = "CUDAExecutionProvider"


def test_a_node_on_the_cpu_is_seen() -> None:
    nodes = [Node(CUDA, "MatMul", "a"), Node(CPU, "TopK", "b"), Node(CPU, "TopK", "c"), Node(CPU, "Pad", "d")]
    assert placement.fallen_back(nodes) == "3 nodes run on the CPU: 2 x TopK, 1 x Pad"
    assert placement.summary(nodes) == {CUDA: 1, CPU: 3}


def test_arithmetic_on_shapes_is_forgiven() -> None:
    assert not placement.fallen_back([Node(CPU, "Shape", "a"), Node(CPU, "Concat", "b"), Node(CUDA, "TopK", "c")])


def test_a_line_names_few_kinds() -> None:
    line = placement.fallen_back([Node(CPU, f"Kind{number}", "") for number in range(9)])
    assert line.endswith("and 4 kinds more") and len(line) < 120


class Elsewhere(cuda.Sessions):
    """Sessions on the CPU that are taken for a device's."""

    def __init__(self, artefact: Artefact) -> None:
        super().__init__(onnxruntime.library(), artefact, (CPU, {}))
        self.kind = "somewhere"


def test_a_session_of_the_real_library_tells_where_its_nodes_run(tmp_path: Path) -> None:
    directory = models.levelled(tmp_path, "classify")
    described = manifest.load(directory)
    artefact = Artefact(manifest=described, graph=manifest.read_file(directory, described, described.graph))
    backend = onnxruntime.load(artefact, "f32")
    level = backend._inputs("full")
    plain = cuda.Sessions(onnxruntime.library(), artefact, (CPU, {}))
    found = cuda.nodes(plain.open(level, 2))
    assert {node.provider for node in found} == {CPU} and len(found) > 50
    # Every level with the batch known: no branch and no arithmetic on shapes is left.
    for explicit in models.LEVELS:
        kinds = {node.kind for node in cuda.nodes(plain.open(backend._inputs(explicit), 2))}
        assert not kinds & {"If", "Loop", "Scan", "Shape", "Size", "ConstantOfShape", "Range"}
    with pytest.raises(BackendError, match=r"nodes run on the CPU: .*MatMul"):
        Elsewhere(artefact).open(level, 2)
    backend.close()
