"""What a task says about two sets of outputs for the same images: how far they agree."""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray

from models.manifest import Tolerance

Outputs = dict[str, NDArray[Any]]


class Agreement(NamedTuple):
    """`share` of the decisions that are the same, and the largest difference of a probability or score."""

    share: float
    score: float

    def within(self, tolerance: Tolerance) -> bool:
        """Whether a manifest allows this much."""
        return self.share >= tolerance.agreement and self.score <= tolerance.score
