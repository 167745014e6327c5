"""A real Prometheus on this machine, with the rules and the queries that are shipped, and the load it watches."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.contract import models
from tests.e2e import images
from tests.e2e.http import Connection
from tests.e2e.service import ROOT, Service, free_port

DEPLOY = ROOT / "deploy" / "prometheus"
DASHBOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
SCRAPE = 0.5
"""Seconds between two scrapes here; the shipped 15 would make every test minutes long."""

LEVELS = {"balanced": "tome:4", "fast": "tome:8+width:1/2"}
_START_SECONDS = 30.0

Points = list[tuple[float, float]]
"""Unix time and value."""


@dataclass(frozen=True)
class Query:
    """One query as it is shipped, and where it stands."""

    where: str
    panel: str
    legend: str
    expression: str
    unit: str = ""
    """Of a panel, in Grafana's words."""


def panels() -> Iterator[Query]:
    """The queries of all panels, with Grafana's variables filled in: everything is chosen."""
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                expression = target["expr"].replace("$__rate_interval", f"{8 * SCRAPE:g}s")
                expression = re.sub(r"\$(instance|model)\b", ".+", expression)
                unit = panel["fieldConfig"]["defaults"].get("unit", "")
                yield Query(path.stem, panel["title"], target["legendFormat"], expression, unit)


