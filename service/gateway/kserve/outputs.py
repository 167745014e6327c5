"""Results as output tensors: what each task's models can answer, and the tensors of one answer.

The first axis is the images of the request. Where they have different numbers of objects or segments, the rest of an
image's row is filled up (index -1, score 0); `count` of detect says how many there are. `json` holds each image's
answer as the REST interface writes it; `raw_NAME` is an output of the network in its own terms.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from service.errors import Refusal
from service.gateway.kserve.tensors import Output
from service.wire.messages.results import Classification, Detections, Raw, Segmentation
from service.wire.messages.worker import Form

RAW = "raw_"
JSON = "json"
_DATATYPES = {
    "bool": "BOOL",
    "float32": "FP32",
    "float64": "FP64",
    **{f"{sign}int{bits}": f"{sign}int{bits}".upper() for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
"""numpy's names as the protocol has them."""


class Spec(msgspec.Struct, frozen=True):
    """An output that can be asked for; `dims` is its shape for one image, -1 where that depends on the image."""

    name: str
    datatype: str
    dims: tuple[int, ...]


class Wanted(msgspec.Struct, frozen=True):
    """An output that is asked for. With `classes`, its highest values as texts `value:index:label`."""

    name: str
    classes: int = 0
    binary: bool | None = None
    """HTTP: in binary form; None where only the request as a whole may say so."""


_OF_TASK: dict[str, tuple[Spec, ...]] = {
    "classify": (Spec("scores", "FP32", (-1,)), Spec("indices", "INT32", (-1,)), Spec("labels", "BYTES", (-1,))),
    "detect": (
        Spec("boxes", "FP32", (-1, 4)),
        Spec("scores", "FP32", (-1,)),
        Spec("indices", "INT32", (-1,)),
        Spec("labels", "BYTES", (-1,)),
        Spec("count", "INT32", ()),
    ),
    "segment": (
        Spec("mask", "BYTES", ()),
        Spec("size", "INT32", (2,)),
        Spec("indices", "INT32", (-1,)),
        Spec("areas", "INT64", (-1,)),
        Spec("labels", "BYTES", (-1,)),
    ),
}


def offered(task: str, forms: Sequence[Form]) -> list[Spec]:
    """The outputs of a model of this task whose network answers `forms`."""
    raw = [Spec(RAW + form.name, _DATATYPES[form.kind], form.shape) for form in forms if form.kind in _DATATYPES]
    return [*_OF_TASK[task], Spec(JSON, "BYTES", ()), *raw]


def check(wanted: Sequence[Wanted], specs: Sequence[Spec], task: str) -> list[Wanted]:
    """The outputs to answer; all there are if none is named. Raises Refusal."""
    names = [spec.name for spec in specs]
    for one in wanted:
        if one.name not in names:
            raise Refusal("bad_request", f"no such output; this model has: {', '.join(names)}"[:1000])
        if one.classes and (task != "classify" or one.name not in ("scores", RAW + "logits")):
            raise Refusal("bad_request", "the parameter classification is for scores and raw_logits of a classifier")
    if len({one.name for one in wanted}) < len(wanted):
        raise Refusal("bad_request", "an output is asked for twice")
    return list(wanted) or [Wanted(name) for name in names]


@dataclass(frozen=True, slots=True)
class Results:
    """What was answered to a request, image by image. `top_k` limits the classes of what is not a classification in
    the sense of Wanted; `described` makes the JSON of an image."""

    labels: list[str]
    results: list[Any]
    raw: list[tuple[Raw, ...]]
    top_k: int
    described: Callable[[int], bytes]


def tensor(wanted: Wanted, served: Results) -> Output:
    """One output of an answer. Raises Refusal."""
    if wanted.name == JSON:
        return Output(JSON, "BYTES", (len(served.results),), [*map(served.described, range(len(served.results)))])
    if wanted.name.startswith(RAW):
        found = _raw(wanted.name, served)
        return _highest(found, wanted.classes, served.labels) if wanted.classes else found
    first = served.results[0]
    if isinstance(first, Classification):
        return _of_classes(wanted, served)
    return _of_objects(wanted.name, served) if isinstance(first, Detections) else _of_segments(wanted.name, served)


