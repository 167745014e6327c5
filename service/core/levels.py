"""Levels as the service knows them, and which of them a request gets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from service.errors import Refusal

AUTO = "auto"
CUSTOM = "custom"
"""What metrics call an explicit level that no name stands for; their labels come from a closed set."""


class Level(msgspec.Struct, frozen=True):
    """One level of a model.

    `spelled` is how an answer names it: by its name when it was asked by name, else in its canonical explicit
    spelling. `lane` is the level of its lane, which all spellings of the same operating point share: the name where
    there is one. `label` is the name or CUSTOM. `tokens` are left after the last block; levels rank by `gmacs`.
    """

    spelled: str
    lane: str
    label: str
    gmacs: float
    tokens: int


def resolve(asked: Level | None, floor: Level | None, offered: Sequence[Level]) -> Level:
    """The level to serve.

    `asked` is served exactly; None stands for `auto`, which takes the highest level that is not below `floor` (to
    choose a lower one under load comes with what the scheduler knows of lanes). `offered` are the model's named
    levels, at least one. Raises Refusal.
    """
    if asked is None:
        allowed = [level for level in offered if floor is None or level.gmacs >= floor.gmacs]
        return max([*allowed, floor] if floor else allowed, key=lambda level: level.gmacs)
    if floor is not None:
        raise Refusal("bad_option", "min_level is only allowed with level=auto")
    return asked


def unknown(reason: str, names: Iterable[str], grammar: str) -> str:
    """What to tell someone who asked for a level that there is not: the reason, then all that may be asked for.

    `grammar` says which explicit levels the model takes; empty when it takes none.
    """
    reason = reason.removesuffix(f"; {grammar}")
    return "; ".join(filter(None, (reason, f"levels are {', '.join([*names, AUTO])}", grammar)))
