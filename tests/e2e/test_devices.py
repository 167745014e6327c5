"""Several devices behind one queue: one that fails is left out and told of, and comes back when it can."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import images
from tests.e2e.http import Connection
from tests.e2e.service import Service
from tests.e2e.waiting import until

SECONDS = 30.0
FAILS = images.lose_device(1)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    # Images take long enough that both workers have some at once; the second crash in a row is one too many.
    flags = ("--devices", "cuda:0,cuda:1", "--fake-batch-ms", "20", "--max-crashes", "2", "--decoders", "2")
    with Service(tmp_path, *flags) as running:
        yield running


def workers(service: Service) -> dict[str, int]:
    text = service.request("GET", "/metrics").body.decode()
    found = re.findall(r'^squint_worker_up\{device="([^"]+)",worker="\d+"\} (\d)', text, re.MULTILINE)
    return {device: int(up) for device, up in found}


def ask(service: Service, *colours: images.Colour) -> list[int]:
    """One image of each colour at once: their statuses."""

    async def one(colour: images.Colour) -> int:
        connection = Connection(service.port)
        try:
            return (await connection.request("POST", "/classify", images.png(colour))).status
        finally:
            await connection.close()

    async def everyone() -> list[int]:
        return list(await asyncio.gather(*(one(colour) for colour in colours)))

    return asyncio.run(everyone())


def lose(service: Service, lost: Path) -> None:
    """Until the device has failed and the service has given it up."""
    until(lambda: workers(service) == {"cuda:0": 1, "cuda:1": 1}, SECONDS, "both workers are there")
    until(lambda: set(ask(service, *[FAILS] * 8)) == {200} and lost.exists(), SECONDS, "the device fails")
    until(lambda: bool(service.log_lines("device_failed")), SECONDS, "it is told of")


def test_a_device_that_fails_is_left_out_and_told_of_while_the_other_serves(service: Service, tmp_path: Path) -> None:
    lose(service, tmp_path / "cache" / "lost-cuda:1")
    assert service.log_lines("device_failed")[0]["device"] == "cuda:1"
    # The supervisor tells of it, and whoever dispatches sees for itself that the worker is gone.
    until(lambda: workers(service) == {"cuda:0": 1, "cuda:1": 0}, SECONDS, "it is left out")
    assert service.request("GET", "/readyz").status == 200
    assert ask(service, *[(number, 2, 3) for number in range(20)]) == [200] * 20


@pytest.mark.chaos
def test_a_device_that_is_back_serves_again(service: Service, tmp_path: Path, full: bool) -> None:
    if not full:
        pytest.skip("the next try is 10 s away: make chaos waits for it")
    lost = tmp_path / "cache" / "lost-cuda:1"
    lose(service, lost)
    lost.unlink()
    until(lambda: workers(service) == {"cuda:0": 1, "cuda:1": 1}, SECONDS, "it is back")
    assert ask(service, *[(number, 2, 3) for number in range(20)]) == [200] * 20


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="this machine has a GPU")
@pytest.mark.parametrize("backend", ["auto", "tensorrt"])
def test_a_gpu_that_is_not_there_stops_the_start_with_a_line_that_says_so(tmp_path: Path, backend: str) -> None:
    service = Service(tmp_path, "--devices", "cuda:0", "--backend", backend, fake=False)
    service.start()
    assert service.process is not None and service.process.wait(SECONDS) == 1
    said = r"^squint: model \S+: no backend can run it \(.*cuda:0 is not there, or NVIDIA's driver .*\)$"
    assert re.search(said, service.log_text(), re.MULTILINE)
