"""The lanes: one queue for each (model, level), offered by workers or opened on demand, in one group for each model.

A worker offers the lanes of named levels, with measured profiles; these stay. A lane for any other level is opened
when a request asks for it, and given up when its place is needed, so that a client who asks for thousands of levels
costs a bounded amount of memory and of the dispatcher's time. Items that leave the level to the scheduler wait in
lanes of their own, one for each floor, and run in one of the offered lanes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from service.core.batching import Profile
from service.core.fairness import Shares, Waiting
from service.core.levels import AUTO, Auto
from service.core.queue import FairQueue, Item, LaneKey, State
from service.errors import Refusal

ON_DEMAND = 32
"""Most lanes that are open on demand at a time."""


class Lane:
    """One lane's queue, its profile, and batches that must run as they are.

    `like` is the offered lane whose workers serve this one: itself, or that of the same model's full level. In a lane
    for `auto` a level is chosen when a batch starts; `floor` is the lowest offered level its items accept, and None in
    other lanes.
    """

    def __init__(
        self, key: LaneKey, like: LaneKey, group: Group, profile: Profile, max_batch: int, floor: str | None = None
    ) -> None:
        self.key = key
        self.like = like
        self.group = group
        self.profile = profile
        self.max_batch = max_batch
        self.floor = floor
        self.items = 0
        """Admitted items that are not answered yet, wherever they are."""
        self.waiting = 0
        """Items whose body is here and which no worker has yet."""
        self.queue = FairQueue(group.shares)
        self.retries: deque[list[Item]] = deque()

    @property
    def cap(self) -> int:
        """The largest batch that pays."""
        return self.profile.cap(self.max_batch)

    @property
    def each(self) -> float:
        """Predicted seconds of one item in a batch that pays."""
        cap = self.cap
        return self.profile.seconds(cap) / cap

    @property
    def ready(self) -> bool:
        """Something could be run now."""
        return bool(self.queue) or self.retry_head() is not None

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


class Group:
    """One model's lanes: what its clients share."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.shares = Shares()
        self.waiting = Waiting()
        self.auto = Auto()
        self.lanes: dict[LaneKey, Lane] = {}
        self.offered: list[Lane] = []
        """The lanes of named levels, the highest first."""
        self.rank: dict[str, int] = {}
        """Level -> its index in `offered`."""

    def offer(self, lane: Lane) -> None:
        """The lane of a named level. A lower level is offered only where it was measured to be faster."""
        self.offered.append(lane)
        self.offered.sort(key=lambda one: one.profile.a + one.profile.b, reverse=True)
        self.rank = {one.key.level: index for index, one in enumerate(self.offered)}

    def serving(self, lane: Lane, at: int | None = None) -> Lane:
        """The lane whose level a lane's items would be served at, when `auto` stands at level `at` (now)."""
        if lane.floor is None:
            return lane
        return self.offered[min(self.auto.at if at is None else at, self.rank[lane.floor])]

    def work(self, at: int | None = None) -> float:
        """Predicted engine seconds of everything that waits, when `auto` stands at level `at` (now)."""
        return sum(lane.waiting * self.serving(lane, at).each for lane in self.lanes.values() if lane.waiting)

    def enter(self, now: float, lane: Lane, item: Item) -> None:
        """An item's body is here, and it waits for a worker; or it must be run again."""
        if not item.counted:
            item.counted = True
            lane.waiting += 1
            self.waiting.enter(now, item.priority, item.client)

    def leave(self, lane: Lane, item: Item) -> None:
        """It waits no more."""
        if item.counted:
            item.counted = False
            lane.waiting -= 1
            self.waiting.leave(item.priority, item.client)


class Lanes:
    """All lanes by key, and their groups by model."""

    def __init__(self) -> None:
        self._lanes: dict[LaneKey, Lane] = {}
        self.groups: dict[str, Group] = {}
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
            group = self.groups.setdefault(key.model, Group(key.model))
            group.offer(self._add(Lane(key, key, group, profile, max_batch)))
        self._lanes[key].profile = profile
        for lane in self._lanes.values():
            if lane.like == key:
                lane.max_batch = max_batch

    def forget(self, model: str) -> bool:
        """Give up all lanes of a model, unless some of its items are still to be answered."""
        group = self.groups.get(model)
        if group is None:
            return True
        if any(lane.items for lane in group.lanes.values()):
            return False
        for key in group.lanes:
            del self._lanes[key]
            if self._idle.pop(key, None) is not None:
                self._on_demand -= 1
        del self.groups[model]
        return True

    def _add(self, lane: Lane) -> Lane:
        self._lanes[lane.key] = lane.group.lanes[lane.key] = lane
        return lane

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
            del self._idle[longest], self._lanes[longest].group.lanes[longest], self._lanes[longest]
            self._on_demand -= 1
        model = self._lanes[like]
        guess = Profile(model.profile.a * share, model.profile.b * share, model.profile.wide)
        guess.drift = model.profile.drift
        self._idle[key] = self._add(Lane(key, like, model.group, guess, model.max_batch))
        self._on_demand += 1

    def auto(self, model: str, floor: str | None) -> LaneKey:
        """The lane of items that leave their level to the scheduler, but for those below `floor`, one of the offered
        levels; the model has been offered."""
        group = self.groups[model]
        least = floor if floor in group.rank else group.offered[-1].key.level
        key = LaneKey(model, f"{AUTO}>={least}")
        if key not in self._lanes:
            first = group.offered[0]
            self._add(Lane(key, first.key, group, first.profile, first.max_batch, floor=least))
        return key

    def enter(self, item: Item) -> None:
        """An item was admitted."""
        self._lanes[item.lane].items += 1
        self._idle.pop(item.lane, None)

    def leave(self, item: Item) -> None:
        """An item was answered."""
        lane = self._lanes[item.lane]
        lane.group.leave(lane, item)
        lane.items -= 1
        if not lane.items and lane.like != lane.key and lane.floor is None:
            self._idle[lane.key] = lane
