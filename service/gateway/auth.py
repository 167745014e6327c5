"""Who is asking, and whether they may.

A client is the name of its API key where the service asks for keys, else what its protocol knows of it: the name in
its certificate, or its address. That name is what clients share the machine and are limited by; a key itself is never
kept, logged or compared as it is.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Iterable

from service import keys, log
from service.config import Config
from service.core.rates import Rates
from service.errors import Refusal, StartError
from service.gateway.addresses import place
from service.gateway.watched import Watch
from service.keys import Key, KeyFileError

_MAX_KEY = 256
_PREFIX = 8
"""Digits of a key's hash by which it is found; the rest is compared in constant time."""

ADMIN_CALLS = frozenset(
    f"/inference.GRPCInferenceService/{name}" for name in ("RepositoryModelLoad", "RepositoryModelUnload")
)
"""Calls of gRPC that change the service: where there are keys, they take an admin key."""


class Keys:
    """The keys that are accepted: those of a file, as it is now."""

    def __init__(self, path: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises StartError if the file is not a good one; later on the last good one counts."""
        self._path = path
        self._watch = Watch([path], clock)
        try:
            self._known = _by_prefix(keys.read(path))
        except KeyFileError as error:
            raise StartError(f"--key-file {path}: {error}") from None

    def find(self, key: str) -> Key | None:
        """The key that this is, if it is one."""
        if self._watch.changed():
            self._read_again()
        if not key or len(key) > _MAX_KEY:
            return None
        digest = keys.digest(key)
        found = None
        for known in self._known.get(digest[:_PREFIX], ()):
            if hmac.compare_digest(known.digest, digest):
                found = known
        return found

    def _read_again(self) -> None:
        try:
            known = keys.read(self._path)
        except KeyFileError as error:
            log.event("keys_unreadable", severity="error", reason=str(error))
            return
        self._known = _by_prefix(known)
        log.event("keys_read", keys=len(known))


def _by_prefix(known: Iterable[Key]) -> dict[str, list[Key]]:
    found: dict[str, list[Key]] = {}
    for key in known:
        found.setdefault(key.digest[:_PREFIX], []).append(key)
    return found


def shown(authorization: str | None, api_key: str | None) -> str:
    """The key that a request shows: `Authorization: Bearer KEY`, else `X-API-Key: KEY`."""
    if authorization is not None:
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() == "bearer":
            return key.strip()
    return (api_key or "").strip()


class Guard:
    """Tells who a request comes from, and turns away who may not ask."""

    def __init__(
        self, known: Keys | None = None, rates: Rates | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._keys = known
        self._rates = rates
        self._clock = clock

    @property
    def rates(self) -> Rates | None:
        """How often each client may ask, where that is limited."""
        return self._rates

    @property
    def closed(self) -> bool:
        """Nobody may ask without a key."""
        return self._keys is not None

    def identify(self, authorization: str | None, api_key: str | None, peer: str, admin: bool = False) -> str:
        """The client's name. `peer` is what the connection tells of it: an address, or the name in its certificate;
        `admin` asks for an admin key where there are keys. Raises Refusal: `unauthorized`, `forbidden`, or
        `rate_limited` for one who asks too often."""
        if self._keys is None:
            client = place(peer)
            self._count(client)
            return client
        given = shown(authorization, api_key)
        key = self._keys.find(given)
        if key is None:
            # Whoever guesses is held up like anyone who asks too often.
            self._count(f"?{place(peer)}")
            wrong = "this API key is not, or no longer, valid here" if given else "an API key is needed"
            raise Refusal("unauthorized", f"{wrong}: Authorization: Bearer KEY, or X-API-Key: KEY")
        self._count(key.name)
        if admin and not key.admin:
            raise Refusal("forbidden", "this takes an admin key")
        return key.name

    def _count(self, client: str) -> None:
        if self._rates is not None:
            wait = self._rates.take(self._clock(), client)
            if wait:
                raise Refusal("rate_limited", "this client asks more often than it may", retry_after=wait)


def guard(config: Config) -> Guard:
    """As configured. Raises StartError."""
    limits = config.limits
    known = Keys(config.key_file) if config.key_file else None
    rates = None
    if limits.rate:
        rates = Rates(limits.rate, limits.rate_burst or limits.rate, shared=config.gateways > 1)
    return Guard(known, rates)
