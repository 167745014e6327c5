"""gRPC beside REST, in turns in one run: `python -m tests.bench.grpc [--fake] [--seconds S] [--rounds N] [--out FILE]`.

The same photo goes to one service over REST, as single gRPC calls, and as frames of gRPC streams, each from as many
connections at a time as keep it busy. Prints for each what was answered per second, the ratio to REST (the median of
the rounds' own ratios), and the CPU time that the gateway and the client took for a request: client and service share
the machine, so at saturation whatever a client takes is missing to the service. Then, how long it takes until a call
that is cancelled, or whose deadline has passed, is seen in the metrics.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from service.proto.squint.v1 import vision_pb2 as pb
from tests.bench.turns import Sender, compare
from tests.e2e import images
from tests.e2e.http import Connection
from tests.e2e.rpc import Vision
from tests.e2e.service import ROOT, Service

PHOTO = (ROOT / "samples" / "classify.jpg").read_bytes()
CONNECTIONS, DEPTH = 4, 4
"""Connections, and requests under way on each."""
SHIPPED = ("--backend", "onnxruntime")
"""The shipped models, on a backend that need not be chosen first."""
TRIALS = 20


async def rest(port: int, until: float) -> int:
    """HTTP/1.1 has one request at a time on a connection."""

    async def one() -> int:
        connection, count = Connection(port), 0
        while time.monotonic() < until:
            reply = await connection.request("POST", "/classify", PHOTO)
            count += reply.status == 200
        await connection.close()
        return count

    return sum(await asyncio.gather(*(one() for _ in range(CONNECTIONS * DEPTH))))


async def unary(port: int, until: float) -> int:
    """Single calls."""
    request = pb.ClassifyRequest(image=PHOTO)

    async def one(client: Vision) -> int:
        count = 0
        while time.monotonic() < until:
            await client.Classify(request, timeout=20)
            count += 1
        return count

    clients = [Vision(port, aio=True) for _ in range(CONNECTIONS)]
    counts = await asyncio.gather(*(one(client) for client in clients for _ in range(DEPTH)))
    for client in clients:
        await client.channel.close()
    return sum(counts)


async def frames(port: int, until: float) -> int:
    """Streams."""
    frame = pb.Frame(classify=pb.ClassifyRequest(image=PHOTO))

    async def one(client: Vision) -> int:
        stream, sent, count = client.Stream(), 0, 0
        while sent < DEPTH:
            await stream.write(frame)
            sent += 1
        while count < sent:
            count += (await stream.read()).WhichOneof("answer") == "classify"
            if time.monotonic() < until:
                await stream.write(frame)
                sent += 1
        await stream.done_writing()
        return count

    clients = [Vision(port, aio=True) for _ in range(CONNECTIONS)]
    counts = await asyncio.gather(*(one(client) for client in clients))
    for client in clients:
        await client.channel.close()
    return sum(counts)


WAYS: dict[str, Sender] = {"rest": rest, "grpc": unary, "stream": frames}


def throughput(service: Service, seconds: float, rounds: int) -> dict[str, Any]:
    """All ways in turns."""
    return compare(service, WAYS, {"grpc", "stream"}, seconds, rounds)


async def _until_seen(connection: Connection, outcome: str, more_than: float) -> None:
    while await _seen(connection, outcome) <= more_than:
        pass


async def _seen(connection: Connection, outcome: str) -> float:
    text = (await connection.request("GET", "/metrics")).body.decode()
    wanted = f'outcome="{outcome}"'
    return sum(
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith("squint_request_seconds_count{") and wanted in line
    )


async def seen_after(service: Service, cancel: bool) -> list[float]:
    """Milliseconds from a call's end, by the client's clock, until the metrics have it."""
    slow = pb.ClassifyRequest(image=images.png(images.sleep(60)))
    outcome = "client_closed_request" if cancel else "deadline_exceeded"
    waited = []
    async with Vision(service.grpc_port, aio=True) as client:
        connection = Connection(service.port)
        for _ in range(TRIALS):
            before = await _seen(connection, outcome)
            call = client.Classify(slow, timeout=20 if cancel else 0.3)
            began = time.monotonic()
            if cancel:
                await asyncio.sleep(0.3)
                call.cancel()
            else:
                await asyncio.gather(call, return_exceptions=True)
            ended = time.monotonic() if cancel else began + 0.3
            await _until_seen(connection, outcome, before)
            waited.append((time.monotonic() - ended) * 1000)
            # The engine still sleeps.
            await asyncio.sleep(0.5)
        await connection.close()
    return waited


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fake", action="store_true", help="a backend that takes no time: the gateway is the limit")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    report: dict[str, Any] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        Service(Path(folder), *([] if options.fake else SHIPPED), fake=options.fake) as service,
    ):
        report |= throughput(service, options.seconds, options.rounds)
    with tempfile.TemporaryDirectory() as folder, Service(Path(folder)) as service:
        for cancel, name in ((True, "cancel_seen_ms"), (False, "deadline_seen_ms")):
            waited = sorted(asyncio.run(seen_after(service, cancel)))
            report[name] = {"p50": round(waited[len(waited) // 2], 1), "max": round(waited[-1], 1)}
    print(json.dumps(report, indent=1))
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
