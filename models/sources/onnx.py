"""Any ONNX classifier, detector or segmenter as a graph that obeys the graph contract; its weights stay what they are.

Nodes in front bring uint8 pixels into the form that the graph reads, nodes behind its outputs into those of the task.
A graph of a fixed batch is freed where that takes no more than other constants in its reshapes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, inliner, numpy_helper, version_converter

from models.manifest import Task, Transform
from models.sources.artefact import Source, SourceError
from models.sources.labels import read_labels
from models.sources.macs import count_macs, inferred_shapes
from models.sources.nodes import FLOATS, LEAST_OPSET, Nodes
from models.sources.outputs import Out, connect
from models.sources.preparation import FITS, Preparation, read_preparation

INSIDE = "source/"
BATCH = "batch"
STANDARD = ("", "ai.onnx")


@dataclass(frozen=True)
class Input:
    """The image input of a graph: its name, element type, batch size (0: any), layout and sides (0: any)."""

    name: str
    kind: int
    batch: int
    layout: str
    height: int
    width: int


def bring_in(path: Path, task: Task, labels: Path, transform: Path) -> Source:
    """The graph in an ONNX file as a model for `task`. Raises SourceError."""
    names, preparation = read_labels(labels), read_preparation(transform)
    model = read(path)
    image = image_input(model, preparation)
    height, width = (
        _agreed(word, own, given)
        for word, own, given in (
            ("height", image.height, preparation.height),
            ("width", image.width, preparation.width),
        )
    )
    fitting = preparation.applied(Transform(fit=FITS[task], height=height, width=width))
    wrapped = wrap(model, image, fitting, preparation, task, names)
    return Source(
        task=task,
        labels=names,
        licence="unknown",
        transform=fitting,
        graph=wrapped.SerializeToString(),
        gmacs=count_macs(wrapped, (1, height, width, 3)) / 1e9,
        tokens=0,
        training={"source": f"onnx {path.name}", "producer": f"{model.producer_name} {model.producer_version}".strip()},
    )


def _agreed(word: str, own: int, given: int | None) -> int:
    if given and own and given != own:
        raise SourceError(f"{word} is {given} in the transform file and {own} in the graph")
    if not (given or own):
        raise SourceError(f"the graph takes images of any {word}; the transform file must say which")
    return given or own


def read(path: Path) -> onnx.ModelProto:
    """The model in a file, of standard operators only and of a late enough operator set. Raises SourceError."""
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}") from None
    except Exception:  # of the library that reads the format
        raise SourceError(f"{path}: not an ONNX file") from None
    if not model.graph.node:
        raise SourceError(f"{path}: not an ONNX file with a graph in it")
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            place = next((entry.value for entry in tensor.external_data if entry.key == "location"), "another file")
            raise SourceError(
                f"{path}: keeps weights in {place}; put all into one file first: "
                f"python -c \"import onnx; onnx.save(onnx.load('{path.name}'), 'whole.onnx')\""
            )
    if model.functions:
        model = inliner.inline_local_functions(model)
    foreign = sorted({f"{node.domain}.{node.op_type}" for node in _nodes(model.graph) if node.domain not in STANDARD})
    if foreign:
        raise SourceError(f"{path}: uses operators that are not of the ONNX standard: {', '.join(foreign[:5])}")
    return _modern(path, model)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph, those of graphs inside it too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inside in (attribute.g, *attribute.graphs):
                yield from _nodes(inside)


def _modern(path: Path, model: onnx.ModelProto) -> onnx.ModelProto:
    opset = next((entry.version for entry in model.opset_import if entry.domain in STANDARD), 0)
    newest = onnx.defs.onnx_opset_version()
    if opset > newest:
        raise SourceError(f"{path}: operator set {opset}; the newest that onnx {onnx.__version__} knows is {newest}")
    try:
        if opset < LEAST_OPSET:
            model = version_converter.convert_version(model, LEAST_OPSET)
        onnx.checker.check_model(model)
    except Exception as error:  # the library raises RuntimeError and classes of its own
        line = " ".join(str(error).split())[:200]
        what = f"cannot be brought from operator set {opset} to {LEAST_OPSET}" if opset < LEAST_OPSET else "not valid"
        raise SourceError(f"{path}: {what}: {line}") from None
    return model


def image_input(model: onnx.ModelProto, preparation: Preparation) -> Input:
    """The input that takes the image. Raises SourceError."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = {value.name: value for value in model.graph.input if value.name not in constants}
    if preparation.input and preparation.input not in inputs:
        raise SourceError(f"the graph has no input {preparation.input!r}; it has {', '.join(inputs)}")
    if len(inputs) != 1:
        raise SourceError(f"the graph has the inputs {', '.join(inputs) or 'none'}; one with an image alone is needed")
    (value,) = inputs.values()
    tensor = value.type.tensor_type
    if tensor.elem_type not in (*FLOATS, TensorProto.UINT8):
        raise SourceError(f"input {value.name} is {TensorProto.DataType.Name(tensor.elem_type)}, not float or uint8")
    sides = [dim.dim_value for dim in tensor.shape.dim]
    if len(sides) != 4:
        raise SourceError(f"input {value.name} has {len(sides)} dimensions, expected 4")
    likely = [layout for layout, axis in (("nchw", 1), ("nhwc", 3)) if sides[axis] == 3]
    layout = preparation.layout or (likely[0] if len(likely) == 1 else "")
    if not layout:
        raise SourceError(f"input {value.name} is {sides}; the transform file must say layout = 'nchw' or 'nhwc'")
    if sides[1 if layout == "nchw" else 3] not in (0, 3):
        raise SourceError(f"input {value.name} is {sides}, which is no {layout} image of 3 channels")
    height, width = sides[2:] if layout == "nchw" else sides[1:3]
    return Input(value.name, tensor.elem_type, sides[0], layout, height, width)


