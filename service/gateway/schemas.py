"""What goes in and out over HTTP: options with their bounds, and the answers as the OpenAPI document shows them.

The options are validated with these models. Answers are built as plain structures for speed; a test holds them
against the models here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.core.batching import CloseReason
from service.errors import Refusal
from service.wire import messages

Name = Annotated[str, Field(min_length=1, max_length=64)]
Side = Annotated[int, Field(ge=1, le=65_535)]
Count = Annotated[int, Field(ge=0, le=1_000_000)]
Outline = Annotated[list[float], Field(max_length=1_000_000)]
LevelName = Annotated[str, Field(min_length=1, max_length=200)]
TIMEOUT_HEADER = "x-request-timeout-ms"
OPTION_HEADER = "x-squint-"
_TIMEOUT, _OPTION = TIMEOUT_HEADER.encode("ascii"), OPTION_HEADER.encode("ascii")
_OF_RESULT = set(messages.Options.__struct_fields__)


class CommonOptions(BaseModel):
    """Options of every task; each is a query parameter or an `X-Squint-...` header."""

    model_config = ConfigDict(extra="forbid")

    model: Name | None = Field(None, description="Model to use; needed when several serve the task.")
    level: LevelName | None = Field(
        None,
        description="Level to serve at: a named one, `auto`, or an explicit one; `/v1/models` lists what there is.",
        examples=["fast", "auto", "tome:8+width:1/2"],
    )
    min_level: LevelName | None = Field(
        None, description="With `level=auto`, the lowest level that is acceptable, by GMACs.", examples=["balanced"]
    )
    timeout_ms: int | None = Field(
        None, ge=1, le=3_600_000, description="Milliseconds until the answer is of no more use."
    )
    priority: Literal["high", "normal", "low"] = Field("normal", description="Who goes first when there is a queue.")
    explain: Literal["tokens", "batch", "all"] | None = Field(
        None,
        description="Have the answer tell which parts of the image were merged (`tokens`, for models that merge"
        " tokens), what the image waited for and why its batch was closed (`batch`), or all there is to tell (`all`).",
    )


class ClassifyOptions(CommonOptions):
    """Options of `/classify`."""

    top_k: int = Field(5, ge=1, le=1000, description="How many classes to answer.")


class DetectOptions(CommonOptions):
    """Options of `/detect`."""

    threshold: float = Field(0.3, ge=0.0, le=1.0, description="Least score of an object.")
    max_detections: int = Field(100, ge=1, le=1000, description="Most objects to answer.")


class SegmentOptions(CommonOptions):
    """Options of `/segment`."""

    mask: Literal["rle", "png", "polygons"] = Field("rle", description="How the mask is written.")


OPTIONS: dict[str, type[CommonOptions]] = {
    "classify": ClassifyOptions,
    "detect": DetectOptions,
    "segment": SegmentOptions,
}


_KEPT_BYTES = 500
"""Longer queries and headers are a stranger's, and not kept."""
_Given = tuple[tuple[bytes, bytes], ...]


def options(task: str, query: bytes, headers: Iterable[tuple[bytes, bytes]]) -> tuple[CommonOptions, messages.Options]:
    """The options of a request, and those among them that a task's result depends on; not to be changed, for other
    requests share them. The query wins over headers. Raises Refusal that names option and bounds."""
    given = tuple(pair for pair in headers if pair[0].startswith(_OPTION) or pair[0] == _TIMEOUT)
    if len(query) + sum(len(name) + len(value) for name, value in given) > _KEPT_BYTES:
        return _cached.__wrapped__(task, query, given)
    return _cached(task, query, given)


@lru_cache(1024)
def _cached(task: str, query: bytes, headers: _Given) -> tuple[CommonOptions, messages.Options]:
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    first = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(headers)}
    parsed = parse_options(task, dict(pairs), first)
    of_result = parsed.model_dump(include=_OF_RESULT)
    of_result["explain"] = "tokens" if parsed.explain in ("tokens", "all") else None
    return parsed, messages.Options(**of_result)


def parse_options(task: str, query: Mapping[str, str], headers: Mapping[str, str]) -> CommonOptions:
    """The options of a request; the query wins over headers. Raises Refusal that names option and bounds."""
    kind = OPTIONS[task]
    given: dict[str, Any] = {}
    if TIMEOUT_HEADER in headers:
        given["timeout_ms"] = headers[TIMEOUT_HEADER]
    for name in kind.model_fields:
        value = headers.get(OPTION_HEADER + name.replace("_", "-"))
        if value is not None:
            given[name] = value
    given.update(query)
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        name = str(error.errors(include_url=False, include_input=False)[0]["loc"][0])
    if name not in kind.model_fields:
        raise Refusal("bad_option", f"unknown option; {task} takes: {', '.join(kind.model_fields)}")
    raise Refusal("bad_option", f"{name} must be {_bounds(kind, name)}")


def _bounds(kind: type[CommonOptions], name: str) -> str:
    """The accepted values of an option in words."""
    schema = kind.model_json_schema()["properties"][name]
    schema = next((part for part in schema.get("anyOf", []) if part.get("type") != "null"), schema)
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return "one of " + ", ".join(schema["enum"])
    if schema["type"] == "string":
        return f"{schema['minLength']} to {schema['maxLength']} characters"
    word = "an integer" if schema["type"] == "integer" else "a number"
    return f"{word} from {schema['minimum']} to {schema['maximum']}"


