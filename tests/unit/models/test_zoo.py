"""The shipped models are whole, small enough, and answer as their reference says."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import load

from models import manifest
from models.toyscape import CLASSES

ZOO = Path(manifest.__file__).parent / "zoo"
NAMES = ("toyscape-classify", "toyscape-detect", "toyscape-segment")
OUTPUTS = {"classify": {"logits", "embedding"}, "detect": {"boxes", "scores", "labels"}, "segment": {"mask"}}


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_model_is_whole_and_at_most_12_mb(name: str) -> None:
    directory = manifest.find([ZOO])[name]
    described = manifest.load(directory)
    assert described.name == name
    expected = ["background", *CLASSES] if described.task == "segment" else list(CLASSES)
    assert described.labels == expected
    for file in described.files:
        manifest.read_file(directory, described, file)
    assert sum(path.stat().st_size for path in directory.iterdir()) <= 12_000_000
    assert described.training["minutes"] > 0
    assert described.evaluation["scenes"] >= 2000


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_graph_answers_as_its_reference(name: str) -> None:
    directory = manifest.find([ZOO])[name]
    described = manifest.load(directory)
    reference = load(manifest.read_file(directory, described, described.reference))
    assert set(reference) == {"images"} | OUTPUTS[described.task]
    assert reference["images"].shape == (8, described.transform.height, described.transform.width, 3)
    graph = manifest.read_file(directory, described, described.graph)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    answers = session.run(None, {"images": reference["images"]})
    for output, answer in zip(session.get_outputs(), answers, strict=True):
        expected = reference[output.name]
        assert answer.dtype == expected.dtype
        if answer.dtype == np.float32:
            assert float(np.abs(answer - expected).max()) < 1e-3
        else:
            assert float((answer == expected).mean()) > 0.999
