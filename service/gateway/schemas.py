"""The options of requests with their bounds: read from query and headers, and as the OpenAPI document shows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.errors import Refusal
from service.wire.messages.results import Options

Name = Annotated[str, Field(min_length=1, max_length=64)]
LevelName = Annotated[str, Field(min_length=1, max_length=200)]
TIMEOUT_HEADER = "x-request-timeout-ms"
OPTION_HEADER = "x-squint-"
_TIMEOUT, _OPTION = TIMEOUT_HEADER.encode("ascii"), OPTION_HEADER.encode("ascii")
_OF_RESULT = set(Options.__struct_fields__)


class CommonOptions(BaseModel):
    """Options of every task; each is a query parameter or an `X-Squint-...` header."""

    model_config = ConfigDict(extra="forbid")

    model: Name | None = Field(
        None, description="Model to use; needed when several serve the task.", examples=["toyscape-classify"]
    )
    version: str | None = Field(
        None,
        pattern=r"^(0|[1-9][0-9]*)$",
        min_length=1,
        max_length=9,
        description="Version of the model; `/v1/models` lists those that are served. Without it the operator's choice.",
        examples=["1"],
    )
    level: LevelName | None = Field(
        None,
        description="Level to serve at: a named one, `auto`, or an explicit one; `/v1/models` lists what there is.",
        examples=["fast", "auto", "tome:8+width:1/2"],
    )
    min_level: LevelName | None = Field(
        None, description="With `level=auto`, the lowest level that is acceptable, by GMACs.", examples=["balanced"]
    )
    timeout_ms: int | None = Field(
        None, ge=1, le=3_600_000, description="Milliseconds until the answer is of no more use.", examples=[2000]
    )
    priority: Literal["high", "normal", "low"] = Field("normal", description="Who goes first when there is a queue.")
    explain: Literal["tokens", "batch", "all"] | None = Field(
        None,
        description="Have the answer tell which parts of the image were merged (`tokens`, for models that merge"
        " tokens), what the image waited for and why its batch was closed (`batch`), or all there is to tell (`all`).",
    )


class ClassifyOptions(CommonOptions):
    """Options of `/classify`."""

    top_k: int = Field(5, ge=1, le=1000, description="How many classes to answer.", examples=[3])


class DetectOptions(CommonOptions):
    """Options of `/detect`."""

    threshold: float = Field(0.3, ge=0.0, le=1.0, description="Least score of an object.", examples=[0.5])
    max_detections: int = Field(100, ge=1, le=1000, description="Most objects to answer.", examples=[20])


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


def options(task: str, query: bytes, headers: Iterable[tuple[bytes, bytes]]) -> tuple[CommonOptions, Options]:
    """The options of a request, and those among them that a task's result depends on; not to be changed, for other
    requests share them. The query wins over headers. Raises Refusal that names option and bounds."""
    among = _options_among(headers)
    if len(query) + sum(len(name) + len(value) for name, value in among) > _KEPT_BYTES:
        return _cached.__wrapped__(task, query, among)
    return _cached(task, query, among)


@lru_cache(1024)
def _cached(task: str, query: bytes, headers: _Given) -> tuple[CommonOptions, Options]:
    parsed = parse_options(task, _merged(task, query, headers))
    return parsed, of_result(parsed)


def given(task: str, query: bytes, headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """The options that query and headers give, as they came; the query wins."""
    return _merged(task, query, _options_among(headers))


def _options_among(headers: Iterable[tuple[bytes, bytes]]) -> _Given:
    return tuple(pair for pair in headers if pair[0].startswith(_OPTION) or pair[0] == _TIMEOUT)


def _merged(task: str, query: bytes, headers: _Given) -> dict[str, str]:
    found: dict[str, str] = {}
    if headers:
        first = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(headers)}
        found = _from_headers(task, first)
    if query:
        found.update(parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    return found


def of_result(options: CommonOptions) -> Options:
    """Those among a request's options that a task's result depends on."""
    given = options.model_dump(include=_OF_RESULT)
    given["explain"] = "tokens" if options.explain in ("tokens", "all") else None
    return Options(**given)


def parse_options(task: str, options: Mapping[str, str]) -> CommonOptions:
    """The options of a request by their names. Raises Refusal that names option and bounds."""
    kind = OPTIONS[task]
    try:
        return kind.model_validate(options)
    except ValidationError as error:
        name = str(error.errors(include_url=False, include_input=False)[0]["loc"][0])
    if name not in kind.model_fields:
        raise Refusal("bad_option", f"unknown option; {task} takes: {', '.join(kind.model_fields)}")
    raise Refusal("bad_option", f"{name} must be {_bounds(kind, name)}")


def _from_headers(task: str, headers: Mapping[str, str]) -> dict[str, str]:
    """The options of a task that came as headers, by name."""
    found = {"timeout_ms": headers[TIMEOUT_HEADER]} if TIMEOUT_HEADER in headers else {}
    for name in OPTIONS[task].model_fields:
        value = headers.get(OPTION_HEADER + name.replace("_", "-"))
        if value is not None:
            found[name] = value
    return found


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
    return [_parameter(name, schema) for name, schema in OPTIONS[task].model_json_schema()["properties"].items()]


def _parameter(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    # What is not given is left out of a query; it has no way to say null.
    plain: dict[str, Any] = next((part for part in schema.get("anyOf", []) if part.get("type") != "null"), {})
    shown = {**plain, **{key: value for key, value in schema.items() if key not in ("anyOf", "title", "description")}}
    if shown.get("default", 0) is None:
        del shown["default"]
    words = schema["description"]
    return {"name": name, "in": "query", "required": False, "description": words, "schema": shown}
