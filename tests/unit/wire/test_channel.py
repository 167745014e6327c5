"""Frames survive being cut anywhere, and nonsense is a WireError and nothing else."""

from __future__ import annotations

import os
import random
import socket

import pytest

from service.errors import WireError
from service.wire.channel import Channel, ControlChannel, Splitter, frame
from service.wire.messages.control import Attach, Control
from service.wire.messages.decoder import Decode, Decoded, Fitting, FromDecoder, Geometry, ToDecoder, Undecoded

MESSAGES: list[Decoded | Undecoded] = [
    Decoded(1, Geometry(640, 480, (80.0, 0.0, 560.0, 480.0)), 0.25),
    Undecoded(3, "undecodable_image", "broken", 0.5),
]
STREAM = b"".join(frame(message) for message in MESSAGES)


def test_split_at_every_byte() -> None:
    for cut in range(len(STREAM) + 1):
        splitter: Splitter[FromDecoder] = Splitter(FromDecoder)
        assert [*splitter.feed(STREAM[:cut]), *splitter.feed(STREAM[cut:])] == MESSAGES
        splitter.close()


def test_byte_by_byte() -> None:
    splitter: Splitter[FromDecoder] = Splitter(FromDecoder)
    assert [message for byte in STREAM for message in splitter.feed(bytes([byte]))] == MESSAGES


def test_mutated_frames_give_messages_or_wire_errors() -> None:
    source = random.Random(7)
    refused = 0
    for _ in range(20_000):
        data = bytearray(STREAM)
        for _ in range(source.randint(1, 4)):
            data[source.randrange(len(data))] = source.randrange(256)
        splitter: Splitter[FromDecoder] = Splitter(FromDecoder, max_frame=1 << 16)
        try:
            list(splitter.feed(bytes(data)))
            splitter.close()
        except WireError:
            refused += 1
    assert refused > 10_000


def test_long_frames_are_refused_before_they_are_read() -> None:
    splitter: Splitter[FromDecoder] = Splitter(FromDecoder, max_frame=1000)
    with pytest.raises(WireError, match="too long"):
        list(splitter.feed((1001).to_bytes(4, "little")))


def test_a_peer_that_closes_inside_a_frame_is_noticed() -> None:
    one, other = socket.socketpair()
    channel: Channel[FromDecoder] = Channel(one, FromDecoder)
    other.sendall(STREAM[:-3])
    other.close()
    assert channel.receive() == MESSAGES[:1]
    with pytest.raises(WireError):
        channel.receive()
    channel.close()


def test_blocking_channels_talk() -> None:
    one, other = socket.socketpair()
    gateway: Channel[FromDecoder] = Channel(one, FromDecoder)
    decoder: Channel[ToDecoder] = Channel(other, ToDecoder)
    order = Decode(1, 0, 10, 5, Fitting("crop", 224, 224, (0, 0, 0)))
    gateway.send(order)
    assert decoder.receive() == [order]
    decoder.send(MESSAGES[0])
    assert gateway.receive() == [MESSAGES[0]]
    decoder.close()
    with pytest.raises(WireError):
        gateway.receive()
    gateway.close()


def test_control_messages_carry_descriptors() -> None:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours: ControlChannel[Control] = ControlChannel(one, Control)
    theirs: ControlChannel[Control] = ControlChannel(other, Control)
    assert theirs.receive(0) is None
    read, write = os.pipe()
    ours.send(Attach("worker", 3), (write,))
    received = theirs.receive()
    assert received is not None
    message, descriptors = received
    assert message == Attach("worker", 3)
    os.write(descriptors[0], b"x")
    assert os.read(read, 1) == b"x"
    for descriptor in (read, write, *descriptors):
        os.close(descriptor)
    for nonsense in (b"\xc1nonsense", b"\x92\xa6Failed\xa2\xff\xfe"):
        before = len(os.listdir("/proc/self/fd"))
        socket.send_fds(one, [nonsense], [other.fileno()])
        with pytest.raises(WireError, match="malformed"):
            theirs.receive()
        assert len(os.listdir("/proc/self/fd")) == before, "descriptors that came with it are closed"
    ours.close()
    with pytest.raises(WireError, match="closed"):
        theirs.receive()
    theirs.close()
