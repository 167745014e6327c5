"""The answers over HTTP as the OpenAPI document shows them. Answers are built as plain structures for speed
(`answers.py`); tests hold them against the models here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.core.batching import CloseReason

Name = Annotated[str, Field(min_length=1, max_length=64)]
Label = Annotated[str, Field(max_length=256)]
Count = Annotated[int, Field(ge=0, le=1_000_000)]
Milliseconds = Annotated[float, Field(ge=0, le=4_000_000)]
Score = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, Field(max_length=100_000_000)]
Pair = Annotated[list[Annotated[int, Field(ge=0, le=1_000_000)]], Field(min_length=2, max_length=2)]
Corners = Annotated[list[Annotated[float, Field(ge=-1e6, le=1e6)]], Field(min_length=4, max_length=4)]
Outline = Annotated[list[Annotated[float, Field(ge=0, le=65_535)]], Field(max_length=1_000_000)]
MAX_IMAGES = 256
"""As many as a service can be set to take in one request."""


class Timing(BaseModel):
    """Milliseconds an image spent in each stage."""

    decode: Milliseconds = Field(description="In a decoder.", examples=[1.1])
    queue: Milliseconds = Field(description="Decoded, waiting for its batch.", examples=[0.4])
    infer: Milliseconds = Field(description="In the model.", examples=[6.2])
    post: Milliseconds = Field(description="From raw outputs to this answer.", examples=[0.1])
    total: Milliseconds = Field(description="From the request's headers to its answer.", examples=[8.3])


class Groups(BaseModel):
    """The group of each patch, run-length encoded."""

    format: Literal["rle"] = Field(description="How the groups are written.", examples=["rle"])
    runs: list[Pair] = Field(
        max_length=1_000_000,
        description="Pairs of a group and how many patches in a row are of it, reading the grid row by row.",
        examples=[[[0, 3], [1, 2], [0, 1]]],
    )


class TokenGroups(BaseModel):
    """Which patches were merged with which; merged ones are of one group."""

    grid: Pair = Field(description="Rows and columns of patches.", examples=[[2, 3]])
    groups: Groups = Field(description="The group of each patch.")
    sizes: list[Count] = Field(max_length=1_000_000, description="How many patches each group has.", examples=[[4, 2]])
    box: Corners = Field(
        description="Where the grid lies: x0, y0, x1, y1 in pixels of the image as displayed. Beyond the image where it"
        " was padded.",
        examples=[[80.0, 0.0, 560.0, 480.0]],
    )


class Waited(BaseModel):
    """Milliseconds that an image waited, by what for."""

    body: Milliseconds = Field(description="The rest of the request.", examples=[0.2])
    decoder: Milliseconds = Field(description="A decoder.", examples=[0.1])
    worker: Milliseconds = Field(description="Decoded, a worker.", examples=[0.4])


class BatchCourse(BaseModel):
    """What became of an image on its way."""

    items: int = Field(ge=1, le=256, description="Images in its batch.", examples=[2])
    closed: CloseReason = Field(
        description="Why its batch was closed: it reached the size from which more do not pay (`cap`), nothing else"
        " waited (`drained`), the rest was left to another idle engine (`shared`), one more would have made one late"
        " (`deadline`), or it repeats a batch that failed (`retry`).",
        examples=["drained"],
    )
    waited_ms: Waited = Field(description="What it waited for before its batch was run.")


class Explanation(BaseModel):
    """What `explain` asked for."""

    tokens: TokenGroups | None = Field(None, description="With `explain=tokens`, of models that merge tokens.")
    batch: BatchCourse | None = Field(None, description="With `explain=batch`.")


class AnswerBase(BaseModel):
    """What every answer carries."""

    request_id: Name = Field(description="Also in `X-Request-Id` and in the log.", examples=["5f0c2a6e9d1b4c7f"])
    model: Name = Field(description="The model that answered.", examples=["toyscape-classify"])
    version: Name = Field(description="Its version.", examples=["1"])
    task: Literal["classify", "detect", "segment"] = Field(description="What was asked.", examples=["classify"])
    level: str = Field(max_length=200, description="The level that was served.", examples=["full", "tome:8+width:1/2"])
    tokens: Count = Field(description="Tokens left after the model's last block.", examples=[133])
    gmacs: float = Field(
        ge=0,
        le=1_000_000,
        description="Cost of an image at this level: 10^9 multiply-accumulates.",
        examples=[0.52],
    )
    backend: str = Field(max_length=64, description="The backend that ran the model.", examples=["onnxruntime"])
    timing_ms: Timing = Field(description="Where the time went.")
    explain: Explanation | None = Field(None, description="What `explain` asked for; absent without it.")


_EXAMPLE: dict[str, Any] = {
    "request_id": "5f0c2a6e9d1b4c7f",
    "version": "1",
    "level": "full",
    "tokens": 197,
    "gmacs": 0.8864,
    "backend": "onnxruntime",
    "timing_ms": {"decode": 1.1, "queue": 0.4, "infer": 6.2, "post": 0.1, "total": 8.3},
}


class ClassPrediction(BaseModel):
    """One class."""

    label: Label = Field(description="Its name.", examples=["star"])
    index: Count = Field(description="Its place among the model's labels.", examples=[3])
    score: Score = Field(description="How likely it is.", examples=[0.98])


class ClassifyAnswer(AnswerBase):
    """Classes, best first."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    **_EXAMPLE,
                    "model": "toyscape-classify",
                    "task": "classify",
                    "predictions": [{"label": "star", "index": 3, "score": 0.98}],
                }
            ]
        }
    )

    predictions: list[ClassPrediction] = Field(max_length=1000, description="Up to `top_k` classes, best first.")


