"""Graphs from outside: what is put around them, on ONNX's own evaluator, against the same worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from models.manifest import Task
from models.sources.artefact import Source, SourceError
from models.sources.onnx import bring_in
from tests.unit.models.foreign import Node, classifier, model, passing, written

ABC = ("a", "b", "c")
IMAGES = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3), np.uint8)
FLOAT = TensorProto.FLOAT


def brought(
    folder: Path, made: onnx.ModelProto, transform: str = "", task: Task = "classify", labels: tuple[str, ...] = ABC
) -> Source:
    file, names, preparation = written(folder, made, transform, labels)
    return bring_in(file, task, names, preparation)


def answers(source: Source, images: NDArray[np.uint8] = IMAGES) -> dict[str, NDArray[Any]]:
    evaluator = ReferenceEvaluator(source.graph)
    return dict(zip(evaluator.output_names, evaluator.run(None, {"images": images}), strict=True))


def raw(made: onnx.ModelProto, pixels: NDArray[Any]) -> NDArray[Any]:
    """What the graph itself answers."""
    (out,) = ReferenceEvaluator(made).run(None, {"pixels": pixels})
    return np.asarray(out)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_pixels_reach_a_classifier_as_it_was_trained_on_them(tmp_path: Path, layout: str) -> None:
    made = classifier(layout=layout)
    source = brought(
        tmp_path,
        made,
        'channels = "bgr"\nmean = [0.4, 0.5, 0.6]\nstd = [0.2, 0.3, 0.4]\nkeep = 0.875\nfilter = "bilinear"',
    )
    pixels = ((IMAGES[..., ::-1] / 255 - [0.4, 0.5, 0.6]) / [0.2, 0.3, 0.4]).astype(np.float32)
    expected = raw(made, pixels.transpose(0, 3, 1, 2) if layout == "nchw" else pixels)
    assert np.allclose(answers(source)["logits"], expected, atol=1e-5)
    transform = source.transform
    assert (transform.fit, transform.height, transform.width) == ("crop", 8, 8)
    assert (transform.keep, transform.filter) == (0.875, "bilinear")


def test_values_may_be_of_0_to_255(tmp_path: Path) -> None:
    made = classifier()
    source = brought(tmp_path, made, "divisor = 1\nmean = [104, 117, 123]")
    pixels = (IMAGES.astype(np.float32) - [104, 117, 123]).transpose(0, 3, 1, 2).astype(np.float32)
    assert np.allclose(answers(source)["logits"], raw(made, pixels), atol=1e-3)


def test_a_graph_of_uint8_gets_nothing_in_front(tmp_path: Path) -> None:
    made = classifier(layout="nhwc", kind=TensorProto.UINT8)
    source = brought(tmp_path, made)
    assert np.array_equal(answers(source)["logits"], raw(made, IMAGES))
    first = onnx.load_model_from_string(source.graph).graph.node[0]
    assert (first.op_type, first.input[0]) == ("Identity", "images")


def test_a_graph_of_fp16_answers_fp32(tmp_path: Path) -> None:
    made = classifier(kind=TensorProto.FLOAT16)
    out = answers(brought(tmp_path, made))["logits"]
    assert out.dtype == np.float32
    expected = raw(made, (IMAGES / 255).transpose(0, 3, 1, 2).astype(np.float16))
    assert np.allclose(out, expected, atol=0.01)


def test_probabilities_become_logits_of_the_same_probabilities(tmp_path: Path) -> None:
    made = classifier(ending="Softmax")
    source = brought(tmp_path, made, '[outputs]\nprobabilities = "out"')
    logits = answers(source)["logits"]
    expected = raw(made, (IMAGES / 255).transpose(0, 3, 1, 2).astype(np.float32))
    assert np.allclose(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), expected, atol=1e-6)


def test_a_fixed_batch_is_freed(tmp_path: Path) -> None:
    source = brought(tmp_path, classifier(batch=1))
    together = answers(source)["logits"]
    alone = [answers(source, IMAGES[i : i + 1])["logits"][0] for i in range(2)]
    assert np.allclose(together, np.stack(alone), atol=1e-6)
    assert onnx.load_model_from_string(source.graph).graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_an_older_operator_set_is_brought_up(tmp_path: Path) -> None:
    made = classifier(opset=11)
    logits = answers(brought(tmp_path, made))["logits"]
    assert np.allclose(logits, raw(made, (IMAGES / 255).transpose(0, 3, 1, 2).astype(np.float32)), atol=1e-6)


def test_sides_the_graph_leaves_open_are_the_files(tmp_path: Path) -> None:
    source = brought(tmp_path, classifier(side="S"), "height = 8\nwidth = 12")
    assert (source.transform.height, source.transform.width) == (8, 12)


def test_the_weights_stay_what_they_are_and_the_record_says_where_from(tmp_path: Path) -> None:
    made = classifier()
    source = brought(tmp_path, made)
    kept = {tensor.name: tensor.raw_data for tensor in onnx.load_model_from_string(source.graph).graph.initializer}
    assert kept["source/weight"] == made.graph.initializer[1].raw_data
    assert source.training["source"] == "onnx model.onnx"
    assert source.gmacs == pytest.approx(9e-9)


# --- detectors --------------------------------------------------------------------------------------------------


def test_boxes_scores_and_labels_of_another_form(tmp_path: Path) -> None:
    boxes = np.array([[[0.1, 0.2, 0.3, 0.6], [0.5, 0.0, 1.0, 0.5]]], np.float32)
    values = {"b": boxes, "s": np.array([[0.3, 0.9]], np.float32), "c": np.array([[2, 1]], np.float32)}
    dims = {"b": (FLOAT, ["N", 2, 4]), "s": (FLOAT, ["N", 2]), "c": (FLOAT, ["N", 2])}
    text = '[outputs]\nboxes = "b"\nscores = "s"\nlabels = "c"\n[detect]\nform = "yxyx"\nunit = "fraction"'
    source = brought(tmp_path, passing(dims, values), text, "detect")
    out = answers(source)
    assert np.allclose(out["boxes"], np.array([[[0.0, 0.5, 0.5, 1.0], [0.2, 0.1, 0.6, 0.3]]] * 2))
    assert np.allclose(out["scores"], [[0.9, 0.3]] * 2)
    assert out["labels"].dtype == np.int64
    assert out["labels"].tolist() == [[1, 2]] * 2
    assert source.transform.fit == "letterbox"


@pytest.mark.parametrize("background", ["first", "last"])
def test_queries_with_a_class_that_is_none(tmp_path: Path, background: str) -> None:
    """As DETR answers: logits of softmax with one class more, boxes by their middle."""
    logits = np.random.default_rng(2).normal(0, 2, (1, 6, 4)).astype(np.float32)
    boxes = np.random.default_rng(3).uniform(0.2, 0.8, (1, 6, 4)).astype(np.float32)
    dims = {"logits": (FLOAT, ["N", 6, 4]), "boxes": (FLOAT, ["N", 6, 4])}
    text = f"""[outputs]
