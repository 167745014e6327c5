"""Levels as the service knows them, which of them a request gets, and what `auto` stands at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

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


class Choice(msgspec.Struct, frozen=True):
    """What `auto` means for a request: the scheduler chooses, but nothing below `least`, one of the offered levels."""

    least: Level
    spelled: str = AUTO
    label: str = AUTO


def resolve(asked: Level | None, floor: Level | None, offered: Sequence[Level]) -> Level | Choice:
    """What a request gets: `asked` exactly, or, when that is None, what the scheduler chooses among the model's
    named levels `offered` (at least one) that are not below `floor`. Raises Refusal."""
    if asked is None:
        highest = max(offered, key=lambda level: level.gmacs)
        allowed = [level for level in offered if floor is None or level.gmacs >= floor.gmacs]
        return Choice(min(allowed, key=lambda level: level.gmacs, default=highest))
    if floor is not None:
        raise Refusal("bad_option", "min_level is only allowed with level=auto")
    return asked


def unknown(reason: str, names: Iterable[str], grammar: str) -> str:
    """What to tell someone who asked for a level that there is not: the reason, then all that may be asked for.

    `grammar` says which explicit levels the model takes; empty when it takes none.
    """
    reason = reason.removesuffix(f"; {grammar}")
    return "; ".join(filter(None, (reason, f"levels are {', '.join([*names, AUTO])}", grammar)))


DOWN, UP = 0.5, 0.25
"""`auto` steps down when what waits takes longer than this share of the time its requests give, and up when it would
take less than that one at the next higher level."""

_DWELL = 0.1
"""Least share of that time between two steps up."""
_LONGEST_DWELL = 0.25
_WEIGHT = 0.1
"""How much one request counts in the time that requests give on average."""


class Auto:
    """What `auto` means at the moment, for one model: an index into its levels, the highest first."""

    def __init__(self) -> None:
        self.at = 0
        self._budget = 0.0
        self._changed = 0.0
        self._pressed = False

    def note(self, seconds: float) -> None:
        """A request came that gives this much time."""
        self._budget += (_WEIGHT if self._budget else 1.0) * (seconds - self._budget)

    def press(self) -> None:
        """A request that would have accepted a lower level was refused, or came too late."""
        self._pressed = True

    def roomy(self, finish: float) -> bool:
        """What waits is so little that better than necessary may be served; `finish` as in `choose`."""
        return finish <= UP * self._budget

    def choose(self, now: float, levels: int, finish: Callable[[int], float]) -> int:
        """Decide again: one step down at most, steps up with hysteresis. `finish(index)` predicts the seconds until
        everything that waits now is finished if it is served at that level."""
        self.at = min(self.at, levels - 1)
        pressed, self._pressed = self._pressed, False
        if pressed or finish(self.at) > DOWN * self._budget:
            if self.at < levels - 1:
                self.at += 1
            self._changed = now
            return self.at
        dwell = min(_DWELL * self._budget, _LONGEST_DWELL)
        while self.at and now - self._changed >= dwell and self.roomy(finish(self.at - 1)):
            self.at -= 1
            self._changed += dwell
        return self.at
