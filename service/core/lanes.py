"""The lanes: one queue for each (model, level), offered by workers or opened on demand.

A worker offers the lanes of named levels, with measured profiles; these stay. A lane for any other level is opened
when a request asks for it, and given up when its place is needed, so that a client who asks for thousands of levels
costs a bounded amount of memory and of the dispatcher's time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from service.core.batching import Profile
from service.core.queue import DeadlineQueue, Item, LaneKey, State
from service.errors import Refusal

ON_DEMAND = 32
"""Most lanes that are open on demand at a time."""


class Lane:
    """One lane's queue, its profile, and batches that must run as they are.

    `like` is the offered lane whose workers serve this one: itself, or that of the same model's full level.
    """

    def __init__(self, key: LaneKey, like: LaneKey, profile: Profile, max_batch: int) -> None:
        self.key = key
        self.like = like
        self.profile = profile
        self.max_batch = max_batch
        self.items = 0
        """Admitted items that are not answered yet, wherever they are."""
        self.queue = DeadlineQueue()
        self.retries: deque[list[Item]] = deque()

    @property
    def cap(self) -> int:
        """The largest batch that pays."""
        return self.profile.cap(self.max_batch)

    @property
    def waiting(self) -> int:
        """Items that wait for a worker."""
        retried = sum(1 for batch in self.retries for item in batch if item.state is State.QUEUED)
        return len(self.queue) + retried

    @property
    def suspects(self) -> bool:
        """What goes next was in flight when a worker died."""
        head = self.retry_head()
        return head is not None and head.strikes > 0

    def retry_head(self) -> Item | None:
        """First live item of the first retry batch; batches whose items are all answered are dropped."""
        while self.retries:
            for item in self.retries[0]:
                if item.state is State.QUEUED:
                    return item
            self.retries.popleft()
        return None


class Lanes:
    """All lanes by key."""

    def __init__(self) -> None:
        self._lanes: dict[LaneKey, Lane] = {}
        self._on_demand = 0
        self._idle: dict[LaneKey, Lane] = {}
        """Lanes opened on demand that hold no item, the longest idle first."""

    def __contains__(self, key: LaneKey) -> bool:
        return key in self._lanes

    def __getitem__(self, key: LaneKey) -> Lane:
        return self._lanes[key]

    def busy(self) -> Iterator[Lane]:
        """The lanes that hold items."""
        return (lane for lane in self._lanes.values() if lane.items)

    def offer(self, key: LaneKey, profile: Profile, max_batch: int) -> None:
        """A worker serves this lane, and whatever is opened like it."""
        if key not in self._lanes:
            self._lanes[key] = Lane(key, key, profile, max_batch)
        self._lanes[key].profile = profile
        for lane in self._lanes.values():
            if lane.like == key:
                lane.max_batch = max_batch

    def demand(self, key: LaneKey, like: LaneKey, share: float) -> None:
        """Have a lane for a level that nobody measured; it is there already, or made after the lane `like`.

        A first guess is that a batch takes `share` of the time it would take there; what is observed mends it. Without
        the lane `like` nothing happens. Raises Refusal when too many such lanes hold items.
        """
        if key in self._lanes or like not in self._lanes:
            return
        if self._on_demand >= ON_DEMAND:
            if not self._idle:
                message = "too many different explicit levels are in use at the moment; a named one is served"
                raise Refusal("overloaded", message, retry_after=1.0)
            longest = next(iter(self._idle))
            del self._idle[longest], self._lanes[longest]
            self._on_demand -= 1
        model = self._lanes[like]
        guess = Profile(model.profile.a * share, model.profile.b * share)
        guess.drift = model.profile.drift
        self._lanes[key] = self._idle[key] = Lane(key, like, guess, model.max_batch)
        self._on_demand += 1

    def enter(self, item: Item) -> None:
        """An item was admitted."""
        self._lanes[item.lane].items += 1
        self._idle.pop(item.lane, None)

    def leave(self, item: Item) -> None:
        """An item was answered."""
        lane = self._lanes[item.lane]
        lane.items -= 1
        if not lane.items and lane.like != lane.key:
            self._idle[lane.key] = lane
