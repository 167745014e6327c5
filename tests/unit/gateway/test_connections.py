"""The short way of tasks' requests through a connection, without a network: what arrives, in which order, and what
goes out."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from service.config import Limits
from service.gateway import http, patience
from service.gateway.addresses import Proxies
from service.gateway.door import Door
from service.gateway.exchange import Exchange, new_id
from service.gateway.http import Connection
from service.gateway.reception import Room

Steps = list[str]


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = self.aborted = False
        self.reading = True
        self.unsent = 0
        self.halves = self.ended = False

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def can_write_eof(self) -> bool:
        return self.halves

    def write_eof(self) -> None:
        self.ended = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("192.0.2.1", 5) if name == "peername" else None

    @property
    def answers(self) -> list[bytes]:
        """The bodies of the responses so far."""
        return [part.partition(b"\r\n\r\n")[2] for part in self.written.split(b"HTTP/1.1 200 OK\r\n")[1:]]


class Taker:
    """Notes what it is told, and answers a whole body with itself unless told to wait."""

    def __init__(self, exchange: Exchange, task: str, steps: Steps, wait: bool) -> None:
        self.exchange = exchange
        self.body = b""
        self._steps = steps
        self._wait = wait
        self._task = task

    def begin(self) -> None:
        self._steps.append(f"begin {self._task} {self.exchange.query.decode()}".rstrip())
        self.exchange.send_on()

    def chunk(self, data: bytes) -> None:
        self.body += data

    def complete(self) -> None:
        self._steps.append(f"complete {len(self.body)}")
        if not self._wait:
            self.answer()

    def late(self, slow: bool) -> None:
        self._steps.append("slow" if slow else "late")
        self.exchange.answer(408, [(b"connection", b"close")], b"late")

    def lost(self) -> None:
        self._steps.append("lost")

    def answer(self) -> None:
        self.exchange.answer(200, [], self.body)


class Setting:
    """One connection and what happened on it."""

    def __init__(self, wait: bool = False, **terms: Any) -> None:
        self.steps: Steps = []
        self.takers: list[Taker] = []
        self.passed: list[str] = []

        self._wait = wait

        async def application(scope: Any, receive: Any, send: Any) -> None:
            self.passed.append(f"{scope['method']} {scope['path']}")
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
            await send({"type": "http.response.body", "body": b"asgi"})

        posts = {path: functools.partial(self.take, task="classify") for path in ("/classify", "/v1/classify")}
        door = Door(posts, **terms)
        config = uvicorn.Config(application, http=http.protocol(door), lifespan="off", log_config=None)
        config.load()
        self.connection = config.http_protocol_class(  # type: ignore[call-arg]
            config=config, server_state=ServerState(), app_state={}, _loop=asyncio.get_running_loop()
        )
        self.transport = Transport()
        self.connection.connection_made(self.transport)

    def take(self, exchange: Exchange, task: str) -> Taker:
        """Serve a request that takes the short way."""
        self.takers.append(Taker(exchange, task, self.steps, self._wait))
        return self.takers[-1]

    def receive(self, data: bytes, pieces: int = 0) -> None:
        """`data` arrives, whole or in pieces of this many bytes."""
        for start in range(0, len(data), pieces or len(data)):
            self.connection.data_received(data[start : start + (pieces or len(data))])


def post(body: bytes, target: str = "/classify", *headers: str) -> bytes:
    lines = [f"POST {target} HTTP/1.1", "Host: t", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def in_loop(test: Callable[[], Any]) -> None:
    async def run() -> None:
        outcome = test()
        if asyncio.iscoroutine(outcome):
            await outcome

    asyncio.run(run())


@pytest.mark.parametrize("pieces", [0, 1, 7, 100])
def test_a_request_arrives_however_it_is_cut(pieces: int) -> None:
    def check() -> None:
        setting = Setting()
        for body in (b"abc" * 50, b"", b"z"):
            setting.receive(post(body, "/v1/classify?top_k=3"), pieces)
        assert setting.steps == [
            "begin classify top_k=3", "complete 150", "begin classify top_k=3", "complete 0",
            "begin classify top_k=3", "complete 1",
        ]  # fmt: skip
        assert setting.transport.answers == [b"abc" * 50, b"", b"z"]
        assert not setting.transport.closed

    in_loop(check)


def test_a_body_in_chunks() -> None:
    def check() -> None:
        setting = Setting()
        head = b"POST /classify HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
        setting.receive(head + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", 5)
        assert setting.transport.answers == [b"abcde"]

    in_loop(check)


@pytest.mark.parametrize(
    ("target", "query"),
    [
        ("/cl%61ssify?a=%20b", "a=%20b"),
        ("http://host/classify?q", "q"),
        ("/classify?a=1#end", "a=1"),
        ("/classify?", ""),
    ],
)
def test_other_spellings_of_a_path_mean_the_same(target: str, query: str) -> None:
    def check() -> None:
        setting = Setting()
        setting.receive(post(b"x", target))
        assert setting.steps == [f"begin classify {query}".rstrip(), "complete 1"]

    in_loop(check)


def test_a_path_with_a_name_in_it_is_looked_up_by_its_method() -> None:
    asked: list[tuple[bytes, str]] = []

    async def check() -> None:
        def find(method: bytes, path: str) -> Any:
            asked.append((method, path))
            return functools.partial(setting.take, task=path) if path.startswith("/models/") else None

        setting = Setting(find=find)
        for method, target in (("POST", "/models/a%20b/infer?x=1"), ("PUT", "/models/c"), ("PUT", "/classify")):
            setting.receive(post(b"x", target).replace(b"POST", method.encode()))
            await asyncio.sleep(0)
        setting.receive(b"GET /models/d HTTP/1.1\r\nHost: t\r\n\r\n")
        await asyncio.sleep(0.01)
        assert setting.steps == ["begin /models/a b/infer x=1", "complete 1", "begin /models/c", "complete 1"]
        assert setting.passed == ["PUT /classify", "GET /models/d"]

    in_loop(check)
    assert asked == [(b"POST", "/models/a b/infer"), (b"PUT", "/models/c"), (b"PUT", "/classify")]


def test_all_else_goes_to_the_application() -> None:
    async def check() -> None:
        setting = Setting()
        for data in (b"GET /classify HTTP/1.1\r\nHost: t\r\n\r\n", post(b"x", "/classify/"), post(b"x", "/nowhere")):
            setting.receive(data)
            await asyncio.sleep(0.01)
        assert setting.passed == ["GET /classify", "POST /classify/", "POST /nowhere"]
        assert setting.steps == []
        setting.receive(post(b"xy"))
        assert setting.steps == ["begin classify", "complete 2"]

    in_loop(check)


def test_pipelined_requests_are_served_one_after_another() -> None:
    async def check() -> None:
        setting = Setting(wait=True)
        setting.receive(post(b"one") + post(b"two") + b"GET /x HTTP/1.1\r\nHost: t\r\n\r\n" + post(b"three"))
        assert setting.steps == ["begin classify", "complete 3"]
        assert not setting.transport.reading
        setting.takers[0].answer()
        assert setting.steps[2:] == ["begin classify", "complete 3"]
        setting.takers[1].answer()
        await asyncio.sleep(0.01)
        assert setting.passed == ["GET /x"]
        assert setting.steps[4:] == ["begin classify", "complete 5"]
        setting.takers[2].answer()
        assert setting.transport.answers == [b"one", b"two", b"asgi", b"three"]
        assert setting.transport.reading

    in_loop(check)


def test_who_does_not_read_answers_gets_no_more_of_them() -> None:
    def check() -> None:
        setting = Setting(wait=True)
        setting.receive(post(b"one") + post(b"two"))
        setting.connection.pause_writing()
        setting.takers[0].answer()
        assert setting.steps == ["begin classify", "complete 3"]
        assert not setting.transport.reading
        setting.connection.resume_writing()
        assert setting.steps[2:] == ["begin classify", "complete 3"]
        assert setting.transport.reading

    in_loop(check)


def test_a_client_that_leaves_is_told_of_once_and_gets_nothing() -> None:
    def check() -> None:
        setting = Setting(wait=True)
        setting.receive(post(b"one") + post(b"two"))
        setting.connection.connection_lost(None)
        assert setting.steps == ["begin classify", "complete 3", "lost"]
        setting.takers[0].answer()
        assert setting.transport.written == b""
        answered = Setting()
        answered.receive(post(b"one"))
        answered.connection.connection_lost(None)
        assert answered.steps == ["begin classify", "complete 3"]

    in_loop(check)


def test_a_client_that_waits_to_be_told_is_told() -> None:
    def check() -> None:
        setting = Setting()
        setting.receive(post(b"x" * 9, "/classify", "Expect: 100-continue")[:-9])
        assert setting.transport.written == b"HTTP/1.1 100 Continue\r\n\r\n"
        setting.receive(b"x" * 9)
        assert setting.transport.answers == [b"x" * 9]

    in_loop(check)


def test_the_connection_ends_when_the_client_or_the_service_says_so() -> None:
    def check() -> None:
        for asked in (
            b"POST /classify HTTP/1.0\r\nContent-Length: 1\r\n\r\nx",
            post(b"x", "/classify", "Connection: close"),
        ):
            setting = Setting()
            setting.receive(asked)
            assert b"\r\nconnection: close\r\n" in setting.transport.written
            assert setting.transport.closed
        stopping = Setting(wait=True)
        stopping.receive(post(b"x"))
        stopping.connection.shutdown()  # type: ignore[attr-defined]
        assert not stopping.transport.closed
        stopping.takers[0].answer()
        assert stopping.transport.answers == [b"x"]
        assert stopping.transport.closed

    in_loop(check)


def test_a_late_body_is_refused_and_a_late_head_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "HEAD_SECONDS", 0.05)

    async def check() -> None:
        body, head, silent, idle = Setting(), Setting(), Setting(), Setting()
        body.receive(post(b"xyz")[:-1])
        head.receive(b"POST /classify HT")
        idle.receive(post(b"x"))
        async with asyncio.timeout(10):
            while not (body.transport.closed and head.transport.closed and silent.transport.closed):
                await asyncio.sleep(0.01)
        assert body.steps == ["begin classify", "late"]
        assert body.transport.written.startswith(b"HTTP/1.1 408 ")
        assert not idle.transport.closed
        assert isinstance(idle.connection, Connection)

    in_loop(check)


def test_a_body_that_comes_too_slowly_is_cut_off_before_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "GRACE_SECONDS", 0.05)
    monkeypatch.setattr(patience, "_LOOK_SECONDS", 0.02)

    async def check() -> None:
        slow, quick = (Setting(limits=Limits(upload_rate=1000)) for _ in range(2))
        for one in (slow, quick):
            one.receive(post(b"x" * 100_000)[:-99_990])
        # As much ahead as may be asked of it should the machine be busy.
        quick.receive(b"x" * 10_000)
        for _ in range(20):
            await asyncio.sleep(0.01)
            quick.receive(b"x" * 100)
            slow.receive(b"x") if not slow.transport.closed else None
        assert slow.steps == ["begin classify", "slow"]
        assert slow.transport.closed
        assert quick.steps == ["begin classify"]
        assert not quick.transport.closed

    in_loop(check)


def test_whoever_takes_nothing_of_an_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "TAKE_SECONDS", 0.2)

    async def check() -> None:
        stuck, taking = (Setting(limits=Limits(upload_rate=1000)) for _ in range(2))
        for one in (stuck, taking):
            one.receive(post(b"one"))
            one.transport.unsent = 100_000
            one.connection.pause_writing()
        for _ in range(60):
            await asyncio.sleep(0.01)
            taking.transport.unsent -= 1000
        assert stuck.transport.aborted
        assert not taking.transport.closed
        taking.connection.resume_writing()

    in_loop(check)


def test_a_connection_that_closes_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "TAKE_SECONDS", 0.05)

    async def check() -> None:
        setting = Setting()
        setting.transport.unsent = 10
        setting.receive(post(b"x", "/classify", "Connection: close"))
        assert setting.transport.closed and not setting.transport.aborted
        async with asyncio.timeout(10):
            while not setting.transport.aborted:
                await asyncio.sleep(0.01)

    in_loop(check)


def test_there_is_room_for_so_many_connections() -> None:
    def check() -> None:
        limits = Limits(connections=3, connections_per_address=2)
        room = Room(limits, Proxies(()))
        settings = [Setting(limits=limits, room=room) for _ in range(3)]
        assert [one.transport.closed for one in settings] == [False, False, True]
        assert settings[2].transport.written.startswith(b"HTTP/1.1 429 ")
        assert room.enter("192.0.2.7")
        assert not room.enter("192.0.2.8"), "there is room for three"
        for one in settings:
            one.connection.connection_lost(None)
        assert room.taken == 1
        room.leave("192.0.2.7")
        assert (room.taken, room._from) == (0, {})
        behind = Room(limits, Proxies(["192.0.2.0/24"]))
        assert [behind.enter("192.0.2.1") for _ in range(4)] == [True, True, True, False]

    in_loop(check)


def test_fields_after_a_body_are_no_fields_of_its_head() -> None:
    def check() -> None:
        setting = Setting()
        head = b"POST /classify HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
        setting.receive(head + b"3\r\nabc\r\n0\r\nX-API-Key: stolen\r\n\r\n")
        assert setting.transport.answers == [b"abc"]
        assert setting.takers[0].exchange.header(b"x-api-key") is None

    in_loop(check)


def test_an_error_waits_for_the_answers_before_it() -> None:
    def check() -> None:
        setting = Setting(wait=True)
        setting.receive(post(b"one") + b"NONSENSE\r\n\r\n" + post(b"two"))
        assert setting.transport.written == b""
        setting.takers[0].answer()
        assert setting.transport.answers == [b"one"]
        assert b"connection: close" in setting.transport.written
        assert setting.transport.closed
        assert setting.steps == ["begin classify", "complete 3"]

    in_loop(check)


def test_who_is_still_sending_gets_to_read_why_it_should_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_PARTING_SECONDS", 0.05)

    async def check() -> None:
        setting = Setting(wait=True)
        setting.transport.halves = True
        setting.receive(post(b"x" * 100)[:-50])
        setting.takers[0].exchange.answer(413, [(b"connection", b"close")], b"no")
        assert setting.transport.ended and not setting.transport.closed
        setting.receive(b"x" * 50 + post(b"y"))
        assert setting.steps == ["begin classify"]
        async with asyncio.timeout(10):
            while not setting.transport.closed:
                await asyncio.sleep(0.01)

    in_loop(check)


def test_the_rest_of_a_refused_body_is_read_only_so_far() -> None:
    def check() -> None:
        setting = Setting(wait=True, limits=Limits(body_bytes=1000))
        setting.receive(post(b"x" * 5000)[:-4990])
        setting.takers[0].exchange.answer(401, [], b"no")
        assert not setting.transport.closed
        for _ in range(3):
            setting.receive(b"x" * 500)
        assert setting.transport.closed

    in_loop(check)


def test_only_so_many_requests_wait_for_one_before_them() -> None:
    def check() -> None:
        setting = Setting(wait=True)
        setting.receive(post(b"x") * 300)
        assert len(setting.connection.pipeline) == 100  # type: ignore[attr-defined]
        assert not setting.transport.reading
        for taker in setting.takers:
            taker.answer()
        assert len(setting.transport.answers) == 101
        assert setting.transport.closed

    in_loop(check)


def test_who_asks_is_whom_a_trusted_proxy_names() -> None:
    def check() -> None:
        field = "X-Forwarded-For: 203.0.113.1, 198.51.100.7"
        for networks, expected in ((["192.0.2.0/24"], "198.51.100.7"), ([], "192.0.2.1")):
            setting = Setting(room=Room(Limits(), Proxies(networks)))
            setting.receive(post(b"x", "/classify", field))
            client = setting.takers[0].exchange.client
            assert client is not None and client[0] == expected

    in_loop(check)


def test_ids_are_not_repeated() -> None:
    made = [new_id() for _ in range(2000)]
    assert len(set(made)) == 2000
    assert {len(one) for one in made} == {32}
    assert set("".join(made)) <= set("0123456789abcdef")
