"""A service is told to stop while gRPC clients ask: nobody who was let in goes without an answer."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from pathlib import Path

import grpc
import pytest

from service.proto.squint.v1 import vision_pb2 as pb
from tests.e2e import images
from tests.e2e.rpc import Vision, told
from tests.e2e.service import Service

pytestmark = pytest.mark.chaos

RATE, CHANNELS = 100, 8


def test_sigterm_under_grpc_load_loses_nothing(tmp_path: Path, full: bool) -> None:
    grace = 5.0 if full else 1.5

    async def scenario(service: Service) -> tuple[Counter[str], Counter[str]]:
        assert service.process is not None
        classes = len(service_labels)
        clients = [Vision(service.grpc_port, aio=True) for _ in range(CHANNELS)]
        before, after = Counter[str](), Counter[str]()
        leaves_at = [0.0]

        async def one(number: int) -> None:
            colour = images.number(number)
            at = time.monotonic()
            # Shortly before the port closes, a call may come to it too late.
            tally = after if leaves_at[0] and at > leaves_at[0] + grace - 0.3 else before
            try:
                answer = await clients[number % CHANNELS].Classify(
                    pb.ClassifyRequest(image=images.png(colour)), timeout=20
                )
            except grpc.aio.AioRpcError as error:
                tally[f"{error.code().name} {told(error).get('x-squint-code', '')}".strip()] += 1
            else:
                right = answer.predictions[0].index == images.expected_index(colour, classes)
                tally["ok" if right else "wrong"] += 1

        tasks = []
        for number in range(int(RATE * (grace + 2.5))):
            if number == RATE:
                service.process.send_signal(signal.SIGTERM)
                leaves_at[0] = time.monotonic()
            tasks.append(asyncio.ensure_future(one(number)))
            await asyncio.sleep(1 / RATE)
        await asyncio.gather(*tasks)
        for client in clients:
            await client.channel.close()
        return before, after

    with Service(tmp_path, "--drain-seconds", str(grace)) as service:
        service_labels = service.request("GET", "/v1/models/toyscape-classify").json()["labels"]
        before, after = asyncio.run(scenario(service))
        print(f"\nbefore the port closed: {dict(before)}; from then on: {dict(after)}")
        assert set(before) == {"ok"}
        # What comes in the very moment in which the port closes, gRPC itself cancels before it is a call of anyone's.
        assert set(after) <= {"ok", "UNAVAILABLE", "CANCELLED"}
        assert after["CANCELLED"] <= CHANNELS
        assert after["UNAVAILABLE"], "the port is closed in the end"
        assert service.process is not None and service.process.wait(26) == 0
        let_in = Counter(line["outcome"] for line in service.log_lines("request"))
        assert let_in == {"ok": before["ok"] + after["ok"]}
