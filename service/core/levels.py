"""Which level a request is served at."""

from __future__ import annotations

from collections.abc import Sequence

from service.errors import Refusal

AUTO = "auto"


def resolve(asked: str | None, floor: str | None, default: str, offered: Sequence[str]) -> str:
    """The level to serve.

    `asked` and `floor` are the request's `level` and `min_level`, `default` the operator's, `offered` the model's
    levels, highest first. `auto` takes the highest level; choosing lower ones under load comes with their profiles.
    Raises Refusal that lists the valid levels.
    """
    level = asked or default
    if floor is not None and level != AUTO:
        raise Refusal("bad_option", "min_level is only allowed with level=auto")
    for name in (level, floor):
        if name is not None and name != AUTO and name not in offered:
            raise Refusal("unknown_level", f"unknown level; this model offers: {', '.join([*offered, AUTO])}")
    return offered[0] if level == AUTO else level
