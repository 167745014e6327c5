"""What is no proper HTTP: refused at once, and never read in two ways."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.e2e.hostile_requests import PROBES, SMUGGLED, Probe
from tests.e2e.raw import Spoken, speak
from tests.e2e.service import Service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("strict"), "--log-level", "warning") as running:
        yield running


def test_there_are_enough_of_them() -> None:
    assert len(PROBES) >= 60
    assert len({probe.name for probe in PROBES}) == len(PROBES)


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_a_raw_request_gets_its_status(service: Service, probe: Probe) -> None:
    spoken = asyncio.run(speak(service.port, probe.raw))
    assert spoken.statuses == probe.statuses, spoken.data[:300]
    assert spoken.closed, "the service closes the connection"
    if 400 in probe.statuses:
        assert b'"code":"bad_request"' in spoken.data
        assert b"\r\nconnection: close\r\n" in spoken.data


@pytest.mark.parametrize("pieces", [1, 7])
def test_it_does_not_matter_how_a_request_is_cut(service: Service, pieces: int) -> None:
    async def say(probe: Probe) -> Spoken:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        try:
            for start in range(0, len(probe.raw), pieces):
                writer.write(probe.raw[start : start + pieces])
                await asyncio.sleep(0)
            data = await asyncio.wait_for(reader.read(1 << 16), 5)
        except ConnectionError:
            data = b""
        writer.close()
        return Spoken((), data, True)

    async def scenario() -> None:
        for probe in PROBES:
            if len(probe.raw) < 600 and SMUGGLED not in probe.raw:
                spoken = await say(probe)
                assert spoken.data.startswith(b"HTTP/1.1 %d " % probe.statuses[0]), probe.name

    asyncio.run(scenario())


def test_whoever_is_refused_is_told_only_after_those_before(service: Service) -> None:
    """An error about the second request must not be taken for the answer to the first, which is still under way."""
    head = b"POST /classify HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n"
    image = next(probe for probe in PROBES if probe.name == "an image").raw.partition(b"\r\n\r\n")[2]
    raw = head % len(image) + image + b"NONSENSE\r\n\r\n" + SMUGGLED
    spoken = asyncio.run(speak(service.port, raw))
    assert spoken.statuses == (200,)
    assert spoken.closed


def test_the_service_is_as_well_as_before(service: Service) -> None:
    assert service.request("GET", "/readyz").status == 200
    assert "process_died" not in service.log_text()
    assert '"bug"' not in service.log_text()
