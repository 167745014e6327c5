"""Who is guilty: one bad item must not cost its neighbours their answer.

A batch that failed is halved until the failing item is alone; n items with one bad one need at most 2 log2(n) + 1
runs more. Items that were in flight when a process died are tried once more, each with the worker to itself: if it dies
again, there is but one that can be guilty.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

STRIKES = 2
"""An item in whose presence this many processes died is refused."""

T = TypeVar("T")


def halves(items: Sequence[T]) -> list[list[T]]:
    """Two batches to try instead of one; a single item cannot be split and gives none."""
    if len(items) < 2:
        return []
    middle = (len(items) + 1) // 2
    return [list(items[:middle]), list(items[middle:])]
