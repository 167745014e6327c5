"""Which decoder decodes what, and when: the stage before the lanes.

Images that take long (a decoder tells before it begins) are kept apart: while ordinary ones come, they get all
decoders but one, so that nobody waits behind them; and whoever sends them pays by the second.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from service.core.fairness import CLASSES, Floors, Shares, Waiting
from service.core.queue import FairQueue, Item, State

DEPTH = 2
"""Images a decoder holds: one in work and one at hand, so that it never waits for a round trip."""

HEAVY_SECONDS = 0.02
"""An image that takes longer than this to decode is a heavy one."""

_FIRST_GUESS = 0.002
_WEIGHT = 0.05
_RECENT = 1.0
"""For so many seconds after an ordinary image came, one decoder is kept for such."""


class Decoding:
    """The decoders and the two queues before them."""

    def __init__(self) -> None:
        self._shares = Shares()
        self._light = FairQueue(self._shares)
        self._heavy = FairQueue(self._shares)
        self._waiting = Waiting()
        self._floors = Floors()
        self._held: dict[int, deque[Item]] = {}
        self._seconds = _FIRST_GUESS
        self._heavy_seconds = HEAVY_SECONDS
        self._light_at = -_RECENT

    def __len__(self) -> int:
        return len(self._light) + len(self._heavy)

    def __bool__(self) -> bool:
        """A decoder is there."""
        return bool(self._held)

    @property
    def decoders(self) -> int:
        """Decoders that are there."""
        return len(self._held)

    @property
    def held(self) -> int:
        """Items that decoders hold."""
        return sum(map(len, self._held.values()))

    def seconds(self, priority: int, client: str) -> float:
        """Predicted time until a new ordinary image of this client would be decoded."""
        decoders = max(len(self._held), 1)
        return self._seconds * ((self._waiting.ahead(priority, client) + self.held) / decoders + 1)

    def up(self, decoder: int) -> None:
        """A decoder is attached."""
        self._held[decoder] = deque()

    def down(self, decoder: int) -> Iterator[tuple[Item, bool]]:
        """A decoder died: the items it held that are still wanted, and whether it was at work on them."""
        for position, item in enumerate(self._held.pop(decoder, deque())):
            if item.state is not State.ANSWERED:
                yield item, position == 0

    def push(self, now: float, item: Item) -> None:
        """An item waits to be decoded."""
        item.state = State.WAITING
        if item.heavy:
            self._heavy.push(item)
        else:
            self._light_at = now
            self._light.push(item)
            self._waiting.enter(now, item.priority, item.client)

    def remove(self, item: Item) -> None:
        """A waiting item is not wanted any more."""
        if item.ticket:
            (self._heavy if item.heavy else self._light).remove(item)
            if not item.heavy:
                self._waiting.leave(item.priority, item.client)

    def next(self, now: float) -> tuple[Item, int] | None:
        """An item and the decoder that takes it now."""
        if not self._light and not self._heavy:
            return None
        # Nothing is put behind a heavy image.
        free = [(len(held), index) for index, held in self._held.items() if not any(item.heavy for item in held)]
        if not free or min(free)[0] >= DEPTH:
            return None
        several = len(self._held) > 1
        if self._heavy:
            kept = several and now - self._light_at < _RECENT
            if len(free) > kept and (several or not self._light or self._owed()):
                # The last one: all but the first have less of the CPU's time, where others want it.
                return self._take(now, self._heavy, max(index for size, index in free if size < DEPTH))
        if self._light:
            return self._take(now, self._light, min(free)[1])
        return None

    def finished(self, decoder: int, item: Item, seconds: float) -> None:
        """A decoder is through with an item, after `seconds`."""
        held = self._held.get(decoder)
        if held and item in held:
            held.remove(item)
        # One ordinary image was charged when it began.
        surplus = seconds / self._seconds - 1
        if surplus > 1:
            self._shares.charge(item.client, surplus, max(self._waiting.clients, 1))
        if item.heavy:
            self._heavy_seconds += _WEIGHT * (seconds - self._heavy_seconds)
        else:
            self._seconds += _WEIGHT * (seconds - self._seconds)

    def bounced(self, now: float, decoder: int, item: Item) -> None:
        """A decoder gave an item back undecoded, since it is a heavy one."""
        held = self._held.get(decoder)
        if held and item in held:
            held.remove(item)
        item.heavy = True
        if item.state is State.DECODING:
            self.push(now, item)

    def _owed(self) -> bool:
        """With but one decoder, heavy images get a floor of its time while ordinary ones wait."""
        return self._floors.pick((self._seconds, self._heavy_seconds, 0.0)) == 1

    def _take(self, now: float, queue: FairQueue, decoder: int) -> tuple[Item, int] | None:
        item = next(item for priority in range(CLASSES) if (item := queue.pop(priority)) is not None)
        if queue is self._light:
            self._waiting.leave(item.priority, item.client)
            self._floors.served(0, self._seconds, (1.0, float(len(self._heavy)), 0.0))
        else:
            self._floors.served(1, self._heavy_seconds, (0.0, 1.0, 0.0))
        self._shares.charge(item.client, 1.0, max(self._waiting.clients, 1))
        item.state = State.DECODING
        item.decode_at = now
        self._held[decoder].append(item)
        return item, decoder
