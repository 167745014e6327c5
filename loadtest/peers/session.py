"""One run: contenders in turns, points as they come, and a file of results that is whole at any time."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from loadtest import arrivals, images, machine, plan, process, summary
from loadtest.bodies import encode_all
from loadtest.peers import environments, processes
from loadtest.peers.figures import Point, Record
from loadtest.peers.places import CACHE, ROOT, python_of
from loadtest.peers.running import Running
from loadtest.peers.servers import KSERVE, SERVERS, Server
from loadtest.plan import Plan as Load
from loadtest.samples import Samples
from loadtest.sender import Progress

KIND, PHOTOS = "500x375", 16
FIRST_PORT, PORTS = 9150, 4
SEED = 11
CLOSED_CHOICES = 4096
OPEN_CONNECTIONS, OPEN_TIMEOUT = 1024, 10.0
BARE = "mosec"
"""Whose environment measures the model without a server; it has the least in it."""


class Stopped(Exception):
    """Ctrl-C: what was measured is kept."""


@dataclass(frozen=True)
class Contender:
    """One line of a table: a server and the way it is asked."""

    name: str
    title: str
    server: Server
    query: str = ""
    limits: bool = True
    """Whether its queue is limited and its deadline set in the overload runs, where it has such settings."""


def contenders(names: list[str]) -> list[Contender]:
    """By name; `squint-auto` asks for levels, `NAME-default` keeps a server's own limits. Raises ValueError."""
    found = []
    for name in names:
        base = name.removesuffix("-auto").removesuffix("-default")
        if base not in SERVERS or (name.endswith("-auto") and base != "squint"):
            raise ValueError(f"unknown server {name!r}: one of {', '.join(SERVERS)}, squint-auto, NAME-default")
        server = SERVERS[base]
        if name.endswith("-auto"):
            found.append(Contender(name, "Squint, level=auto", server, "level=auto&min_level=fast"))
        elif name.endswith("-default"):
            found.append(Contender(name, f"{server.title}, own limits", server, limits=False))
        else:
            found.append(Contender(name, server.title, server, "level=full" if server.ours else ""))
    return found


