"""Where the CPU time of a request goes, by process: `python -m tests.bench.stages`.

A real service with a model that costs nothing (global average pool and one linear layer), fed by `wrk` in a closed
loop with photos of 500x375 pixels. Prints CPU milliseconds per request by role, and requests per second.

`--against TREE` runs the service of another checkout in turns with this one, so that both see the same machine;
`--gateways N` runs this one's with so many gateways and a dispatcher.
`--refused` asks for what is refused at admission, beside a bare uvicorn application that drains the same bodies and
answers 429. `--profile ROLE` samples that process from outside with py-spy and prints its hottest functions.
"""

from __future__ import annotations

import argparse
import collections
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from loadtest.peers.artefacts import free_graphs
from models import manifest
from tests.bench.turns import cpu
from tests.contract import models
from tests.e2e.http import Connection
from tests.e2e.service import ROOT, Service, free_port
from tests.unit.decoder.scenes import photo, save

ROLES = ("gateway", "dispatcher", "decoder", "worker")
SIDE, CLASSES = 224, 1000
QUALITY = 92
"""Makes a photo of 500x375 about 67 kB."""
WARM_SECONDS = 1.0
Row = dict[str, float]


def free_model(root: Path) -> None:
    """A model directory `free` under `root`: uint8 NHWC in, 1000 logits out, next to no work between."""
    network = onnx.load_from_string(free_graphs()[1])
    pictures = models.images(2, SIDE)
    logits = ReferenceEvaluator(network).run(None, {"images": pictures})[0]
    reference = {"images": pictures, "logits": logits}
    directory = models.write(root, "free", "classify", SIDE, network.SerializeToString(), reference, models.TOLERANCE)
    described = manifest.load(directory)
    labels = [f"class {number}" for number in range(CLASSES)]
    transform = manifest.Transform(fit="crop", height=SIDE, width=SIDE, keep=0.875)
    manifest.write(directory, msgspec.structs.replace(described, labels=labels, transform=transform))


class Tree(Service):
    """The service of a checkout, `squint serve` with its source there."""

    def __init__(self, tree: Path, folder: Path, *flags: str) -> None:
        super().__init__(folder, *flags, fake=False)
        self._tree = tree

    def start(self) -> None:
        """Start; do not wait."""
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self._command, cwd=self._tree, stdout=log, stderr=log)

    def cpu(self) -> Row:
        """CPU seconds so far by role."""
        return {role: sum(cpu(pid) for pid in self.pids(role)) for role in ROLES}


class Bare:
    """uvicorn with uvloop and httptools and nothing else: drains a body and answers 429."""

    def __init__(self) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "tests.bench.stages", "--bare", str(self.port)]
        self.process = subprocess.Popen(command, cwd=ROOT)

    def cpu(self) -> Row:
        """CPU seconds so far."""
        return {"gateway": cpu(self.process.pid)}

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait()


