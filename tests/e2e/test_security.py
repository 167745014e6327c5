"""With keys, nothing is unguarded but what the documents list; and what is told about whom."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.e2e import images
from tests.e2e.guarded import Guarded, keys
from tests.e2e.http import Connection, Reply
from tests.e2e.raw import speak
from tests.e2e.service import ROOT
from tests.e2e.waiting import until

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
HEALTH = {
    *("/livez", "/readyz", "/startupz", "/healthz", "/health", "/ping"),
    *("/v2/health/live", "/v2/health/ready"),
}
UNGUARDED = {(method, path) for method in ("GET", "HEAD") for path in HEALTH}
OPEN_CALLS = {
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/List",
    "/grpc.health.v1.Health/Watch",
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
}
IMAGE = images.png((7, 8, 9))


class Setting:
    """A service that asks for keys, and the keys."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "keys"
        self.client = keys(self.file, "add", "camera-7")
        self.admin = keys(self.file, "add", "operator", "--admin")
        self.service = Guarded(folder, "--key-file", str(self.file), "--grpc-reflection")

    def ask(self, method: str, target: str, key: str | None = None, body: bytes = b"", **headers: str) -> Reply:
        shown = {"X-API-Key": key} if key is not None else {}
        return self.service.request(method, target, body, shown | headers)


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    made = Setting(tmp_path_factory.mktemp("keys"))
    with made.service:
        yield made


def paths() -> list[str]:
    """Every path of the application's routes, with something in the place of parameters."""
    from service.config import Config
    from service.gateway import app
    from service.gateway.auth import Guard

    gateway: Any = SimpleNamespace(config=Config(), guard=Guard(), metrics=None)
    found = [getattr(route, "path", "") for route in _routes(app.create(gateway).routes)]
    known = sorted({re.sub(r"\{[^}]*\}", "x", path) for path in found if path.startswith("/")})
    assert {"/classify", "/v1/models/x", "/v2/models/x/infer", "/metrics", "/docs", "/openapi.json"} <= set(known)
    return known


def _routes(routes: Any) -> Iterator[Any]:
    for route in routes:
        yield route
        # A router that was included keeps its own.
        router = getattr(route, "original_router", route)
        yield from _routes(getattr(router, "routes", None) or [])


def test_every_route_and_method_is_guarded_but_those_listed(setting: Setting) -> None:
    unlisted = ("/nowhere", "/docs", "/openapi.json", "/docs/", "//livez", "/livez/", "/LIVEZ", "/metrics/x")
    every = [*paths(), *unlisted, "/classify", "/v1/detect", "/admin", "/admin/reload", "/playground/x.js"]

    async def scenario() -> dict[tuple[str, str], int]:
        connection, seen = Connection(setting.service.port), {}
        for path in every:
            for method in METHODS:
                head = f"{method} {path} HTTP/1.1\r\nHost: t\r\n"
                if method == "HEAD":
                    # Its answer names a length that does not follow.
                    spoken = await speak(setting.service.port, f"{head}Connection: close\r\n\r\n".encode())
                    seen[method, path] = int(spoken.data[9:12])
                else:
                    seen[method, path] = (await connection.send(f"{head}Content-Length: 0\r\n\r\n".encode())).status
        await connection.close()
        return seen

    seen = asyncio.run(scenario())
    unguarded = {what for what, status in seen.items() if status not in (401, 403)}
    assert unguarded == UNGUARDED
    print(f"{len(seen)} of route and method, {len(unguarded)} without a key: {sorted({path for _, path in unguarded})}")
    assert {seen[method, path] for method, path in seen if (method, path) not in UNGUARDED} == {401}


def test_every_call_of_grpc_is_guarded_but_health(setting: Setting) -> None:
    import grpc
    from google.protobuf.descriptor_pb2 import FileDescriptorProto
    from grpc_reflection.v1alpha import reflection_pb2 as asked
    from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

    def calls(channel: grpc.Channel) -> set[str]:
        """Every method of every service that the server says it has."""
        stub = ServerReflectionStub(channel)
        shown = (("x-api-key", setting.client),)
        (listed,) = stub.ServerReflectionInfo(iter([asked.ServerReflectionRequest(list_services="")]), metadata=shown)
        found = set()
        for service in listed.list_services_response.service:
            question = asked.ServerReflectionRequest(file_containing_symbol=service.name)
            (answer,) = stub.ServerReflectionInfo(iter([question]), metadata=shown)
            for data in answer.file_descriptor_response.file_descriptor_proto:
                file = FileDescriptorProto.FromString(data)
                for one in file.service:
                    if f"{file.package}.{one.name}" == service.name:
                        found |= {f"/{service.name}/{method.name}" for method in one.method}
        return found

    with grpc.insecure_channel(f"127.0.0.1:{setting.service.grpc_port}") as channel:
        every = calls(channel)
        assert "/squint.v1.Vision/Classify" in every
        answered = set()
        for name in {*every, "/nothing.Here/AtAll"}:
            # As bytes, whatever the messages are: who asks is known before any is read.
            call = channel.stream_stream(name, request_serializer=bytes, response_deserializer=bytes)
            try:
                for _ in call(iter([b""]), timeout=20):
                    break
                answered.add(name)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAUTHENTICATED:
                    answered.add(name)
        assert answered <= OPEN_CALLS
        assert answered
        print(f"{len(every)} calls, {len(answered)} without a key: {sorted(answered)}")


