"""When what is asked now would be answered."""

from __future__ import annotations

from service.core.admission import Load
from service.core.decoding import Decoding
from service.core.fairness import FLOOR
from service.core.lanes import Group, Lane, Lanes
from service.core.turns import Turns
from service.core.workers import Workers


class Forecast:
    """Reads the state of the dispatcher; changes nothing."""

    def __init__(self, decoding: Decoding, lanes: Lanes, turns: Turns, workers: Workers) -> None:
        self._decoding = decoding
        self._lanes = lanes
        self._turns = turns
        self._workers = workers

    def load(self, now: float, lane: Lane, priority: int, client: str) -> Load:
        """What a new item would find before it. One whose level is the scheduler's choice is promised the lowest that
        it accepts."""
        group = lane.group
        at = group.rank[lane.floor] if lane.floor is not None else len(group.offered) - 1
        served = group.serving(lane, at)
        ahead = group.waiting.ahead(priority, client)
        work = group.work(at) * ahead / max(len(group.waiting), 1)
        work += self._beside(group, work + served.each)
        # What classes above it are expected to bring goes first too; but its class has its floor.
        work /= self._turns.left(priority)
        if priority:
            work = min(work, (group.waiting.beside(priority, client) + 1) * served.each / FLOOR)
        infer = (work + self._workers.remaining(now)) / self._workers.engines
        own = served.profile.seconds(min(ahead + 1, served.cap))
        if not ahead:
            own *= self._workers.spread(served)
        return Load(
            decode_seconds=self._decoding.seconds(priority, client),
            infer_seconds=max(infer, group.waiting.patience(priority, client)),
            own_seconds=own,
        )

    def finish(self, now: float, group: Group, at: int) -> float:
        """Seconds until all that waits of a model is done, when `auto` stands at level `at`."""
        work = group.work(at)
        return (work + self._beside(group, work) + self._workers.remaining(now)) / self._workers.engines

    def _beside(self, group: Group, work: float) -> float:
        """Engine seconds that other models take while this one gets `work`: they share."""
        if len(self._lanes.groups) == 1:
            return 0.0
        return sum(min(other.work(), work) for other in self._lanes.groups.values() if other is not group)
