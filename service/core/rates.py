"""How often each client may ask: a bucket of tokens for each, in a table that does not grow.

A bucket holds `burst` tokens, fills at `rate` a second, and a request takes one. Only a bucket's last level and when
that was are kept, so an idle client costs nothing but its place in the table; the one not seen for longest gives its
place up, and would then find a full bucket.
"""

from __future__ import annotations

from collections import OrderedDict

MOST = 10_000
"""Clients remembered."""


class Rates:
    """The buckets of all clients."""

    def __init__(self, rate: float, burst: float, most: int = MOST, *, shared: bool = False) -> None:
        """With `shared` others take tokens of the same buckets elsewhere, see `spent` and `charge`."""
        self._rate = rate
        self._burst = max(1.0, burst)
        self._most = most
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Client -> tokens at a time, and that time; whoever asked last is last."""
        self._spent: dict[str, float] | None = {} if shared else None

    def __len__(self) -> int:
        return len(self._levels)

    def take(self, now: float, client: str) -> float:
        """Take a token: 0 if there was one, else the seconds until there is (nothing is taken then)."""
        tokens, then = self._levels.get(client, (self._burst, now))
        tokens = min(self._burst, tokens + max(0.0, now - then) * self._rate)
        wait = 0.0 if tokens >= 1.0 else (1.0 - tokens) / self._rate
        self._keep(now, client, tokens - 1.0 if not wait else tokens)
        if self._spent is not None and not wait:
            self._spent[client] = self._spent.get(client, 0.0) + 1.0
        return wait

    def spent(self) -> dict[str, float]:
        """Tokens taken here since this was called last, by client."""
        spent, self._spent = self._spent or {}, {}
        return spent

    def charge(self, now: float, client: str, tokens: float) -> None:
        """Tokens that were taken elsewhere. What nobody knew of in time is owed, up to a whole bucket."""
        level, then = self._levels.get(client, (self._burst, now))
        level = min(self._burst, level + max(0.0, now - then) * self._rate)
        self._keep(now, client, max(level - tokens, -self._burst))

    def _keep(self, now: float, client: str, tokens: float) -> None:
        self._levels[client] = tokens, now
        self._levels.move_to_end(client)
        if len(self._levels) > self._most:
            self._levels.popitem(last=False)
