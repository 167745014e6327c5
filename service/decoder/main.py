"""A decoder process: `python -m service.decoder.main FD`.

It starts, warms up, enters the sandbox, and then turns bodies into pixels, one at a time and in order. A gateway that
goes away closes the data channel; the decoder then waits for the next one. It ends on Drain, when the supervisor goes
away, or by a kill when an image takes longer than it may.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import select
import socket
import time

from service import child, log
from service.child import Birth
from service.decoder import baseline, handing, image, numbers, sandbox, warmup
from service.decoder.cost import TooHeavy
from service.errors import Refusal, WireError
from service.wire import pulse
from service.wire.channel import Channel
from service.wire.messages.control import Attach, Drain, Ready
from service.wire.messages.decoder import (
    Coded,
    Decode,
    Decoded,
    FromDecoder,
    Geometry,
    Heavy,
    ToDecoder,
    Undecoded,
)

MEMORY_BYTES = 288 << 20
"""What decoding may add to the address space; with what is there before it stays under 300 MiB of real memory."""
LESS_PRIORITY = 5
"""A third of the CPU time of others who want it too."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGE_BLOCK = 16 << 20


class Decoder:
    """The loop and its two channels."""

    def __init__(self, birth: Birth, pace: float) -> None:
        self._birth = birth
        self._pace = pace
        self._limits = birth.config.limits
        self._hands_on = birth.config.decode_on == "device"
        self._pulse = birth.pulse()
        self._data: Channel[ToDecoder] | None = None
        self._draining = False
        self._canvas = memoryview(bytearray(birth.pixels.slot_bytes))
        self._sources = select.poll()
        self._sources.register(birth.control.fileno(), select.POLLIN)
        self._gone = select.poll()

    def run(self) -> None:
        """Serve until told to drain or until the supervisor is gone."""
        control = self._birth.control.fileno()
        rest = int(1000 * pulse.REST)
        while True:
            self._pulse.beat(time.monotonic(), pulse.REST_LIMIT)
            ready = [source for source, _ in self._sources.poll(0 if self._draining else rest)]
            # Data first, so that what was sent before a Drain is still answered.
            if self._data is not None and self._data.fileno() in ready:
                self._serve(self._data)
            elif self._draining:
                return
            if control in ready and not self._control():
                return

    def _control(self) -> bool:
        """Take one control message; False when the supervisor is gone."""
        try:
            received = self._birth.control.receive()
        except WireError:
            return False
        if received is None:
            return True
        message, descriptors = received
        if isinstance(message, Attach) and descriptors:
            self._detach()
            self._data = Channel(socket.socket(fileno=descriptors.pop(0)), ToDecoder)
            self._sources.register(self._data.fileno(), select.POLLIN)
            self._gone.register(self._data.fileno(), 0)
        elif isinstance(message, Drain):
            self._draining = True
        for descriptor in descriptors:
            os.close(descriptor)
        return True

    def _detach(self) -> None:
        if self._data is not None:
            self._sources.unregister(self._data.fileno())
            self._gone.unregister(self._data.fileno())
            self._data.close()
            self._data = None

    def _serve(self, channel: Channel[ToDecoder]) -> None:
        """Answer what has arrived; a channel whose other end is gone is closed."""
        try:
            for work in channel.receive():
                self._pulse.beat(time.monotonic(), self._limits.decode_seconds)
                channel.send(self._decode(work))
        except WireError:
            self._detach()

    def _hand_over(self, work: Decode, size: int) -> None:
        """Put the first `size` bytes of the canvas into the slot, unless the gateway has gone: the next one may have
        given the slot away."""
        # Nothing is asked for, so it answers when the other end is gone and only then.
        if self._gone.poll(0):
            return
        self._birth.pixels.view(work.pixel_slot)[:size] = self._canvas[:size]

    def _decode(self, work: Decode) -> FromDecoder:
        started = time.monotonic()
        try:
            body = self._birth.bodies.view(work.body_slot)[: work.body_bytes]
            geometry, coded = self._onto_canvas(work, body)
            self._hand_over(work, coded.size if coded else work.fitting.height * work.fitting.width * 3)
        except TooHeavy as heavy:
            return Heavy(work.id, heavy.seconds)
        except Refusal as refusal:
            return Undecoded(work.id, refusal.code, refusal.message, time.monotonic() - started)
        except Exception as error:
            # Bytes never come here, only a mistake of ours (a slot that does not exist or is too small).
            log.event("decode_failed", severity="error", error=type(error).__name__)
            seconds = time.monotonic() - started
            return Undecoded(work.id, "undecodable_image", "the image could not be decoded", seconds)
        return Decoded(work.id, geometry, time.monotonic() - started, coded)

    def _onto_canvas(self, work: Decode, body: memoryview) -> tuple[Geometry, Coded | None]:
        """Pixels, or a JPEG that a device is to decode: never one that is heavy, which would keep a batch waiting."""
        fitting, limits, most = work.fitting, self._limits, work.limit or math.inf
        if work.shape is not None:
            return numbers.decode(body, self._canvas, fitting, work.shape, limits, most, self._pace), None
        if self._hands_on and work.limit:
            handed = handing.hand_on(body, self._canvas, fitting, limits, most, self._pace)
            if handed is not None:
                return handed
        return image.decode(body, self._canvas, fitting, limits, most, self._pace), None


def return_memory() -> None:
    """Have the allocator give large blocks back at once: one picture of 25 megapixels must not weigh on a decoder for
    the rest of its life. (By default its thresholds grow with the largest block ever freed.) What photos need is kept,
    since fresh memory costs as much time as decoding into it."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)
        libc.mallopt(_M_TRIM_THRESHOLD, _LARGE_BLOCK)


def _step_back() -> None:
    """Take a lower priority, also among the groups into which Linux puts sessions, where it does."""
    os.nice(LESS_PRIORITY)
    with contextlib.suppress(OSError), open("/proc/self/autogroup", "w", encoding="ascii") as group:
        group.write(str(LESS_PRIORITY))


def main() -> None:
    """Be born, warm up, enter the sandbox, serve."""
    birth = child.begin(pixels_writable=True, bodies_writable=False)
    log.configure(birth.config.log_level, process=f"decoder {birth.start.index}")
    return_memory()
    if birth.config.jpeg_decoder != "auto":
        baseline.leave_out()
    warmup.run()
    if birth.start.index:
        # The first decoder is kept for what is quick; the others, which get what takes long, do not take CPU time from
        # it, nor from the engines and the gateway.
        _step_back()
    decoder = Decoder(birth, warmup.pace())
    layers = sandbox.enter(MEMORY_BYTES)
    if not birth.start.index:
        log.event("jpeg_decoder", severity="debug", jpeg_decoder="own" if baseline.found() else "libjpeg-turbo")
    if "seccomp" not in layers:
        log.event("sandbox_incomplete", severity="warning", layers=" ".join(sorted(layers)))
    birth.control.send(Ready())
    decoder.run()
    child.leave()


if __name__ == "__main__":
    main()
