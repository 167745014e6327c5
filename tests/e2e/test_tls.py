"""TLS on the ports of HTTP and gRPC: who is let in, and certificates that are renewed under running connections."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from tests.e2e import images
from tests.e2e.authority import Authority, client_context
from tests.e2e.guarded import Guarded
from tests.e2e.raw import speak, speak_tls
from tests.e2e.service import ROOT
from tests.e2e.waiting import until

IMAGE = images.png((7, 8, 9))
READY = b"GET /readyz HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
CLASSIFY = b"POST /classify HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n" % len(IMAGE) + IMAGE

Files = tuple[Path, Path]


class World:
    """An authority, what it signed, and a service that asks for certificates."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        self.server = self.authority.sign("service", server=True)
        self.camera = self.authority.sign("camera-7")
        certificate, key = self.server
        self.service = Guarded(
            folder,
            *("--tls-cert", str(certificate), "--tls-key", str(key), "--tls-client-ca", str(self.authority.ca)),
            *("--tls-clients", "camera-7", "--tls-clients", "camera-9"),
        )

    def http(self, certificate: Files | None, data: bytes = READY) -> tuple[int, ...]:
        """The statuses of the answers; none for a client that is not let in."""
        return speak_tls(self.service.port, data, client_context(self.authority.ca, certificate)).statuses

    def rpc(self, certificate: Files | None) -> str:
        """`OK`, or the status of a call of health."""
        return call(self.service.grpc_port, self.authority.ca, certificate)


def call(port: int, ca: Path, certificate: Files | None) -> str:
    chain, key = (path.read_bytes() for path in certificate) if certificate else (None, None)
    credentials = grpc.ssl_channel_credentials(ca.read_bytes(), key, chain)
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
        ask = channel.unary_unary("/grpc.health.v1.Health/Check", bytes, health_pb2.HealthCheckResponse.FromString)
        try:
            ask(b"", timeout=20)
        except grpc.RpcError as error:
            return str(error.code().name)
        return "OK"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("mtls"))
    with made.service:
        yield made


def test_who_has_a_good_certificate_is_served(world: World) -> None:
    assert world.http(world.camera) == (200,)
    assert world.rpc(world.camera) == "OK"
    assert world.http(world.camera, CLASSIFY.replace(b"Host: t", b"Host: t\r\nConnection: close")) == (200,)
    lines = world.service.log_lines("request")
    assert [line["client"] for line in lines] == ["camera-7"], "it is known by its name"


@pytest.mark.parametrize("kind", ["none", "of another authority", "expired", "revoked", "a server's"])
def test_who_has_not_is_refused_on_both_ports(world: World, kind: str) -> None:
    certificate: Files | None = None
    if kind == "of another authority":
        certificate = Authority(world.folder, "other").sign("camera-7", file="other-camera")
    elif kind == "expired":
        certificate = world.authority.sign("camera-7", expired=True, file="expired")
    elif kind == "revoked":
        # Signed and in date, and taken off the list of names.
        certificate = world.authority.sign("camera-8")
    elif kind == "a server's":
        certificate = world.authority.sign("camera-9", server=True, file="server-camera")
    assert world.http(certificate) == ()
    assert world.rpc(certificate) in ("UNAVAILABLE", "UNAUTHENTICATED")
    assert world.http(world.camera) == (200,)


def test_plain_text_is_no_way_in(world: World) -> None:
    spoken = asyncio.run(speak(world.service.port, READY))
    assert b"HTTP/1.1 2" not in spoken.data
    assert spoken.closed
    with grpc.insecure_channel(f"127.0.0.1:{world.service.grpc_port}") as channel:
        ask = channel.unary_unary("/grpc.health.v1.Health/Check", bytes, bytes)
        with pytest.raises(grpc.RpcError):
            ask(b"", timeout=2)