async def refuse(
    scope: Mapping[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    """The least that an application can do to refuse a request."""
    while (await receive()).get("more_body"):
        pass
    body = b'{"error":"cannot be answered before its deadline","code":"overloaded"}'
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), (b"retry-after", b"1")]
    await send({"type": "http.response.start", "status": 429, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def serve_bare(port: int) -> None:
    """Run `refuse` until killed."""
    import uvicorn

    uvicorn.run(refuse, port=port, loop="uvloop", http="httptools", ws="none", lifespan="off", log_config=None)


class Load:
    """A closed loop of `wrk` with a few different photos."""

    def __init__(self, folder: Path, connections: int) -> None:
        self._connections = connections
        self._script = folder / "load.lua"
        photos = [save(photo(500, 375, seed), "JPEG", quality=QUALITY) for seed in range(8)]
        self.sizes = [len(one) for one in photos]
        for number, one in enumerate(photos):
            (folder / f"{number}.jpg").write_bytes(one)
        self._script.write_text(
            f"""local made, at = {{}}, 0
function init(args)
  wrk.headers["Content-Type"] = "image/jpeg"
  for n = 0, {len(photos) - 1} do
    local file = io.open("{folder}/" .. n .. ".jpg", "rb")
    made[n] = wrk.format("POST", nil, nil, file:read("*a"))
    file:close()
  end
end
function request()
  at = (at + 1) % {len(photos)}
  return made[at]
end
"""
        )

    def run(self, port: int, seconds: float, target: str) -> tuple[int, int, float, float]:
        """Requests, how many of them were not answered by 2xx, the run's seconds, and the CPU seconds of `wrk`."""
        command = ["wrk", "-t1", f"-c{self._connections}", f"-d{max(1, round(seconds))}s", "-s", str(self._script)]
        with subprocess.Popen([*command, f"http://127.0.0.1:{port}{target}"], stdout=subprocess.PIPE) as process:
            text = process.stdout.read().decode() if process.stdout else ""
            _, _, usage = os.wait4(process.pid, 0)
            process.returncode = 0
        found = re.search(r"(\d+) requests in ([\d.]+)(m?s|m),", text)
        if found is None or "Socket errors" in text:
            raise RuntimeError(f"wrk: {text}")
        other = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
        took = float(found[2]) * {"s": 1.0, "ms": 0.001, "m": 60.0}[found[3]]
        return int(found[1]), int(other[1]) if other else 0, took, usage.ru_utime + usage.ru_stime


def measured(load: Load, service: Tree | Bare, seconds: float, target: str) -> Row:
    """One round: CPU milliseconds per request by role, requests per second, and the share that was refused."""
    load.run(service.port, WARM_SECONDS, target)
    before = service.cpu()
    count, others, took, client = load.run(service.port, seconds, target)
    row = {role: (after - before[role]) * 1000 / count for role, after in service.cpu().items()}
    return {**row, "client": client * 1000 / count, "requests/s": count / took, "refused": others / count}


def table(rounds: Mapping[str, list[Row]]) -> str:
    """Markdown: the median of each figure over the rounds, by service."""
    columns = [*ROLES, "client", "requests/s", "refused"]
    lines = ["| service | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, rows in rounds.items():
        cells = []
        for column in columns:
            values = [row[column] for row in rows if column in row]
            digits = 0 if column == "requests/s" else 3
            cells.append(f"{np.median(values):.{digits}f}" if values else "-")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def of_first(rounds: Mapping[str, list[Row]]) -> dict[str, float]:
    """Requests per second of each service but the first, as a share of the first's: the median of the rounds' own."""
    first, *others = rounds
    base = [row["requests/s"] for row in rounds[first]]
    return {
        name: float(np.median([row["requests/s"] / own for row, own in zip(rounds[name], base, strict=True)]))
        for name in others
    }


@contextmanager
def services(trees: Mapping[str, tuple[Path, list[str]]], folder: Path, flags: list[str]) -> Iterator[dict[str, Tree]]:
    """All of them, each with flags of its own besides, started and ready."""
    running: dict[str, Tree] = {}
    common = ["--models", str(folder / "models"), "--backend", "onnxruntime", *flags]
    try:
        for number, (name, (tree, own)) in enumerate(trees.items()):
            place = folder / str(number)
            place.mkdir()
            running[name] = Tree(tree, place, *common, *own)
            running[name].start()
            running[name].wait_ready()
        yield running
    finally:
        for one in running.values():
            one.stop()


def profile(load: Load, service: Tree, role: str, seconds: float, target: str, spy: str, graph: str | None) -> str:
    """A table of the functions a process was seen in: `self` is a sample with the function innermost, `total` one with
    it anywhere. With `graph`, a flame graph is written there instead."""
    pid = next(iter(service.pids(role)))
    shape, out = ("flamegraph", graph) if graph else ("raw", str(service.log_path.with_name("samples")))
    command = [spy, "record", "--pid", str(pid), "--duration", str(round(seconds)), "--rate", "500"]
    with subprocess.Popen([*command, "--format", shape, "--output", out], stdout=subprocess.DEVNULL):
        load.run(service.port, seconds + 1, target)
    if graph:
        return f"written: {graph}"
    own: collections.Counter[str] = collections.Counter()
    total: collections.Counter[str] = collections.Counter()
    for line in Path(out).read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        names = [re.sub(r":\d+\)$", ")", frame) for frame in stack.split(";")]
        own[names[-1]] += int(count)
        for name in set(names):
            total[name] += int(count)
    everything = sum(own.values())
    lines = ["| function | self | total |", "|---|---|---|"]
    for name in sorted(total, key=lambda one: -max(own[one], total[one] / 4))[:45]:
        lines.append(f"| {name} | {own[name] / everything:.1%} | {total[name] / everything:.1%} |")
    return "\n".join(lines)


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="CPU time per request, by process.")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--against", type=Path, help="another checkout, measured in turns with this one")
    parser.add_argument("--gateways", type=int, help="this checkout with so many gateways too, in turns")
    parser.add_argument("--refused", action="store_true", help="requests that admission refuses")
    parser.add_argument("--profile", choices=ROLES, help="sample this process with py-spy")
    parser.add_argument("--py-spy", default="py-spy", help="where py-spy is")
    parser.add_argument("--svg", help="with --profile: a flame graph into this file instead of a table")
    parser.add_argument("--target", default="", help="path and query to ask for")
    parser.add_argument("--flag", action="append", default=[], help="a flag of `squint serve`, as --flag=--workers=1")
    parser.add_argument("--bare", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def wait_bare(bare: Bare) -> None:
    """Until it takes connections."""
    import asyncio

    async def ask() -> None:
        connection = Connection(bare.port)
        await connection.request("POST", "/", b"x")
        await connection.close()

    for _ in range(200):
        try:
            asyncio.run(ask())
            return
        except OSError:
            time.sleep(0.05)
    raise TimeoutError("the bare application does not answer")


def main() -> int:
    """Measure and print."""
    given = options()
    if given.bare:
        serve_bare(given.bare)
        return 0
    for tool in ["wrk"] + ([given.py_spy] if given.profile else []):
        if shutil.which(tool) is None:
            print(f"stages: {tool} is needed to measure; install it first")
            return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    trees: dict[str, tuple[Path, list[str]]] = {"this": (ROOT, [])}
    if given.against:
        trees["other"] = given.against.resolve(), []
    if given.gateways:
        trees[f"{given.gateways} gateways"] = ROOT, ["--gateways", str(given.gateways)]
    target = given.target or ("/classify?timeout_ms=1" if given.refused else "/classify")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        free_model(folder / "models")
        load = Load(folder, given.connections)
        print(
            f"{len(load.sizes)} photos of {min(load.sizes)} to {max(load.sizes)} bytes, {given.connections} connections"
        )
        with services(trees, folder, given.flag) as running:
            if given.profile:
                print(profile(load, running["this"], given.profile, given.seconds, target, given.py_spy, given.svg))
                return 0
            every: dict[str, Tree | Bare] = dict(running)
            bare = Bare() if given.refused else None
            try:
                if bare:
                    wait_bare(bare)
                    every["bare uvicorn"] = bare
                rounds: dict[str, list[Row]] = {one: [] for one in every}
                for _ in range(given.rounds):
                    for one, service in every.items():
                        rounds[one].append(measured(load, service, given.seconds, target))
            finally:
                if bare:
                    bare.stop()
    print("CPU milliseconds per request, median of rounds\n" + table(rounds))
    for one, share in of_first(rounds).items():
        print(f"{one}: {share:.3f} of the first's requests per second")
    return 0


if __name__ == "__main__":
    sys.exit(main())
