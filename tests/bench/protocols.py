"""KServe's protocol beside our own REST, in turns in one run: `python -m tests.bench.protocols [--fake] [--seconds S]
[--rounds N] [--out FILE]`.

The same photo goes to one service as a raw body to /classify, as an inference of KServe over HTTP (JSON with the file
behind it, two outputs in binary form; and as a body that is the image alone, all outputs), and over gRPC, each from as
many connections as keep it busy. Prints what was answered per second, the ratio to REST (the median of the rounds' own
ratios), and the CPU time of gateway and client for a request: client and service share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import struct
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc

from service.proto.inference import inference_pb2 as pb
from tests.bench.grpc import CONNECTIONS, DEPTH, PHOTO, rest
from tests.bench.turns import Sender, compare
from tests.e2e.http import Connection
from tests.e2e.service import Service

MODEL = "toyscape-classify"
TARGET = f"/v2/models/{MODEL}/infer"
OUTPUTS = ("scores", "labels")
START_SECONDS = 300.0
"""The first start measures every backend."""


async def _http(port: int, until: float, body: bytes, json_bytes: int) -> int:
    headers = {"Inference-Header-Content-Length": str(json_bytes)}

    async def one() -> int:
        connection, count = Connection(port), 0
        while time.monotonic() < until:
            reply = await connection.request("POST", TARGET, body, headers)
            count += reply.status == 200
        await connection.close()
        return count

    return sum(await asyncio.gather(*(one() for _ in range(CONNECTIONS * DEPTH))))


async def kserve_http(port: int, until: float) -> int:
    """As tritonclient writes it."""
    content = struct.pack("<I", len(PHOTO)) + PHOTO
    tensor = {"name": "images", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(content)}}
    wanted = [{"name": name, "parameters": {"binary_data": True}} for name in OUTPUTS]
    head = json.dumps({"inputs": [tensor], "outputs": wanted}).encode()
    return await _http(port, until, head + content, len(head))


async def kserve_raw(port: int, until: float) -> int:
    """The image and nothing else."""
    return await _http(port, until, PHOTO, 0)


async def kserve_grpc(port: int, until: float) -> int:
    """Single calls."""
    request = pb.ModelInferRequest(
        model_name=MODEL,
        inputs=[pb.ModelInferRequest.InferInputTensor(name="images", datatype="BYTES", shape=[1])],
        outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in OUTPUTS],
        raw_input_contents=[struct.pack("<I", len(PHOTO)) + PHOTO],
    )

    async def one(call: Any) -> int:
        count = 0
        while time.monotonic() < until:
            await call(request, timeout=20)
            count += 1
        return count

    # Channels of one process share a connection unless they differ.
    channels = [
        grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.channel_id", number)])
        for number in range(CONNECTIONS)
    ]
    calls = [
        channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            pb.ModelInferRequest.SerializeToString,
            pb.ModelInferResponse.FromString,
        )
        for channel in channels
    ]
    counts = await asyncio.gather(*(one(call) for call in calls for _ in range(DEPTH)))
    for channel in channels:
        await channel.close()
    return sum(counts)


WAYS: dict[str, Sender] = {
    "rest": rest,
    "kserve_http": kserve_http,
    "kserve_raw": kserve_raw,
    "kserve_grpc": kserve_grpc,
}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fake", action="store_true", help="a backend that takes no time: the gateway is the limit")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        service = Service(Path(folder), "--log-level", "warning", fake=options.fake)
        service.start()
        try:
            service.wait_ready(START_SECONDS)
            report = compare(service, WAYS, {"kserve_grpc"}, options.seconds, options.rounds)
        finally:
            service.stop()
    print(json.dumps(report, indent=1))
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