def rules() -> Iterator[Query]:
    """What is recorded, and what each alert compares with its limit."""
    for path in sorted((DEPLOY / "rules").glob("*.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                if "record" in rule:
                    yield Query(path.stem, rule["record"], "", rule["record"])
                    continue
                for operand in rule["expr"].split(" and "):
                    compared = re.fullmatch(r"(.*\S)\s*[<>]\s*[\d.]+", operand.strip(), re.DOTALL)
                    if compared is None:
                        raise ValueError(f"{rule['alert']}: expected a comparison with a number: {operand}")
                    yield Query(path.stem, rule["alert"], "", compared[1])


class Prometheus:
    """Watches one service."""

    def __init__(self, program: str, folder: Path, target: int) -> None:
        self.port = free_port()
        config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
        config["global"] = {
            "scrape_interval": f"{SCRAPE * 1000:.0f}ms",
            "evaluation_interval": f"{SCRAPE * 1000:.0f}ms",
        }
        config["rule_files"] = [str(DEPLOY / pattern) for pattern in config["rule_files"]]
        config["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{target}"]}]
        path = folder / "prometheus.yml"
        path.write_text(yaml.safe_dump(config))
        self._command = [program, "--config.file", str(path), "--storage.tsdb.path", str(folder / "tsdb")]
        self._command += ["--web.listen-address", f"127.0.0.1:{self.port}", "--log.level", "warn"]
        self._log = folder / "prometheus.log"

    @contextlib.contextmanager
    def running(self) -> Iterator[Prometheus]:
        """From its first scrape on."""
        with open(self._log, "wb") as log, subprocess.Popen(self._command, stdout=log, stderr=log) as process:
            try:
                until = time.monotonic() + _START_SECONDS
                while not self._scraped():
                    if process.poll() is not None or time.monotonic() > until:
                        raise RuntimeError(f"Prometheus did not start: {self._log.read_text()[-2000:]}")
                    time.sleep(0.1)
                yield self
            finally:
                process.terminate()

    def _scraped(self) -> bool:
        try:
            return bool(self.query("squint_build_info"))
        except OSError:
            return False

    def get(self, path: str, **parameters: str | float) -> Any:
        """The data of an API call."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as response:
            return json.load(response)["data"]

    def query(self, expression: str) -> list[Any]:
        """The vector that an expression gives now."""
        found: list[Any] = self.get("query", query=expression)["result"]
        return found

    def over(self, expression: str, start: float, end: float, step: float = 1.0) -> list[tuple[dict[str, str], Points]]:
        """Labels and points of each series of an expression between two times."""
        found = self.get("query_range", query=expression, start=start, end=end, step=step)["result"]
        return [(one["metric"], [(at, float(value)) for at, value in one["values"]]) for one in found]


@dataclass
class Seen:
    """When each phase of the load began, in Unix time; the last entry is the end."""

    prometheus: Prometheus
    phases: dict[str, float] = field(default_factory=dict)

    @property
    def start(self) -> float:
        """Of the first phase."""
        return next(iter(self.phases.values()))

    @property
    def end(self) -> float:
        """Of the last one."""
        return list(self.phases.values())[-1]

    def span(self, phase: str) -> tuple[float, float]:
        """When a phase began and ended."""
        times = list(self.phases.values())
        at = list(self.phases).index(phase)
        return times[at], times[at + 1]


CALM, BUSY = 10.0, 40.0
"""Requests per second in the first two phases."""
_MIX = (
    ("/classify?level=auto&timeout_ms=700", 4),
    ("/classify?level=full", 2),
    ("/classify?level=tome:2", 1),
    ("/detect", 2),
    ("/segment", 1),
)


async def send(port: int, rate: float, seconds: float, mix: tuple[tuple[str, int], ...] = _MIX) -> None:
    """Open loop: requests of the mix in turns, and now and then what is no image."""
    idle: list[Connection] = []
    paths = itertools.cycle([path for path, weight in mix for _ in range(weight)])

    async def one(number: int) -> None:
        body = b"no image" if number % 25 == 7 else images.png(images.number(number))
        connection = idle.pop() if idle else Connection(port)
        try:
            await connection.request("POST", next(paths), body)
        except OSError:
            return
        idle.append(connection)

    start, tasks = time.monotonic(), []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, start + number / rate - time.monotonic()))
        tasks.append(asyncio.ensure_future(one(number)))
    await asyncio.gather(*tasks)
    await asyncio.gather(*(connection.close() for connection in idle))


async def overload(port: int, seconds: float) -> None:
    """More than can be done at any level, and two images that take the engine more than a second each."""
    sleeper = images.png(images.sleep(120))
    slow = [Connection(port) for _ in range(2)]
    sleeping = [asyncio.ensure_future(one.request("POST", "/classify?level=full", sleeper)) for one in slow]
    await send(port, 4 * BUSY, seconds, (*_MIX, ("/classify?level=auto&timeout_ms=300", 8)))
    await asyncio.gather(*sleeping)
    await asyncio.gather(*(one.close() for one in slow))


def kill(service: Service, role: str, times: int) -> None:
    """Kill the processes of a role again and again, and wait until the service is ready."""
    known: set[int] = set()
    until = time.monotonic() + 30
    while len(known) < times and time.monotonic() < until:
        for pid in service.pids(role).keys() - known:
            known.add(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    service.wait_ready()


def watched(
    program: str, folder: Path, each: float, tell: Callable[[str], object] = lambda phase: None
) -> Iterator[Seen]:
    """A service on the fake backend through calm, busy, too much, dying processes, and its end; watched all along.
    Each of the first three takes `each` seconds. Gives what was seen, with Prometheus still there."""
    for task in ("classify", "detect", "segment"):
        models.fake(folder / "zoo", task, levels=LEVELS)
    flags = (
        "--threads",
        "1",
        "--fake-batch-ms",
        "8",
        "--fake-item-ms",
        "8",
        "--models",
        str(folder / "zoo"),
        "--log-level",
        "warning",
    )
    with Service(folder, *flags) as service, Prometheus(program, folder, service.port).running() as prometheus:
        seen = Seen(prometheus)

        def phase(name: str) -> None:
            seen.phases[name] = time.time()
            tell(name)

        phase("calm")
        asyncio.run(send(service.port, CALM, each))
        phase("busy")
        asyncio.run(send(service.port, BUSY, each))
        phase("too much")
        asyncio.run(overload(service.port, each))
        phase("processes killed")
        kill(service, "worker", 4)
        kill(service, "decoder", 8)
        asyncio.run(send(service.port, CALM, 4 * SCRAPE))
        phase("stopped")
        service.stop()
        time.sleep(4 * SCRAPE)
        phase("end")
        yield seen