def wrap(
    model: onnx.ModelProto, image: Input, fitting: Transform, preparation: Preparation, task: Task, labels: list[str]
) -> onnx.ModelProto:
    """The model with nodes in front and behind. Raises SourceError."""
    outs = outputs_of(model, image, fitting)
    inner = onnx.compose.add_prefix(model, INSIDE)
    if image.batch:
        free_batch(inner.graph, image.batch)
    front, behind = Nodes("front"), Nodes("behind")
    front.name(prepare(front, image, preparation), INSIDE + image.name)
    renamed = {name: out.renamed(INSIDE + name) for name, out in outs.items()}
    values = connect(behind, renamed, task, preparation, fitting, labels)
    graph = helper.make_graph(
        [*front.nodes, *inner.graph.node, *behind.nodes],
        "squint",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, [BATCH, fitting.height, fitting.width, 3])],
        [helper.make_tensor_value_info(name, kind, [BATCH, *dims]) for name, (kind, dims) in values.items()],
        [*front.constants, *inner.graph.initializer, *behind.constants],
    )
    graph.sparse_initializer.extend(inner.graph.sparse_initializer)
    wrapped = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    onnx.checker.check_model(wrapped)
    return wrapped


def outputs_of(model: onnx.ModelProto, image: Input, fitting: Transform) -> dict[str, Out]:
    """The outputs with their lengths, those too that only follow from the input's sides."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    value = next(value for value in fixed.graph.input if value.name == image.name)
    lengths = {"B": image.batch, "C": 3, "H": fitting.height, "W": fitting.width}
    for axis, dim in zip("BCHW" if image.layout == "nchw" else "BHWC", value.type.tensor_type.shape.dim, strict=True):
        if lengths[axis]:
            dim.dim_value = lengths[axis]
    inferred = inferred_shapes(fixed)
    return {value.name: Out.of(value) for value in (inferred or model).graph.output}


def prepare(nodes: Nodes, image: Input, preparation: Preparation) -> str:
    """Nodes from `images` to what the graph reads."""
    value = "images"
    if preparation.channels == "bgr":
        value = nodes.add("Gather", value, nodes.ints(2, 1, 0), axis=3)
    if image.layout == "nchw":
        value = nodes.add("Transpose", value, perm=[0, 3, 1, 2])
    if image.kind == TensorProto.UINT8:
        if preparation.mean or preparation.std:
            raise SourceError("the graph takes uint8 pixels, so mean and std in the transform file mean nothing")
        return value
    mean = np.array(preparation.mean or (0, 0, 0), np.float64)
    std = np.array(preparation.std or (1, 1, 1), np.float64)
    shape = (3, 1, 1) if image.layout == "nchw" else (3,)
    value = nodes.cast(value, TensorProto.FLOAT)
    for op, numbers, neutral in (("Mul", 1 / (preparation.divisor * std), 1), ("Add", -mean / std, 0)):
        if (numbers != neutral).any():
            value = nodes.add(op, value, nodes.constant(numbers.astype(np.float32).reshape(shape)))
    return nodes.cast(value, image.kind) if image.kind != TensorProto.FLOAT else value


def free_batch(graph: onnx.GraphProto, size: int) -> None:
    """Let a graph made for batches of `size` take any, in place, as far as its reshapes are what binds it.

    Whether that was enough shows when it runs.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    del graph.value_info[:]
    for number, node in enumerate(graph.node):
        if node.op_type != "Reshape" or node.input[1] not in constants:
            continue
        shape = numpy_helper.to_array(constants[node.input[1]]).copy()
        if shape.size and shape[0] == size:
            # A reshape can take one length from the others, or the first from its input.
            shape[0] = 0 if (shape[1:] == -1).any() else -1
            node.input[1] = f"{INSIDE}free{number}"
            graph.initializer.append(numpy_helper.from_array(shape, node.input[1]))
