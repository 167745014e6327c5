"""A decoder process over its real channels and arenas."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from service import config
from service.config import Config, Limits
from service.decoder import baseline, image
from service.errors import WireError
from service.wire import pulse
from service.wire.channel import Channel, ControlChannel
from service.wire.messages.control import Attach, Control, Drain, Ready, Start
from service.wire.messages.decoder import Decode, Decoded, Fitting, FromDecoder, Heavy, Undecoded
from service.wire.pulse import Pulse
from service.wire.slots import Arena
from tests.unit.decoder.scenes import photo, save

SIDE = 64
FITTING = Fitting(fit="crop", height=SIDE, width=SIDE, fill=(0, 0, 0))
ROOT = Path(__file__).parents[3]


class Peer:
    """The supervisor and the gateway, as a decoder sees them."""

    def __init__(self, settings: Config) -> None:
        self.pixels = Arena.create("pixels", 4, SIDE * SIDE * 3)
        self.bodies = Arena.create("bodies", 4, 1 << 20)
        self.board = Arena.create("board", 3, 16)
        self.pulse = Pulse(self.board, 2)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "service.decoder.main", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            cwd=ROOT,
            env={"OPENBLAS_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
        )
        theirs.close()
        self.control: ControlChannel[Control] = ControlChannel(ours, Control)
        start = Start(
            role="decoder",
            index=0,
            config=config.encode(settings),
            pixel_slots=4,
            pixel_slot_bytes=SIDE * SIDE * 3,
            body_slots=4,
            body_slot_bytes=1 << 20,
            first_pulse=2,
            pulses=1,
        )
        arenas = (self.pixels, self.bodies, self.board)
        self.control.send(start, tuple(arena.descriptor for arena in arenas))
        self.data = self.attach()

    def attach(self) -> Channel[FromDecoder]:
        """A new gateway."""
        ours, theirs = socket.socketpair()
        self.control.send(Attach("decoder", 0), (theirs.fileno(),))
        theirs.close()
        ours.settimeout(30)
        return Channel(ours, FromDecoder)

    def put(self, slot: int, body: bytes) -> None:
        self.bodies.view(slot)[: len(body)] = body

    def ask(self, body: bytes, number: int = 1, slot: int = 0, limit: float = 0.0) -> FromDecoder:
        self.put(slot, body)
        self.data.send(Decode(number, slot, len(body), slot, FITTING, limit))
        return self.answers(1)[0]

    def answers(self, count: int) -> list[FromDecoder]:
        found: list[FromDecoder] = []
        while len(found) < count:
            assert select.select([self.data.fileno()], [], [], 30)[0]
            found += self.data.receive()
        return found

    def slot(self, number: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        return np.frombuffer(self.pixels.view(number), np.uint8).reshape(SIDE, SIDE, 3)

    def end(self) -> int:
        """Wait for the process; its stderr must be empty."""
        status = self.process.wait(30)
        assert self.process.stderr is not None
        assert self.process.stderr.read() == b""
        return status


@pytest.fixture
def peer() -> Iterator[Peer]:
    with started(Config(limits=Limits(decode_seconds=1.5, pixels=100_000))) as it:
        yield it


@contextlib.contextmanager
def started(settings: Config) -> Iterator[Peer]:
    it = Peer(settings)
    received = it.control.receive(30)
    assert received is not None
    assert received[0] == Ready()
    yield it
    it.process.kill()
    it.process.wait()
    if it.process.stderr is not None:
        it.process.stderr.close()
    it.data.close()
    it.control.close()


def test_decodes_into_the_slot_it_was_given(peer: Peer) -> None:
    body = save(photo(200, 150), "JPEG")
    answer = peer.ask(body, number=7, slot=2)
    assert isinstance(answer, Decoded)
    assert answer.id == 7
    assert (answer.geometry.width, answer.geometry.height) == (200, 150)
    assert 0 < answer.seconds < 30
    expected = bytearray(SIDE * SIDE * 3)
    image.decode(body, memoryview(expected), FITTING, Limits())
    assert bytes(peer.pixels.view(2)) == bytes(expected)
    assert not any(peer.slot(other).any() for other in (0, 1, 3))


def test_refuses_by_the_operators_limits(peer: Peer) -> None:
    codes = {
        b"nonsense": "unsupported_media_type",
        b"": "bad_request",
        save(photo(90, 60), "PNG")[:-30]: "undecodable_image",
        save(photo(400, 300), "PNG"): "image_too_large",
    }
    for body, code in codes.items():
        answer = peer.ask(body, number=3)
        assert isinstance(answer, Undecoded)
        assert (answer.id, answer.code) == (3, code)
        assert answer.seconds >= 0
    assert isinstance(peer.ask(save(photo(9, 9), "WEBP")), Decoded)


def test_hands_on_what_a_device_is_to_decode_and_is_not_heavy() -> None:
    """Told apart by the limit: it is given for images that are not known to be heavy."""
    with started(Config(decode_on="device")) as peer:
        body = save(photo(200, 150), "JPEG")
        handed = peer.ask(body, slot=1, limit=10.0)
        assert isinstance(handed, Decoded) and handed.coded is not None
        assert bytes(peer.pixels.view(1)[: handed.coded.size]) == body
        assert isinstance(peer.ask(body, limit=1e-6), Heavy)
        for data, limit in ((body, 0.0), (save(photo(90, 40), "PNG"), 10.0), (save(photo(900, 700), "JPEG"), 10.0)):
            decoded = peer.ask(data, slot=2, limit=limit)
            assert isinstance(decoded, Decoded) and decoded.coded is None
            expected = bytearray(SIDE * SIDE * 3)
            image.decode(data, memoryview(expected), FITTING, Limits())
            assert bytes(peer.pixels.view(2)) == bytes(expected)


def test_says_what_is_heavy_instead_of_decoding_it(peer: Peer) -> None:
    """And decodes it without a limit, or within one; what is refused is refused either way."""
    body = save(photo(300, 300), "PNG")
    heavy = peer.ask(body, number=4, slot=1, limit=1e-6)
    assert isinstance(heavy, Heavy)
    assert heavy.id == 4
    assert 1e-4 < heavy.seconds < 1
    assert not peer.slot(1).any()
    assert isinstance(peer.ask(body, limit=heavy.seconds * 1.01), Decoded)
    assert isinstance(peer.ask(body), Decoded)
    refused = peer.ask(body[:-30], limit=1e-6)
    assert isinstance(refused, Undecoded)


def test_answers_in_order(peer: Peer) -> None:
    bodies = [save(photo(200, 150), "PNG"), b"nonsense", save(photo(20, 20), "JPEG"), save(photo(90, 40), "WEBP")]
    for number, body in enumerate(bodies):
        peer.put(number, body)
    for number, body in enumerate(bodies):
        peer.data.send(Decode(number, number, len(body), number, FITTING))
    assert [answer.id for answer in peer.answers(4)] == [0, 1, 2, 3]


def test_a_slot_that_does_not_exist_fails_that_image_alone(peer: Peer) -> None:
    peer.data.send(Decode(5, 99, 10, 0, FITTING))
    answer = peer.answers(1)[0]
    assert isinstance(answer, Undecoded)
    assert answer.code == "undecodable_image"
    assert isinstance(peer.ask(save(photo(9, 9), "PNG")), Decoded)


def test_a_new_gateway_finds_it(peer: Peer) -> None:
    """After the old channel closed, and also while it is still open."""
    body = save(photo(50, 50), "PNG")
    assert isinstance(peer.ask(body), Decoded)
    peer.data.close()
    peer.data = peer.attach()
    assert isinstance(peer.ask(body), Decoded)
    old, peer.data = peer.data, peer.attach()
    assert isinstance(peer.ask(body), Decoded)
    with pytest.raises(WireError):
        old.receive()
    old.close()


def test_nonsense_on_the_data_channel_costs_only_that_channel(peer: Peer) -> None:
    peer.data.send(Drain(1.0))
    with pytest.raises(WireError):
        peer.data.receive()
    peer.data.close()
    peer.data = peer.attach()
    assert isinstance(peer.ask(save(photo(9, 9), "PNG")), Decoded)


@pytest.mark.parametrize("asked", ["auto", "libjpeg-turbo"])
def test_it_tells_what_decodes_jpegs(asked: Literal["auto", "libjpeg-turbo"]) -> None:
    with started(Config(jpeg_decoder=asked, log_level="debug")) as peer:
        assert isinstance(peer.ask(save(photo(50, 50), "JPEG")), Decoded)
        peer.control.send(Drain(1.0))
        assert peer.process.stderr is not None
        told = [json.loads(line) for line in peer.process.stderr.read().splitlines()]
        (line,) = (line for line in told if line["event"] == "jpeg_decoder")
        assert line["jpeg_decoder"] == ("own" if asked == "auto" and baseline.found() else "libjpeg-turbo")


def test_drain_answers_what_was_sent_and_exits_0(peer: Peer) -> None:
    body = save(photo(200, 150), "PNG")
    peer.put(0, body)
    for number in range(3):
        peer.data.send(Decode(number, 0, len(body), 0, FITTING))
    peer.control.send(Drain(1.0))
    assert [answer.id for answer in peer.answers(3)] == [0, 1, 2]
    assert peer.end() == 0


def test_ends_with_its_supervisor(peer: Peer) -> None:
    peer.control.close()
    assert peer.end() == 0


def test_beats_from_the_loop(peer: Peer) -> None:
    """At rest it writes again and again; stopped, it is overdue."""
    first = peer.pulse.read()
    deadline = time.monotonic() + 30
    while peer.pulse.read().at <= first.at and time.monotonic() < deadline:
        time.sleep(0.01)
    beat = peer.pulse.read()
    assert beat.at > first.at
    assert beat.limit == pulse.REST_LIMIT
    assert beat.overdue(beat.at + beat.limit + 0.1)


def test_is_titled_and_sandboxed(peer: Peer) -> None:
    assert isinstance(peer.ask(save(photo(9, 9), "PNG")), Decoded)
    status = Path(f"/proc/{peer.process.pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Seccomp"] == "2"
    assert fields["NoNewPrivs"] == "1"
    assert fields["Threads"] == "1"
    assert Path(f"/proc/{peer.process.pid}/cmdline").read_bytes().startswith(b"squint: decoder 0")
