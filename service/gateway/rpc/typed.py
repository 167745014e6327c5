"""Between the messages of squint.v1.Vision and our own: options in, answers out."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from service.dispatcher.tickets import Outcome
from service.errors import Refusal
from service.gateway import schemas
from service.gateway.rpc import status
from service.gateway.serving import Serving
from service.proto.squint.v1 import vision_pb2 as pb
from service.wire.messages.results import Classification, Detection, Detections, Options, Segmentation, TokenMap

Request = pb.ClassifyRequest | pb.DetectRequest | pb.SegmentRequest
Response = pb.ClassifyResponse | pb.DetectResponse | pb.SegmentResponse

_PRIORITIES = {pb.PRIORITY_HIGH: "high", pb.PRIORITY_NORMAL: "normal", pb.PRIORITY_LOW: "low"}
_EXPLAIN = {pb.EXPLAIN_TOKENS: "tokens", pb.EXPLAIN_BATCH: "batch", pb.EXPLAIN_ALL: "all"}
_MASKS = {pb.MASK_FORMAT_RLE: "rle", pb.MASK_FORMAT_PNG: "png", pb.MASK_FORMAT_POLYGONS: "polygons"}
_MASK_NUMBERS = {word: number for number, word in _MASKS.items()}
_KEPT_LETTERS = 500
"""Options with longer texts are a stranger's, and not kept."""

_Value = str | int | float | None
_Given = tuple[tuple[str, _Value], ...]


def options(task: str, request: Request) -> tuple[schemas.CommonOptions, Options]:
    """The options of a request, and those that its result depends on; not to be changed, for other requests share
    them. Raises Refusal that names option and bounds."""
    common = request.options
    given: _Given = (
        ("model", common.model),
        ("version", common.version),
        ("level", common.level),
        ("min_level", common.min_level),
        ("timeout_ms", common.timeout_ms or None),
        ("priority", _word(_PRIORITIES, common.priority)),
        ("explain", _word(_EXPLAIN, common.explain)),
        *_OWN[task](request),
    )
    texts = common.model, common.version, common.level, common.min_level
    kept = sum(map(len, texts)) <= _KEPT_LETTERS
    return _parsed(task, given) if kept else _parsed.__wrapped__(task, given)


@lru_cache(1024)
def _parsed(task: str, given: _Given) -> tuple[schemas.CommonOptions, Options]:
    parsed = schemas.parse_options(task, {name: str(value) for name, value in given if value not in ("", None)})
    return parsed, schemas.of_result(parsed)


def _word(words: dict[Any, str], number: int) -> str:
    """What an enumeration's value stands for; a value that this release does not know is for the options to refuse."""
    return words.get(number, str(number)) if number else ""


def _classify_options(request: Any) -> _Given:
    return (("top_k", request.top_k if request.HasField("top_k") else None),)


def _detect_options(request: Any) -> _Given:
    # A float has 24 bits: what was written as 0.3 shall be 0.3 again.
    threshold = float(f"{request.threshold:.7g}") if request.HasField("threshold") else None
    most = request.max_detections if request.HasField("max_detections") else None
    return ("threshold", threshold), ("max_detections", most)


def _segment_options(request: Any) -> _Given:
    return (("mask", _word(_MASKS, request.mask)),)


_OWN: dict[str, Callable[[Any], _Given]] = {
    "classify": _classify_options,
    "detect": _detect_options,
    "segment": _segment_options,
}


def answer(serving: Serving, outcome: Outcome, seconds: float) -> Response:
    """The answer to a request that has a result. Raises Refusal when it was lost."""
    entry = serving.ask.entry
    result, level, model = outcome.result, outcome.level, entry.manifest
    if result is None or level is None:
        raise Refusal("internal", "the result was lost")
    served = pb.Served(
        request_id=serving.request_id,
        model=model.name,
        version=model.version,
        level=level.spelled,
        tokens=level.tokens,
        gmacs=round(level.gmacs, 4),
        backend=entry.backend,
        timing=pb.Timing(
            decode_ms=outcome.decode * 1000,
            queue_ms=outcome.queue * 1000,
            infer_ms=outcome.infer * 1000,
            post_ms=outcome.post * 1000,
            total_ms=seconds * 1000,
        ),
        token_groups=_tokens(outcome.tokens, outcome.box) if outcome.tokens else None,
        course=_course(outcome) if serving.explain else None,
    )
    labels = model.labels
    if isinstance(result, Classification):
        classes = [pb.Class(label=labels[p.index], index=p.index, score=p.score) for p in result.predictions]
        return pb.ClassifyResponse(served=served, predictions=classes)
    if isinstance(result, Detections):
        return pb.DetectResponse(served=served, predictions=[_detection(labels, found) for found in result.objects])
    if isinstance(result, Segmentation):
        return _segmented(served, labels, result)
    raise Refusal("internal", "the result is of another kind")


def error(refusal: Refusal, request_id: str) -> pb.Error:
    """A refusal inside a stream."""
    return pb.Error(
        code=refusal.code, message=refusal.message, request_id=request_id, retry_after_ms=status.retry_ms(refusal)
    )


def _detection(labels: list[str], found: Detection) -> pb.Detection:
    return pb.Detection(label=labels[found.index], index=found.index, score=found.score, box=_box(found.box))


def _box(corners: tuple[float, float, float, float]) -> pb.Box:
    x0, y0, x1, y1 = corners
    return pb.Box(x0=x0, y0=y0, x1=x1, y1=y1)


def _segmented(served: pb.Served, labels: list[str], result: Segmentation) -> pb.SegmentResponse:
    return pb.SegmentResponse(
        served=served,
        height=result.size[0],
        width=result.size[1],
        mask=_MASK_NUMBERS[result.format],
        counts=result.rle if result.format == "rle" else "",
        png=result.png,
        segments=[
            pb.Region(
                label=labels[segment.index],
                index=segment.index,
                area=segment.area,
                counts=segment.rle,
                polygons=[pb.Polygon(points=points) for points in segment.polygons],
            )
            for segment in result.segments
        ],
    )


def _tokens(tokens: TokenMap, box: tuple[float, float, float, float] | None) -> pb.TokenGroups:
    rows, columns = tokens.grid
    runs = [pb.Run(group=group, patches=patches) for group, patches in tokens.runs]
    place = None if box is None else _box(box)
    return pb.TokenGroups(rows=rows, columns=columns, runs=runs, sizes=tokens.sizes, box=place)


def _course(outcome: Outcome) -> pb.Course:
    return pb.Course(
        items=outcome.batch,
        closed=outcome.closed,
        decoder_wait_ms=outcome.decoder_wait * 1000,
        worker_wait_ms=outcome.queue * 1000,
    )