def test_old_versions_of_tls_are_not_spoken(world: World) -> None:
    context = client_context(world.authority.ca, world.camera)
    with pytest.warns(DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    assert speak_tls(world.service.port, READY, context).data == b""


def test_who_never_shakes_hands_is_not_waited_for_long(world: World) -> None:
    async def silent() -> float:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.service.port)
        start = time.monotonic()
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(reader.read(1), 20)
        writer.close()
        return time.monotonic() - start

    assert asyncio.run(silent()) < 15.0
    assert world.http(world.camera) == (200,)


def serial(port: int, ca: Path, certificate: Files | None) -> int:
    """The serial number of the certificate that the HTTP port shows."""

    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
        client_context(ca, certificate).wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        shown = secure.getpeercert() or {}
        return int(str(shown["serialNumber"]), 16)


def rpc_serial(port: int) -> int:
    """The same of the port of gRPC."""
    from cryptography import x509

    return x509.load_pem_x509_certificate(ssl.get_server_certificate(("127.0.0.1", port)).encode()).serial_number


def test_certificates_are_renewed_without_dropping_a_connection(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.sign("service", server=True)
    context = client_context(authority.ca)

    async def scenario(service: Guarded) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port, ssl=context)

        async def ask() -> bytes:
            writer.write(CLASSIFY)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            await reader.readexactly(length)
            return head[:12]

        assert await ask() == b"HTTP/1.1 200"
        before = await asyncio.to_thread(serial, service.port, authority.ca, None)
        assert await asyncio.to_thread(rpc_serial, service.grpc_port) == before
        # A half-written pair changes nothing.
        kept = tmp_path / "kept.key"
        shutil.copy(key, kept)
        key.write_bytes(b"nonsense")
        shown = set[int]()

        def unreadable() -> bool:
            # Files are looked at when somebody connects, and not more often than every second.
            shown.add(serial(service.port, authority.ca, None))
            return bool(service.log_lines("certificates_unreadable"))

        await asyncio.to_thread(until, unreadable)
        shown.add(await asyncio.to_thread(serial, service.port, authority.ca, None))
        assert shown == {before}
        authority.sign("service", server=True)
        await asyncio.to_thread(until, lambda: serial(service.port, authority.ca, None) != before)
        after = await asyncio.to_thread(serial, service.port, authority.ca, None)
        await asyncio.to_thread(until, lambda: rpc_serial(service.grpc_port) == after)
        assert await ask() == b"HTTP/1.1 200", "the connection of before goes on"
        writer.close()

    with Guarded(tmp_path, "--tls-cert", str(certificate), "--tls-key", str(key)) as service:
        asyncio.run(scenario(service))
        assert "https://" in service.out_text()
        assert service.ask_admin("GET", "/livez").status == 200, "the admin port of this machine alone is plain"


def ready(port: int, context: ssl.SSLContext) -> bool:
    with contextlib.suppress(OSError):
        return speak_tls(port, READY, context).statuses == (200,)
    return False


def test_an_admin_port_that_others_reach_speaks_tls_too(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.sign("service", server=True)
    service = Guarded(tmp_path, "--tls-cert", str(certificate), "--tls-key", str(key), "--admin-host", "0.0.0.0")
    service.start()
    context = client_context(authority.ca)
    try:
        until(lambda: ready(service.admin, context), 60)
        assert b"HTTP/1.1" not in asyncio.run(speak(service.admin, READY)).data
    finally:
        service.stop()


@pytest.mark.parametrize("broken", ["the key of another", "no certificate", "nowhere"])
def test_a_certificate_that_is_none_stops_the_start(tmp_path: Path, broken: str) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.sign("service", server=True)
    if broken == "the key of another":
        _, key = authority.sign("other", server=True)
    elif broken == "no certificate":
        certificate = ROOT / "README.md"
    else:
        key = tmp_path / "nowhere"
    service = Guarded(tmp_path, "--tls-cert", str(certificate), "--tls-key", str(key))
    service.start()
    assert service.process is not None and service.process.wait(30) == 1
    assert re.search("--tls-(cert|key)", service.log_text())
