"""What every child process does first: take its title, tie its life to the supervisor's, read its Start message.

A child is `python -m service.ROLE.main FD`, where FD is its control channel. It is in a session of its own, so that
Ctrl-C reaches the supervisor alone, and it handles no signals: it ends when told to drain, when the control channel
closes, or when the kernel kills it because the supervisor died.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from dataclasses import dataclass

import setproctitle

from service import config
from service.errors import WireError
from service.wire.channel import ControlChannel
from service.wire.messages.control import Control, Start
from service.wire.pulse import RECORD_BYTES, Pulse
from service.wire.slots import Arena

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Birth:
    """What the supervisor gave this child."""

    control: ControlChannel[Control]
    start: Start
    config: config.Config
    pixels: Arena
    bodies: Arena
    board: Arena
    extra: list[int]

    def pulse(self, number: int = 0) -> Pulse:
        """This child's `number`-th record on the pulse board."""
        return Pulse(self.board, number)


def begin(*, pixels_writable: bool, bodies_writable: bool) -> Birth:
    """Be born. The arenas are mapped writable only where this role has business to write."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    control: ControlChannel[Control] = ControlChannel(socket.socket(fileno=int(sys.argv[1])), Control)
    received = control.receive()
    if received is None:
        raise WireError("expected Start")
    start, (pixels, bodies, board, *extra) = received
    if not isinstance(start, Start):
        raise WireError("expected Start")
    read = config.decode(start.config)
    alone = start.role == "dispatcher" or (start.role == "gateway" and read.gateways == 1)
    title = start.role if alone else f"{start.role} {start.index}"
    setproctitle.setproctitle(f"squint: {title}")
    own = Arena(board, start.pulses, RECORD_BYTES, writable=True, first=start.first_pulse)
    # With the descriptor gone, nobody but this child can write its records, and it no others.
    os.close(board)
    return Birth(
        control=control,
        start=start,
        config=read,
        pixels=Arena(pixels, start.pixel_slots, start.pixel_slot_bytes, writable=pixels_writable),
        bodies=Arena(bodies, start.body_slots, start.body_slot_bytes, writable=bodies_writable),
        board=own,
        extra=extra,
    )


def leave(status: int = 0) -> None:
    """End now, without waiting for threads or finalizers that a hung library might hold."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