class DetectedObject(ClassPrediction):
    """One object."""

    box: Corners = Field(
        description="x0, y0, x1, y1 in pixels of the image as displayed.", examples=[[12.5, 40.0, 118.0, 160.5]]
    )


class DetectAnswer(AnswerBase):
    """Objects, best first."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    **_EXAMPLE,
                    "model": "toyscape-detect",
                    "task": "detect",
                    "predictions": [{"label": "star", "index": 3, "score": 0.91, "box": [12.5, 40.0, 118.0, 160.5]}],
                }
            ]
        }
    )

    predictions: list[DetectedObject] = Field(
        max_length=1000, description="Up to `max_detections` objects with a score of `threshold` or more, best first."
    )


class Mask(BaseModel):
    """The mask as a whole; what is per class stands in the segments."""

    format: Literal["rle", "png", "polygons"] = Field(description="How the mask is written.", examples=["rle"])
    counts: Text | None = Field(
        None, description="For `rle`: COCO run lengths of all pixels that are not background.", examples=["221O"]
    )
    data: Text | None = Field(
        None,
        description="For `png`: base64 of an 8-bit PNG (16-bit from 257 classes on) whose values are class indices.",
        examples=["iVBORw0KGgo="],
    )


class SegmentRegion(BaseModel):
    """One class that is present."""

    label: Label = Field(description="Its name.", examples=["star"])
    index: int = Field(ge=0, le=65_535, description="Its place among the model's labels.", examples=[4])
    area: int = Field(ge=0, le=1_000_000_000, description="Its area in pixels.", examples=[5120])
    counts: Text | None = Field(
        None, description="For `rle`: COCO run lengths of this class at the answer's `size`.", examples=["221O"]
    )
    polygons: list[Outline] | None = Field(
        None,
        max_length=1_000_000,
        description="For `polygons`: outlines as x, y, x, y, ... in pixels, filled by the even-odd rule.",
        examples=[[[0, 0, 3, 0, 3, 2, 0, 2]]],
    )


class SegmentAnswer(AnswerBase):
    """The class of every pixel."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    **_EXAMPLE,
                    "model": "toyscape-segment",
                    "task": "segment",
                    "size": [2, 3],
                    "mask": {"format": "rle", "counts": "221O"},
                    "segments": [{"label": "star", "index": 4, "area": 3, "counts": "221O"}],
                }
            ]
        }
    )

    size: Pair = Field(description="Height and width of the mask: the image as displayed.", examples=[[480, 640]])
    mask: Mask = Field(description="The mask as a whole.")
    segments: list[SegmentRegion] = Field(max_length=65_536, description="The classes that are present, by index.")


class Error(BaseModel):
    """Every error has this shape."""

    error: str = Field(max_length=1000, description="What went wrong, for a person.", examples=["too much is waiting"])
    code: str = Field(max_length=64, description="What went wrong, for a program.", examples=["overloaded"])
    request_id: Name = Field(
        description="Also in `X-Request-Id` and in the service's log.", examples=["5f0c2a6e9d1b4c7f"]
    )


class OfferedLevel(BaseModel):
    """A named level that the model offers on this hardware."""

    name: Name = Field(description="What to ask for it by.", examples=["fast"])
    gmacs: float = Field(
        ge=0, le=1_000_000, description="Cost of an image: 10^9 multiply-accumulates.", examples=[0.43]
    )
    tokens: Count = Field(description="Tokens left after the model's last block.", examples=[96])
    explicit: str = Field(
        max_length=200, description="The explicit level it stands for.", examples=["tome:69/0/32+width:1/2"]
    )
    merges_tokens: bool = Field(description="Whether it merges tokens.", examples=[True])
    accuracy: Score | None = Field(None, description="Measured accuracy, where there is one.", examples=[0.97])
    agreement: Score | None = Field(
        None, description="Share of answers equal to those at `full`, where there is no accuracy.", examples=[0.99]
    )


