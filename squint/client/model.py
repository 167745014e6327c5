"""What a service says of its models."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """A named operating point: how many tokens it leaves, what an image costs (10^9 multiply-accumulates), and how
    good it is. `accuracy` is None where nobody measured it; `agreement` is the share of answers equal to `full`'s."""

    name: str
    gmacs: float
    tokens: int
    explicit: str = ""
    accuracy: float | None = None
    agreement: float | None = None
    merges_tokens: bool = False


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One model that is served."""

    name: str
    version: str
    task: Literal["classify", "detect", "segment"]
    labels: list[str]
    levels: list[Level]
    """The named levels it offers on its hardware, best first."""
    default_level: str
    explicit_levels: str | None = None
    """Which explicit levels it takes besides, in words."""
    merges_tokens: bool = False
    """Whether levels of it merge tokens, and `explain="tokens"` tells which."""
    versions: list[str] = []
    """All versions that may be asked for."""
    shares: dict[str, float] = {}
    """Part of the requests that name no version which each of them gets."""
    backend: str = ""
    licence: str = ""
    input: dict[str, Any] = {}
    """How an image becomes the network's input."""
    evaluation: dict[str, Any] = {}
    """Measured accuracy, and under which conditions."""


class Models(msgspec.Struct, frozen=True):
    """The answer of /v1/models."""

    models: list[Model]