def _of_classes(wanted: Wanted, served: Results) -> Output:
    count = len(served.results)
    if wanted.classes:
        rows = [result.predictions[: wanted.classes] for result in served.results]
        texts = [_class(one.score, one.index, served.labels) for row in rows for one in row]
        return Output(wanted.name, "BYTES", (count, len(rows[0])), texts)
    rows = [result.predictions[: served.top_k] for result in served.results]
    return _column(wanted.name, rows, served.labels)


def _of_objects(name: str, served: Results) -> Output:
    rows = [result.objects for result in served.results]
    if name == "count":
        return Output(name, "INT32", (len(rows),), [len(row) for row in rows])
    if name == "boxes":
        longest = max(map(len, rows))
        values = [
            edge for row in rows for box in _filled([one.box for one in row], longest, (0.0,) * 4) for edge in box
        ]
        return Output(name, "FP32", (len(rows), longest, 4), values)
    return _column(name, rows, served.labels)


def _of_segments(name: str, served: Results) -> Output:
    results: list[Segmentation] = served.results
    if name == "mask":
        return Output(name, "BYTES", (len(results),), [_mask(result) for result in results])
    if name == "size":
        return Output(name, "INT32", (len(results), 2), [side for result in results for side in result.size])
    rows = [result.segments for result in results]
    if name == "areas":
        longest = max(map(len, rows))
        areas = [area for row in rows for area in _filled([one.area for one in row], longest, 0)]
        return Output(name, "INT64", (len(rows), longest), areas)
    return _column(name, rows, served.labels)


def _mask(result: Segmentation) -> bytes:
    """The file, the run lengths, or the outlines of each segment as JSON."""
    if result.format == "polygons":
        return msgspec.json.encode([segment.polygons for segment in result.segments])
    return result.png if result.format == "png" else result.rle.encode("ascii")


def _column(name: str, rows: Sequence[Sequence[Any]], labels: list[str]) -> Output:
    """Scores, indices or labels of what was found, image by image."""
    longest = max(map(len, rows))
    shape = (len(rows), longest)
    if name == "scores":
        scores = [value for row in rows for value in _filled([one.score for one in row], longest, 0.0)]
        return Output(name, "FP32", shape, scores)
    indices = [value for row in rows for value in _filled([one.index for one in row], longest, -1)]
    if name == "indices":
        return Output(name, "INT32", shape, indices)
    return Output(name, "BYTES", shape, [labels[index].encode() if index >= 0 else b"" for index in indices])


def _filled(values: list[Any], length: int, filling: Any) -> list[Any]:
    return values + [filling] * (length - len(values))


def _raw(name: str, served: Results) -> Output:
    """A raw output of all images, one behind the other. Raises Refusal when they do not have one shape."""
    found = [one for raw in served.raw for one in raw if RAW + one.name == name]
    shape = found[0].shape if found else ()
    if len(found) < len(served.results) or any(one.shape != shape for one in found):
        raise Refusal("bad_request", f"{name} differs in shape between these images; ask for one image at a time")
    return Output(name, _DATATYPES[found[0].kind], (len(found), *shape), b"".join(one.data for one in found))


def _highest(logits: Output, count: int, labels: list[str]) -> Output:
    """The highest `count` of each image's logits [N, C] as texts."""
    images, classes = logits.shape
    values = array("f", bytes(logits.values)).tolist()
    texts = []
    for start in range(0, images * classes, classes):
        row = values[start : start + classes]
        best = sorted(range(classes), key=lambda index, row=row: -row[index])[:count]  # type: ignore[misc]
        texts += [_class(row[index], index, labels) for index in best]
    return Output(logits.name, "BYTES", (images, min(count, classes)), texts)


def _class(value: float, index: int, labels: list[str]) -> bytes:
    return f"{value:f}:{index}:{labels[index]}".encode()