class ModelInput(BaseModel):
    """How an image becomes the network's input."""

    fit: Literal["crop", "stretch", "letterbox"] = Field(
        description="`crop`: the middle of the image; `stretch`: all of it, its aspect lost; `letterbox`: all of it,"
        " padded.",
        examples=["crop"],
    )
    height: int = Field(ge=1, le=16_384, description="Height of the input in pixels.", examples=[224])
    width: int = Field(ge=1, le=16_384, description="Width of the input in pixels.", examples=[224])
    fill: list[Annotated[int, Field(ge=0, le=255)]] = Field(
        min_length=3, max_length=3, description="The colour (red, green, blue) of padding.", examples=[[114, 114, 114]]
    )
    keep: float = Field(gt=0, le=1, description="The middle share of each side that is kept.", examples=[1.0])
    filter: Literal["bicubic", "bilinear"] = Field(description="How pixels are resampled.", examples=["bicubic"])


class ModelDescription(BaseModel):
    """One model that is served."""

    name: Name = Field(description="What to ask for it by.", examples=["toyscape-classify"])
    version: Name = Field(description="The version that serves whoever names none, as a rule.", examples=["1"])
    versions: list[Name] = Field(
        min_length=1, max_length=64, description="All versions that may be asked for.", examples=[["1", "2"]]
    )
    shares: dict[Annotated[str, Field(max_length=9)], Annotated[float, Field(ge=0, le=1)]] = Field(
        max_length=64,
        description="Part of the requests that name no version which each of them gets.",
        examples=[{"1": 0.9, "2": 0.1}],
    )
    task: Literal["classify", "detect", "segment"] = Field(description="What it does.", examples=["classify"])
    licence: str = Field(max_length=256, description="The licence of its weights.", examples=["Apache-2.0"])
    backend: str = Field(
        max_length=64,
        description="What runs it, with its precision; empty while it is loading.",
        examples=["openvino/f32"],
    )
    default_level: str = Field(
        max_length=200, description="What requests get that name no level.", examples=["full", "auto"]
    )
    levels: list[OfferedLevel] = Field(max_length=64, description="The named levels it offers, highest first.")
    explicit_levels: Annotated[str, Field(max_length=2000)] | None = Field(
        None,
        description="In words, the explicit levels it takes besides; null when it takes none.",
        examples=["tome:N, tome:N/N/..., width:1/2"],
    )
    merges_tokens: bool = Field(
        description="Whether levels of it merge tokens, and `explain=tokens` tells which.", examples=[True]
    )
    labels: list[Label] = Field(max_length=65_536, description="Its classes by index.", examples=[["star", "car"]])
    input: ModelInput = Field(description="How an image becomes the network's input.")
    evaluation: dict[Annotated[str, Field(max_length=64)], Any] = Field(
        max_length=64,
        description="Measured accuracy, and under which conditions it was measured.",
        examples=[{"data": "toyscape, test split", "scenes": 2000, "seed": 0, "top1": 0.977}],
    )


class ModelList(BaseModel):
    """All models that are served."""

    models: list[ModelDescription] = Field(max_length=10_000, description="In the order of their names.")


class State(BaseModel):
    """The answer of a health check."""

    status: Literal["alive", "started", "ready", "starting", "draining", "unavailable"] = Field(
        description="In a word.", examples=["ready"]
    )


class Links(BaseModel):
    """Where things are."""

    service: Literal["squint"] = Field(description="What this is.", examples=["squint"])
    version: Name = Field(description="The service's version.", examples=["0.1.0"])
    models: str = Field(max_length=64, description="Where its models are listed.", examples=["/v1/models"])
    docs: str = Field(max_length=64, description="Where this interface is described.", examples=["/docs"])
    ready: str = Field(max_length=64, description="Where readiness is asked for.", examples=["/readyz"])
    playground: str | None = Field(
        None,
        max_length=64,
        description="Where images can be tried in a browser, if there is such a page.",
        examples=["/"],
    )


_SEVERAL = Field(max_length=MAX_IMAGES, description="Of several images: results and errors in the images' order.")

ANSWERS: dict[str, Any] = {
    "classify": ClassifyAnswer | Annotated[list[ClassifyAnswer | Error], _SEVERAL],
    "detect": DetectAnswer | Annotated[list[DetectAnswer | Error], _SEVERAL],
    "segment": SegmentAnswer | Annotated[list[SegmentAnswer | Error], _SEVERAL],
}
"""What a task answers: one result, or a list."""