boxes = "boxes"
class_scores = "logits"
[detect]
form = "cxcywh"
unit = "fraction"
activation = "softmax"
background = "{background}"
most = 4"""
    out = answers(brought(tmp_path, passing(dims, {"logits": logits, "boxes": boxes}), text, "detect"))
    chances = np.exp(logits[0]) / np.exp(logits[0]).sum(axis=1, keepdims=True)
    chances = chances[:, 1:] if background == "first" else chances[:, :-1]
    order = np.argsort(-chances.max(axis=1))[:4]
    assert np.allclose(out["scores"][0], chances.max(axis=1)[order], atol=1e-6)
    assert out["labels"][0].tolist() == chances.argmax(axis=1)[order].tolist()
    middle, size = boxes[0, order, :2], boxes[0, order, 2:]
    assert np.allclose(out["boxes"][0], np.concatenate([middle - size / 2, middle + size / 2], axis=1), atol=1e-6)


def iou(one: NDArray[Any], other: NDArray[Any]) -> float:
    shared = np.prod(np.clip(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0, None))
    return float(shared / (np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - shared))


@pytest.mark.parametrize("columns", ["middle", "last"])
def test_overlapping_boxes_of_a_class_are_sorted_out(tmp_path: Path, columns: str) -> None:
    """One output of many boxes by column, in pixels, as YOLO answers: [N, 4 + 1 + classes, boxes] or turned."""
    random = np.random.default_rng(4)
    count = 40
    pixels = np.concatenate([random.uniform(2, 6, (count, 2)), random.uniform(1, 4, (count, 2))], axis=1)
    objectness, chances = random.uniform(0, 1, (count, 1)), random.uniform(0, 1, (count, 3))
    table = np.concatenate([pixels, objectness, chances], axis=1)[None].astype(np.float32)
    value = table.transpose(0, 2, 1) if columns == "middle" else table
    made = passing({"out": (FLOAT, ["N", *value.shape[1:]])}, {"out": value})
    text = f"""[outputs]