def parameters(task: str) -> list[dict[str, Any]]:
    """The options as OpenAPI query parameters."""
    properties = OPTIONS[task].model_json_schema()["properties"]
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": schema.pop("description", ""),
            "schema": {key: value for key, value in schema.items() if key != "title"},
        }
        for name, schema in properties.items()
    ]


class Timing(BaseModel):
    """Milliseconds an image spent in each stage."""

    decode: float = Field(description="In a decoder.")
    queue: float = Field(description="Decoded, waiting for its batch.")
    infer: float = Field(description="In the model.")
    post: float = Field(description="From raw outputs to this answer.")
    total: float = Field(description="From the request's headers to its answer.")


class Groups(BaseModel):
    """The group of each patch, run-length encoded."""

    format: Literal["rle"]
    runs: list[tuple[Count, Count]] = Field(
        max_length=1_000_000,
        description="Pairs of a group and how many patches in a row are of it, reading the grid row by row.",
        examples=[[[0, 3], [1, 2], [0, 1]]],
    )


class TokenGroups(BaseModel):
    """Which patches were merged with which; merged ones are of one group."""

    grid: tuple[Side, Side] = Field(description="Rows and columns of patches.", examples=[[14, 14]])
    groups: Groups
    sizes: list[Count] = Field(max_length=1_000_000, description="How many patches each group has.", examples=[[4, 2]])


class Waited(BaseModel):
    """Milliseconds that an image waited, by what for."""

    body: float = Field(description="The rest of the request.")
    decoder: float = Field(description="A decoder.")
    worker: float = Field(description="Decoded, a worker.")


class BatchCourse(BaseModel):
    """What became of an image on its way."""

    items: int = Field(ge=1, le=256, description="Images in its batch.")
    closed: CloseReason = Field(
        description="Why its batch was closed: it reached the size from which more do not pay (`cap`), nothing else"
        " waited (`drained`), the rest was left to another idle engine (`shared`), one more would have made one late"
        " (`deadline`), or it repeats a batch that failed (`retry`)."
    )
    waited_ms: Waited


class Explanation(BaseModel):
    """What `explain` asked for."""

    tokens: TokenGroups | None = None
    batch: BatchCourse | None = None


class AnswerBase(BaseModel):
    """What every answer carries."""

    request_id: str = Field(max_length=64, description="Also in `X-Request-Id` and in the log.")
    model: str = Field(max_length=64)
    version: str = Field(max_length=64)
    task: Literal["classify", "detect", "segment"]
    level: str = Field(max_length=200, description="The level that was served.", examples=["full", "tome:8+width:1/2"])
    tokens: int = Field(ge=0, le=1_000_000, description="Tokens left after the model's last block.", examples=[133])
    gmacs: float = Field(
        ge=0, description="Cost of an image at this level: 10^9 multiply-accumulates.", examples=[0.52]
    )
    backend: str = Field(max_length=64, description="The backend that ran the model.")
    timing_ms: Timing
    explain: Explanation | None = Field(None, description="With `explain`.")


class ClassPrediction(BaseModel):
    """One class."""

    label: str = Field(max_length=256)
    index: int = Field(ge=0, le=1_000_000)
    score: float = Field(ge=0, le=1)


class ClassifyAnswer(AnswerBase):
    """Classes, best first."""

    predictions: list[ClassPrediction] = Field(max_length=1000)


class DetectedObject(ClassPrediction):
    """One object; the box is x0, y0, x1, y1 in pixels of the image as displayed."""

    box: tuple[float, float, float, float]


class DetectAnswer(AnswerBase):
    """Objects, best first."""

    predictions: list[DetectedObject] = Field(max_length=1000)


class Mask(BaseModel):
    """The mask as a whole; what is per class stands in the segments."""

    format: Literal["rle", "png", "polygons"]
    counts: str | None = Field(
        None, max_length=100_000_000, description="For `rle`: COCO run lengths of all pixels that are not background."
    )
    data: str | None = Field(
        None, max_length=100_000_000, description="For `png`: base64 of an 8-bit PNG whose values are class indices."
    )


class SegmentRegion(BaseModel):
    """One class that is present, and its area in pixels."""

    label: str = Field(max_length=256)
    index: int = Field(ge=0, le=65_535)
    area: int = Field(ge=0, le=1_000_000_000)
    counts: str | None = Field(
        None, max_length=100_000_000, description="For `rle`: COCO run lengths of this class at the answer's `size`."
    )
    polygons: list[Outline] | None = Field(
        None, max_length=1_000_000, description="For `polygons`: outlines as x, y, x, y, ... in pixels."
    )


class SegmentAnswer(AnswerBase):
    """Per-pixel classes."""

    size: tuple[Side, Side] = Field(description="Height and width of the mask: the image as displayed.")
    mask: Mask
    segments: list[SegmentRegion] = Field(max_length=65_536)


class Error(BaseModel):
    """Every error has this shape."""

    error: str = Field(max_length=1000, description="What went wrong, for a person.")
    code: str = Field(max_length=64, description="What went wrong, for a program.")
    request_id: str = Field(max_length=64)


ANSWERS: dict[str, type[AnswerBase]] = {
    "classify": ClassifyAnswer,
    "detect": DetectAnswer,
    "segment": SegmentAnswer,
}
