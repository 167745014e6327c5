"""A model from outside, from its file to an answer over HTTP."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.e2e.service import ROOT, Service
from tests.unit.decoder.scenes import save
from tests.unit.models.foreign import classifier, written

COLOURS = ("red", "green", "blue")


def add(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "squint", "models", "add", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def colours() -> onnx.ModelProto:
    """A model of one image at a time that says which colour an image has most of."""
    made = classifier(batch=1)
    made.graph.initializer[1].CopyFrom(numpy_helper.from_array(20 * np.eye(3, dtype=np.float32), "weight"))
    return made


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """What one types after `squint models add` for the model of colours."""
    file, labels, transform = written(tmp_path, colours(), "divisor = 255\n", COLOURS)
    files = ["--labels", str(labels), "--transform", str(transform), "--to", str(tmp_path / "zoo")]
    return ["onnx", str(file), "--name", "colours", "--task", "classify", *files, "--cache-dir", str(tmp_path / "c")]


def test_a_graph_is_added_and_served(tmp_path: Path, words: list[str]) -> None:
    done = add(*words)
    assert done.returncode == 0, done.stderr
    assert "onnxruntime/f32: agrees" in done.stdout
    image = np.zeros((60, 90, 3), np.uint8)
    image[..., 1] = 200
    with Service(tmp_path, "--models", str(tmp_path / "zoo"), "--backend", "onnxruntime", fake=False) as service:
        reply = service.request("POST", "/classify?top_k=1", save(image, "PNG"), {"Content-Type": "image/png"})
    answer = reply.json()
    assert reply.status == 200, answer
    assert (answer["model"], answer["level"]) == ("colours", "full")
    assert answer["predictions"][0]["label"] == "green"
    assert answer["predictions"][0]["score"] > 0.99


def test_a_second_version_stands_beside_the_first_and_is_served(tmp_path: Path, words: list[str]) -> None:
    for version in ("1", "2"):
        done = add(*words, "--version", version)
        assert done.returncode == 0, done.stderr
        assert f"wrote {tmp_path}/zoo/colours/{version};" in done.stdout
    assert sorted(path.name for path in (tmp_path / "zoo" / "colours").iterdir()) == ["1", "2"]
    with Service(tmp_path, "--models", str(tmp_path / "zoo"), "--backend", "onnxruntime", fake=False) as service:
        assert service.request("GET", "/v1/models/colours").json()["versions"] == ["2"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "zoo").touch()
    done = add(*words)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"squint: --to {tmp_path}/zoo: Not a directory"


def test_a_graph_that_no_backend_can_run_is_not_kept(tmp_path: Path, words: list[str]) -> None:
    made = colours()
    made.graph.node[1].input[1] = "other"
    made.graph.initializer.append(numpy_helper.from_array(np.array([7, 3], np.int64), "other"))
    onnx.save(made, words[1])
    done = add(*words)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("squint: ONNX Runtime cannot run it: ")
    assert not (tmp_path / "zoo").exists()
