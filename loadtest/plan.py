"""What one run sends, to whom, and when: all of it fixed before the first byte leaves."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import msgspec
import numpy as np
from numpy.typing import NDArray

from loadtest.bodies import Body

Times = NDArray[np.float64]
Numbers = NDArray[np.int32]


@dataclass(frozen=True)
class Plan:
    """Send times and which body leaves at each.

    Attributes:
        times: intended send times, seconds from the run's start, ascending; empty for a closed loop.
        choice: which body of the target is sent at each time; a closed loop goes through it again and again.
        seconds: length of the run, warm-up included; an open loop then waits for what is still under way.
        warmup: seconds at the start whose requests are sent and not counted.
        closed: connections of a closed loop, each of which sends as soon as it is answered; 0 is an open loop.
        connections: at most so many at once in an open loop; requests beyond wait, which their latency includes.
        timeout: seconds after which a request without an answer is an error.
        deadline: seconds; for the live progress alone. `summary.summarise` is told its own.
        source: the address to send from, to appear as another client; any if empty.
    """

    times: Times
    choice: Numbers
    seconds: float
    warmup: float = 0.0
    closed: int = 0
    connections: int = 1024
    timeout: float = 10.0
    deadline: float | None = None
    source: str = ""


@dataclass(frozen=True)
class Target:
    """A server and every request it may be sent, as bytes."""

    host: str
    port: int
    requests: tuple[bytes, ...]
    kinds: tuple[str, ...]
    """Kinds of image by number; the kind of request i is kinds[kind_of[i]]."""
    kind_of: tuple[int, ...] = field(default=())
    secure: bool = False

    def context(self) -> ssl.SSLContext | None:
        """What TLS needs, if the address asked for it."""
        return ssl.create_default_context() if self.secure else None


def target(
    url: str, path: str, bodies: Sequence[Body], *, method: str = "POST", headers: Sequence[tuple[str, str]] = ()
) -> Target:
    """Requests of `method path` with these bodies for the server at `url` (http://host:port, https too).

    `headers` are sent with each and win over the body's own. Raises ValueError for an address or header that cannot
    be used.
    """
    parts = urlsplit(url if "//" in url else f"http://{url}")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"not an address of a service: {url!r}; it looks like http://127.0.0.1:8000")
    if not bodies:
        raise ValueError("nothing to send")
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    base = parts.path.rstrip("/")
    names = list(dict.fromkeys(body.kind for body in bodies))
    requests = tuple(_request(method, base + path, parts.netloc, headers, body) for body in bodies)
    return Target(
        parts.hostname, port, requests, tuple(names), tuple(names.index(body.kind) for body in bodies), secure
    )


def _request(method: str, path: str, host: str, headers: Sequence[tuple[str, str]], body: Body) -> bytes:
    given = {name.lower() for name, _ in headers}
    fields = [("Host", host), *((name, value) for name, value in body.headers if name.lower() not in given), *headers]
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
    if body.data or method not in {"GET", "HEAD"}:
        lines.append(f"Content-Length: {len(body.data)}")
    if any(character in line for line in lines for character in "\r\n\0") or " " in path:
        raise ValueError("a path or header with a space or line break in it")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body.data


def choose(rng: np.random.Generator, weights: Sequence[float], counts: Sequence[int], number: int) -> Numbers:
    """For each of `number` requests the body to send: a kind by its weight, then one of that kind's images in turn.

    Bodies are numbered kind after kind, `counts` of each.
    """
    shares = np.asarray(weights, np.float64)
    kinds = rng.choice(len(shares), number, p=shares / shares.sum())
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    chosen = np.empty(number, np.int32)
    for kind, count in enumerate(counts):
        places = np.flatnonzero(kinds == kind)
        chosen[places] = first[kind] + np.arange(len(places)) % count
    return chosen


def pack(plan: Plan, to: Target) -> bytes:
    """Both as bytes, for the process that sends."""
    arrays = {"times": plan.times.astype("<f8").tobytes(), "choice": plan.choice.astype("<i4").tobytes()}
    simple = {name: value for name, value in vars(plan).items() if name not in arrays}
    return msgspec.msgpack.encode({"plan": simple | arrays, "target": vars(to)})


def unpack(data: bytes) -> tuple[Plan, Target]:
    """The reverse of `pack`."""
    both: dict[str, Any] = msgspec.msgpack.decode(data)
    simple, to = both["plan"], both["target"]
    simple["times"] = np.frombuffer(simple["times"], "<f8")
    simple["choice"] = np.frombuffer(simple["choice"], "<i4")
    return Plan(**simple), thawed(to)


def thawed(record: dict[str, Any]) -> Target:
    """A target from what travelled in its place: lists where it has tuples."""
    tuples = {name: tuple(record[name]) for name in ("requests", "kinds", "kind_of")}
    return Target(**(record | tuples))