boxes = "out[0:4]"
objectness = "out[4:5]"
class_scores = "out[5:8]"
[detect]
form = "cxcywh"
columns = "{columns}"
overlap = 0.5"""
    out = answers(brought(tmp_path, made, text, "detect"))
    scores = (objectness * chances).astype(np.float32)
    best, labels = scores.max(axis=1), scores.argmax(axis=1)
    boxes = np.concatenate([pixels[:, :2] - pixels[:, 2:] / 2, pixels[:, :2] + pixels[:, 2:] / 2], axis=1) / 8
    kept: list[int] = []
    for i in np.argsort(-best, kind="stable"):
        if all(labels[i] != labels[j] or iou(boxes[i], boxes[j]) <= 0.5 for j in kept):
            kept.append(int(i))
    assert 3 < len(kept) < count
    for image in range(2):
        found = out["scores"][image] > 0
        assert found.sum() == len(kept)
        assert np.allclose(out["scores"][image][found], best[kept], atol=1e-6)
        assert np.allclose(out["boxes"][image][found], boxes[kept], atol=1e-5)
        assert out["labels"][image][found].tolist() == labels[kept].tolist()


# --- segmenters -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["first", "last", "unknown"])
def test_scores_of_each_class_become_a_mask(tmp_path: Path, layout: str) -> None:
    scores = np.random.default_rng(6).normal(0, 1, (1, 3, 4, 5)).astype(np.float32)
    value = scores.transpose(0, 2, 3, 1) if layout == "last" else scores
    dims = ["N", "C", "H", "W"] if layout == "unknown" else ["N", *value.shape[1:]]
    out = answers(brought(tmp_path, passing({"o": (FLOAT, dims)}, {"o": value}), "", "segment"))
    assert out["mask"].dtype == np.uint8
    assert np.array_equal(out["mask"], np.repeat(scores.argmax(axis=1), 2, axis=0))


def test_one_channel_is_a_foreground(tmp_path: Path) -> None:
    chance = np.random.default_rng(7).uniform(0, 1, (1, 1, 4, 4)).astype(np.float32)
    made = passing({"o": (FLOAT, ["N", 1, 4, 4])}, {"o": chance})
    source = brought(tmp_path, made, "threshold = 0.3", "segment", ("background", "thing"))
    assert np.array_equal(answers(source)["mask"][0], chance[0, 0] > 0.3)


def test_a_mask_of_many_classes_is_uint16(tmp_path: Path) -> None:
    indices = np.arange(16).reshape(1, 1, 4, 4) * 20
    made = passing({"o": (TensorProto.INT64, ["N", 1, 4, 4])}, {"o": indices})
    labels = tuple(f"class {number}" for number in range(301))
    out = answers(brought(tmp_path, made, '[outputs]\nmask = "o"', "segment", labels))["mask"]
    assert out.dtype == np.uint16
    assert np.array_equal(out[0], indices[0, 0])


# --- what is refused --------------------------------------------------------------------------------------------

TWO = {"a": (FLOAT, ["N", 2, 4]), "b": (FLOAT, ["N", 2, 5])}
SCORES = {"o": (FLOAT, ["N", 5, 4, 4])}
SCORES_VALUES = {"o": np.ones((1, 5, 4, 4), np.float32)}
TWO_VALUES = {"a": np.ones((1, 2, 4), np.float32), "b": np.ones((1, 2, 5), np.float32)}


@pytest.mark.parametrize(
    ("made", "task", "transform", "said"),
    [
        (classifier(), "classify", "height = 9", "height is 9 in the transform file and 8 in the graph"),
        (classifier(side="S"), "classify", "", "images of any height"),
        (classifier(classes=4), "classify", "", "holds 3 names, the graph answers 4 classes"),
        (classifier(), "classify", 'input = "x"', "no input 'x'; it has pixels"),
        (classifier(), "classify", '[outputs]\nlogits = "x"', "no output 'x'; it has out"),
        (classifier(), "classify", '[outputs]\nboxes = "out"', "[outputs] names boxes; a model that does classify"),
        (classifier(), "classify", 'layout = "nhwc"', "no nhwc image of 3 channels"),
        (classifier(kind=TensorProto.UINT8), "classify", "std = [1, 1, 1]", "takes uint8 pixels"),
        (classifier(), "classify", "sizes = 3", "unknown field `sizes`"),
        (classifier(), "classify", "height = ", "transform.toml"),
        (classifier(), "classify", 'fit = "letterbox"\nkeep = 0.5', "keep is for crop and stretch"),
        (passing(TWO, TWO_VALUES), "classify", "", "[outputs] names nothing"),
        (passing(TWO, TWO_VALUES), "detect", '[outputs]\nboxes = "a"\nclass_scores = "b"', "5 columns, expected 3"),
        (passing(TWO, TWO_VALUES), "detect", '[outputs]\nboxes = "a"\nclass_scores = "b[2:9]"', "no such columns"),
        (passing(SCORES, SCORES_VALUES), "segment", "", "is [None, 5, 4, 4], no length of which is that of 3 labels"),
        (passing(TWO, TWO_VALUES), "segment", '[outputs]\nclass_scores = "a"', "3 dimensions, expected 4"),
    ],
)
def test_what_does_not_fit_is_told_in_a_line(
    tmp_path: Path, made: onnx.ModelProto, task: Task, transform: str, said: str
) -> None:
    with pytest.raises(SourceError) as caught:
        brought(tmp_path, made, transform, task)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_operators_nobody_knows_are_named(tmp_path: Path) -> None:
    nodes: list[Node] = [("acme.Magic", ["pixels"], ["out"], {})]
    made = model(nodes, {"pixels": (FLOAT, ["N", 3, 8, 8])}, {"out": (FLOAT, ["N", 3])}, {}, domains=["acme"])
    with pytest.raises(SourceError, match=r"not of the ONNX standard: acme\.Magic"):
        brought(tmp_path, made)


def test_an_operator_set_of_the_future_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="operator set 99; the newest"):
        brought(tmp_path, classifier(opset=99))


def test_weights_in_another_file_are_told(tmp_path: Path) -> None:
    file, labels, transform = written(tmp_path, classifier(), "", ABC)
    onnx.save(onnx.load(file), file, save_as_external_data=True, location="weights.bin", size_threshold=0)
    with pytest.raises(SourceError, match=r"keeps weights in weights\.bin; put all into one file"):
        bring_in(file, "classify", labels, transform)


@pytest.mark.parametrize("data", [b"", b"not a model", b"\x00" * 100])
def test_a_file_that_is_no_model(tmp_path: Path, data: bytes) -> None:
    file, labels, transform = written(tmp_path, classifier(), "", ABC)
    file.write_bytes(data)
    with pytest.raises(SourceError, match=r"model\.onnx: not an ONNX file"):
        bring_in(file, "classify", labels, transform)
    file.unlink()
    with pytest.raises(SourceError, match=r"model\.onnx: No such file"):
        bring_in(file, "classify", labels, transform)
