"""The tasks by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from service.tasks import classify, detect, segment
from service.tasks.agreement import Agreement, Outputs
from service.wire.messages.decoder import Geometry
from service.wire.messages.results import Options, Result


@dataclass(frozen=True, slots=True)
class Task:
    """One task: the outputs it reads, the highest class index in a batch's outputs, one image's outputs (no batch
    axis) to its result, and how far the outputs of two runs over the same images agree."""

    outputs: tuple[str, ...]
    highest: Callable[[Outputs], int]
    result: Callable[[Outputs, Geometry, Options], Result]
    agreement: Callable[[Outputs, Outputs], Agreement]


TASKS: dict[str, Task] = {
    "classify": Task(classify.OUTPUTS, classify.highest, classify.result, classify.agreement),
    "detect": Task(detect.OUTPUTS, detect.highest, detect.result, detect.agreement),
    "segment": Task(segment.OUTPUTS, segment.highest, segment.result, segment.agreement),
}
