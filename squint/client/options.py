"""What may be asked of a call, and how a request says it. The service checks values; docs/api.md has their bounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypedDict
from urllib.parse import urlencode


class CommonOptions(TypedDict, total=False):
    """Options of every task; what is left out is as the service has it."""

    model: str
    """Needed where several models do the task."""
    version: str
    """A version of the model; else the service chooses."""
    level: str
    """A named level, `auto`, or an explicit one such as `tome:8+width:1/2`."""
    min_level: str
    """With `level="auto"`: the lowest level that is acceptable."""
    priority: Literal["high", "normal", "low"]
    explain: Literal["tokens", "batch", "all"]
    timeout: float | None
    """Seconds for this call, retries included, in place of the client's."""
    request_id: str
    """Up to 64 letters, digits, `.`, `_` and `-`; made where none is given."""


class ClassifyOptions(CommonOptions, total=False):
    """Options of `classify`."""

    top_k: int
    """How many classes to answer."""


class DetectOptions(CommonOptions, total=False):
    """Options of `detect`."""

    threshold: float
    """Least score of an object."""
    max_detections: int
    """Most objects to answer."""


class SegmentOptions(CommonOptions, total=False):
    """Options of `segment`."""

    mask: Literal["rle", "png", "polygons"]
    """How the mask travels."""


OURS = ("timeout", "request_id")
"""Options that this client acts on itself; all others go into the query."""


def target(task: str, options: Mapping[str, Any]) -> str:
    """Path and query of a task's request."""
    asked = {name: value for name, value in options.items() if value is not None and name not in OURS}
    return f"/v1/{task}?{urlencode(asked)}" if asked else f"/v1/{task}"