@dataclass
class Session:
    """What all phases of a run share."""

    what: str
    kind: str
    entries: list[Contender]
    seconds: float
    rounds: int
    warmup: float
    file: Path
    adjusted: dict[str, dict[str, float]] = field(default_factory=dict)
    """Fields of plans, by server, in which it is not set up as usual."""
    record: Record = field(default_factory=dict)
    pooled: dict[str, list[np.ndarray[Any, Any]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.photos = images.generate(KIND, PHOTOS, SEED)
        about = machine.describe()
        ours = about["packages"].get("squint", "")
        self.record = {
            "what": self.what,
            "machine": about,
            "options": {"seconds": self.seconds, "rounds": self.rounds, "warmup": self.warmup},
            "photo_kb": float(np.mean([len(photo) for photo in self.photos])) / 1000,
            "contenders": {
                entry.name: {
                    "title": entry.title,
                    "version": ours
                    if entry.server.ours
                    else environments.version(entry.server.name, entry.server.package),
                    "query": entry.query,
                }
                for entry in self.entries
            },
            "plans": {},
            "points": [],
            "capacities": {},
            "pooled": {},
            "failures": {},
            "interrupted": False,
        }

    def bare(self) -> dict[str, Any]:
        """The model without a server, measured once and kept in the record."""
        if "bare" not in self.record:
            photo = CACHE / "photo.jpg"
            photo.write_bytes(self.photos[0])
            command = [
                str(python_of(BARE)),
                "-m",
                "loadtest.peers.bare",
                str(environments.plain(self.kind)),
                str(photo),
            ]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            found: dict[str, Any] = json.loads(done.stdout)
            self.record["bare"] = found
            say(f"without a server: {1000 * found['service_seconds']:.1f} ms from JPEG to answer, "
                f"{max(found['images_per_second'].values()):.1f} images/s")  # fmt: skip
        return dict(self.record["bare"])

    @contextmanager
    def started(self, entry: Contender, **more: Any) -> Iterator[Running | None]:
        """The contender's server, ready; None if it cannot be had, which the record says."""
        port = FIRST_PORT + PORTS * list(SERVERS).index(entry.server.name)
        more |= self.adjusted.get(entry.server.name, {})
        chosen, about = entry.server.planned(self.kind, port, **more), self.record["contenders"][entry.name]
        with Running(entry.server, chosen, CACHE / "run" / entry.name) as running:
            try:
                best = running.wait(self.photos[0])
            except RuntimeError as error:
                self.record["failures"][entry.name] = str(error).splitlines()[0]
                say(f"{entry.name}: {error}")
                best = []
            if best:
                self._compare(entry, best)
                about["version"] = running.version() or about["version"]
                self.record["plans"][entry.name] = msgspec.to_builtins(chosen) | {"model": Path(chosen.model).name}
                yield running
            else:
                yield None
        self.save()

    def _compare(self, entry: Contender, best: list[int]) -> None:
        """The answer beside that of ONNX Runtime alone."""
        wanted = [int(one["index"]) for one in self.bare()["best"]["predictions"]]
        self.record["contenders"][entry.name]["answer"] = {"given": best, "wanted": wanted, "same": best == wanted}
        if best[:1] != wanted[:1]:
            say(f"{entry.name}: answers {best}, ONNX Runtime alone {wanted}")

    def target(self, running: Running, entry: Contender, query: str = "") -> plan.Target:
        """What the load generator sends."""
        words = "&".join(word for word in (entry.query, query) if word)
        path = running.server.path + (f"?{words}" if words else "")
        return plan.target(running.url, path, encode_all(self.photos, running.server.encoding, KIND, kserve=KSERVE))

    def closed(self, connections: int, seconds: float) -> Load:
        """A closed loop."""
        choice = plan.choose(np.random.default_rng(SEED), [1.0], [PHOTOS], CLOSED_CHOICES)
        return Load(np.empty(0), choice, seconds + self.warmup, warmup=self.warmup, closed=connections)

    def opened(self, rate: float, round_: int, deadline: float | None = None) -> Load:
        """Poisson arrivals, of a round the same for every contender at the same rate."""
        rng = np.random.default_rng([SEED, round_])
        seconds = self.seconds + self.warmup
        times = arrivals.poisson(rng, rate, seconds)
        choice = plan.choose(rng, [1.0], [PHOTOS], len(times))
        return Load(
            times, choice, seconds, self.warmup, 0, OPEN_CONNECTIONS, OPEN_TIMEOUT, deadline=deadline
        )  # fmt: skip

    def point(
        self, running: Running, entry: Contender, phase: str, load: float, round_: int, sent: Load, query: str = ""
    ) -> Point:
        """Send, and keep what came of it. Raises Stopped after Ctrl-C, with the point kept if it has answers."""
        label = f"{phase} {load:g}, round {round_ + 1}/{self.rounds}, {entry.name}"
        before = running.look()
        samples = process.run(sent, self.target(running, entry, query), _progress(label))
        after = running.look()
        found = summary.summarise(samples, sent.deadline)
        spent = sum(one.cpu_seconds - (before[pid].cpu_seconds if pid in before else 0) for pid, one in after.items())
        share = (samples.seconds - samples.warmup) / max(samples.seconds, 1e-9)
        point = {
            "phase": phase,
            "name": entry.name,
            "load": load,
            "round": round_,
            "summary": msgspec.to_builtins(found),
            "server": {
                "cpu_seconds": spent * share,
                "memory_mib": processes.memory_mib(after),
                "processes": len(after),
            },
            "others": others(samples, spent),
        }
        if found.counts.sent:
            self.record["points"].append(point)
        say(f"{label}: {_line(found)}")
        self._pool(phase, entry, samples)
        self.save()
        if samples.interrupted:
            raise Stopped
        return point

    def _pool(self, phase: str, entry: Contender, samples: Samples) -> None:
        """Latencies of all rounds at equal load, for one p99 with its interval."""
        if phase != "equal":
            return
        fine = (samples.status == 200) & (samples.intended >= samples.warmup)
        self.pooled.setdefault(entry.name, []).append(samples.latency[fine])
        together = summary.latency_of(np.concatenate(self.pooled[entry.name]))
        self.record["pooled"][entry.name] = msgspec.to_builtins(together)

    def save(self) -> None:
        """Write the record; a file that is there is replaced at once."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        partial = self.file.with_suffix(".partial")
        partial.write_text(json.dumps(_finite(self.record), indent=1) + "\n")
        partial.replace(self.file)


def others(samples: Samples, server_seconds: float) -> float:
    """The share of all cores that neither the server nor the load generator took, and that was not idle."""
    usage = samples.usage
    known = (server_seconds + usage.cpu_seconds) / max(usage.wall_seconds * usage.cores, 1e-9)
    return max(0.0, usage.machine_busy - known)


def _finite(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _line(found: summary.Summary) -> str:
    latency = "" if found.latency.p99 is None else f", p50 {found.latency.p50:.1f} p99 {found.latency.p99:.1f} ms"
    other = f", refused {found.counts.refused}, errors {found.counts.error}" if found.closed == 0 else ""
    on_time = f", in time {found.goodput:.1f}/s" if found.deadline_ms else ""
    return (
        f"{found.answered:.1f}/s{on_time}{latency}{other}; sender {100 * found.sender['cpu_share']:.0f} % of the cores"
    )


def _progress(label: str) -> Any:
    if not sys.stderr.isatty():
        return None

    def show(now: Progress) -> None:
        print(
            f"\r{label}: {now.seconds:5.1f} s, sent {now.sent}, done {now.done} ", end="", file=sys.stderr, flush=True
        )

    return show


def say(line: str) -> None:
    """One line of progress."""
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    print(line, flush=True)