def test_what_a_key_opens(setting: Setting) -> None:
    for headers in ({"X-API-Key": setting.client}, {"Authorization": f"Bearer {setting.client}"}):
        assert setting.service.request("POST", "/classify", IMAGE, headers).status == 200
        assert setting.service.request("GET", "/v1/models", b"", headers).status == 200
        assert setting.service.request("GET", "/nowhere", b"", headers).status == 404
    refused = setting.ask("POST", "/classify", "squint_wrong", IMAGE)
    assert (refused.status, refused.json()["code"]) == (401, "unauthorized")
    assert refused.headers["www-authenticate"] == "Bearer"
    assert setting.ask("POST", "/classify", None, IMAGE).status == 401
    assert setting.ask("GET", f"/v1/models?key={setting.client}").status == 401, "a key in a URL would end up in logs"


def test_the_log_has_names_and_no_keys(setting: Setting) -> None:
    setting.ask("POST", "/classify", setting.client, IMAGE)
    until(lambda: any(line.get("client") == "camera-7" for line in setting.service.log_lines("request")))
    for key in (setting.client, setting.admin):
        assert key not in setting.service.log_text()
        assert key not in setting.file.read_text()


def test_an_admin_key_is_needed_for_what_changes_the_service(setting: Setting) -> None:
    for path in ("/admin/reload", "/v2/repository/models/x/load", "/v2/repository/models/x/unload"):
        assert setting.ask("POST", path).status == 401
        refused = setting.ask("POST", path, setting.client)
        assert (refused.status, refused.json()["code"]) == (403, "forbidden")
        assert setting.ask("POST", path, setting.admin).status not in (401, 403)
    assert setting.ask("POST", "/admin/reload", setting.admin, Origin="http://evil.example").status == 403


def test_the_admin_port_has_health_and_metrics_and_nothing_of_the_clients(setting: Setting) -> None:
    ask = setting.service.ask_admin
    assert {path: ask("GET", path).status for path in ("/livez", "/readyz", "/startupz", "/metrics")} == dict.fromkeys(
        ("/livez", "/readyz", "/startupz", "/metrics"), 200
    )
    for method, path in (("POST", "/classify"), ("GET", "/v1/models"), ("GET", "/"), ("GET", "/docs"), ("GET", "/v2")):
        assert ask(method, path).status == 404, path
        assert ask(method, path, {"X-API-Key": setting.admin}).status == 404, path
    assert ask("POST", "/admin/reload").status == 401
    assert ask("POST", "/admin/reload", {"X-API-Key": setting.client}).status == 403
    page = {"X-API-Key": setting.admin, "Origin": "http://evil.example"}
    assert ask("POST", "/admin/reload", page).status == 403


def test_no_host_leads_past_the_keys(setting: Setting) -> None:
    source = random.Random(5)
    known = [
        *("localhost", "127.0.0.1", "[::1]", "t", "livez", "t/livez", "t/livez?", "t#/livez", "livez/..", "/livez"),
        *("t:80", "t:999999", "t:-1", "t:x", "[::1", "::1", "[]", "t,t", "t;t", "t t", "t\tt", "", ".", "..", "%00"),
        *("http://t/livez", "//t/livez", "\\livez", "t\\livez", "t@livez", "a:b@t", "127.1", "0x7f.1", "2130706433"),
        *("xn--80ak6aa92e.com", "é.example", "t\x00", "t\x01", "*", "*.t", "a" * 255, "a" * 256, "a" * 5000, "${jndi}"),
    ]
    letters = "abc.:/@[]%?#&;,=\\ \t\"'<>{}|^`~!$*()+-_0123456789"
    known += ["".join(source.choice(letters) for _ in range(source.randint(1, 30))) for _ in range(200 - len(known))]
    assert len(known) >= 200
    protected = ("/metrics", "/v1/models", "/docs", "/")

    async def scenario() -> set[int]:
        seen: set[int] = set()
        for number, host in enumerate(known):
            for path in (*protected, "/classify"):
                method = "POST" if path == "/classify" else "GET"
                head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                spoken = await speak(setting.service.port, head.encode())
                assert spoken.statuses in ((400,), (401,)), (number, host, path, spoken.data[:200])
                seen.add(spoken.statuses[0])
        return seen

    assert asyncio.run(scenario()) == {400, 401}


def test_keys_change_while_the_service_runs(setting: Setting) -> None:
    new = keys(setting.file, "add", "visitor")
    until(lambda: setting.ask("GET", "/v1/models", new).status == 200)
    before = setting.file.read_text()
    setting.file.write_text(before + "nonsense\n")
    until(lambda: setting.ask("GET", "/v1/models", new).status == 200 and _logged(setting, "keys_unreadable"))
    assert setting.ask("GET", "/v1/models", new).status == 200, "a broken file changes nothing"
    setting.file.write_text(before)
    assert "visitor" in keys(setting.file, "list")
    assert keys(setting.file, "revoke", "visitor") == "revoked 1 key of visitor"
    until(lambda: setting.ask("GET", "/v1/models", new).status == 401)
    assert setting.ask("GET", "/v1/models", setting.client).status == 200


