"""Which versions of a model are loaded, which one a request gets, and which models make room for others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

NEWEST = "latest"


class Policy(msgspec.Struct, frozen=True):
    """What an operator wants served of one model: its newest version, or those in `versions`; and a share of the
    requests by the version `canary`."""

    versions: tuple[str, ...] = ()
    canary: str = ""
    share: float = 0.0


class Plan(NamedTuple):
    """What is served of one model: `stable` to everyone, but for the share that `canary` gets (empty: none). `loaded`
    are these and all others that may be asked for by name, newest first."""

    stable: str
    canary: str
    loaded: tuple[str, ...]


def policy(versions: str, canary: str | None) -> Policy:
    """From how an operator writes it: `latest` or `1,2`, and `2:0.1` for a tenth to version 2."""
    listed = () if versions == NEWEST else tuple(str(int(number)) for number in versions.split(","))
    if not canary:
        return Policy(listed)
    version, _, share = canary.partition(":")
    return Policy(listed, str(int(version)), float(share))


def spelled(policy: Policy) -> tuple[str, str]:
    """The inverse of `policy`; an empty canary for none."""
    canary = f"{policy.canary}:{policy.share:g}" if policy.canary else ""
    return ",".join(policy.versions) or NEWEST, canary


def plan(policy: Policy, available: Iterable[str]) -> Plan | None:
    """What to serve of the versions that there are; None when none of them is wanted.

    The newest version that is not the canary is the stable one; where there is no other, the canary is.
    """
    there = sorted(available, key=int, reverse=True)
    wanted = [version for version in there if version in policy.versions] if policy.versions else there
    stable = next((version for version in wanted if version != policy.canary), "")
    canary = policy.canary if policy.canary in there else ""
    if not stable:
        stable, canary = canary if canary in wanted else "", ""
    if not stable:
        return None
    loaded = {stable, canary, *(wanted if policy.versions else ())} - {""}
    return Plan(stable, canary, tuple(sorted(loaded, key=int, reverse=True)))


class Split:
    """Gives the canary its share, evenly: of any n requests in a row it gets n times the share, to within one."""

    def __init__(self, share: float) -> None:
        self.share = share
        self._owed = 0.0

    def turn(self) -> bool:
        """Whether the next request is the canary's."""
        self._owed += self.share
        if self._owed < 1.0 - 1e-9:
            return False
        self._owed -= 1.0
        return True


class Holding(NamedTuple):
    """A model in the workers' memory; the higher `used`, the later it was asked for."""

    key: str
    bytes: int
    used: int


def to_unload(holdings: Sequence[Holding], budget: int, more: int) -> list[str]:
    """Whom to unload so that `more` bytes fit into the budget beside the rest: those asked for longest ago."""
    held = sum(holding.bytes for holding in holdings)
    leaving: list[str] = []
    for holding in sorted(holdings, key=lambda one: one.used):
        if held + more <= budget:
            break
        leaving.append(holding.key)
        held -= holding.bytes
    return leaving