def _logged(setting: Setting, event: str) -> bool:
    return bool(setting.service.log_lines(event))


def test_a_file_of_keys_that_is_none_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("nonsense\n")
    service = Guarded(tmp_path, "--key-file", str(tmp_path / "keys"))
    service.start()
    assert service.process is not None and service.process.wait(30) == 1
    assert "--key-file" in service.log_text() and "line 1" in service.log_text()


# --- other ways to be open or closed ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("limited")
    keys(folder / "keys", "add", "someone")
    flags = ("--key-file", str(folder / "keys"), "--public", "metrics", "--public", "playground")
    # So few for each second that it does not matter how long the test takes.
    rate = ("--rate-limit", "2", "--rate-burst", "40")
    with Guarded(folder, *flags, *rate, "--cors-origins", "http://a.example") as running:
        yield running


def test_what_an_operator_makes_public(limited: Guarded) -> None:
    assert limited.request("GET", "/metrics").status == 200
    assert limited.request("GET", "/").status == 200
    assert limited.request("POST", "/metrics").status == 401
    for path in ("/v1/models", "/docs", "/metricsx", "/playgroundx", "/openapi.json"):
        assert limited.request("GET", path).status == 401, path


def test_a_browser_may_ask_what_it_may_ask_and_sees_why_it_may_not(limited: Guarded) -> None:
    asks = {"Origin": "http://a.example", "Access-Control-Request-Method": "POST"}
    assert limited.request("OPTIONS", "/classify", b"", asks).status == 200
    assert limited.request("OPTIONS", "/classify", b"", {"Origin": "http://a.example"}).status == 401
    for method, path in (("POST", "/classify"), ("GET", "/v1/models")):
        refused = limited.request(method, path, b"", {"Origin": "http://a.example"})
        assert refused.status == 401
        assert refused.headers["access-control-allow-origin"] == "http://a.example"


def test_who_asks_too_often_is_told_when_to_come_back(limited: Guarded) -> None:
    key = keys(limited.log_path.parent / "keys", "add", "busy")
    until(lambda: limited.request("GET", "/v1/models", b"", {"X-API-Key": key}).status != 401)

    async def scenario() -> list[Reply]:
        connection = Connection(limited.port)
        replies = [await connection.request("POST", "/classify", IMAGE, {"X-API-Key": key}) for _ in range(80)]
        await connection.close()
        return replies

    replies = asyncio.run(scenario())
    refused = [reply for reply in replies if reply.status == 429]
    assert len(refused) >= 20
    assert {reply.json()["code"] for reply in refused} == {"rate_limited"}
    assert all(int(reply.headers["retry-after"]) >= 1 for reply in refused)
    assert limited.metric('squint_refused_total{code="rate_limited"}') >= len(refused)
    assert limited.metric('squint_refused_total{code="overloaded"}') == 0, "the service itself had time"


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    flags = ("--trusted-proxies", "127.0.0.0/8", "--rate-limit", "0.01", "--rate-burst", "3", "--metrics-admin-only")
    with Guarded(tmp_path_factory.mktemp("proxied"), *flags) as running:
        yield running


def test_a_client_behind_a_trusted_proxy_is_who_the_proxy_says(proxied: Guarded) -> None:
    def ask(forwarded: str, path: str = "/classify") -> int:
        method = "POST" if path == "/classify" else "GET"
        return proxied.request(method, path, IMAGE, {"X-Forwarded-For": forwarded}).status

    assert [ask("192.0.2.1") for _ in range(4)] == [200, 200, 200, 429]
    assert ask("192.0.2.2") == 200
    assert ask("192.0.2.9, 192.0.2.1") == 429, "what stands further left is the client's invention"
    assert [ask("192.0.2.3", "/v1/models") for _ in range(4)] == [200, 200, 200, 429]


def test_metrics_may_be_the_operators_alone(proxied: Guarded) -> None:
    assert proxied.request("GET", "/metrics").status == 404
    assert proxied.ask_admin("GET", "/metrics").status == 200


def test_without_keys_what_changes_the_service_is_on_the_admin_port_alone(proxied: Guarded) -> None:
    assert proxied.request("POST", "/admin/reload").status == 404
    assert proxied.ask_admin("POST", "/admin/reload", {"Origin": "http://evil.example"}).status == 403
    assert proxied.ask_admin("POST", "/admin/nothing").status in (404, 405)


def test_no_file_names_a_way_past(setting: Setting) -> None:
    """The list in the document is the list in the code."""
    text = (ROOT / "docs" / "security.md").read_text()
    listed = set(re.findall(r"^\| `(/[\w/.]+)`", text, re.MULTILINE))
    assert listed == HEALTH | OPEN_CALLS
