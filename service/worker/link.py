"""The worker's end of a data channel to whoever dispatches: a gateway, or the dispatcher of several."""

from __future__ import annotations

import contextlib
import socket
import threading

from service.errors import FrameTooLong, WireError
from service.wire.channel import Channel
from service.wire.messages.worker import FromWorker, Load, Ran, Run, RunFailed, ToWorker, Unload


class Link:
    """A data channel that several engine threads answer on, until it is cut.

    An answer goes out on the link its batch came in by or not at all: the next one knows nothing of the batch.
    """

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._channel: Channel[Run | Load | Unload] = Channel(self._socket, ToWorker)
        self._sending = threading.Lock()
        self._cut = False

    @property
    def cut_off(self) -> bool:
        """The other end is gone; work for it is in vain."""
        return self._cut

    def fileno(self) -> int:
        """For select."""
        return self._channel.fileno()

    def receive(self) -> list[Run | Load | Unload]:
        """The messages of one read; WireError when the other end is gone."""
        return self._channel.receive()

    def send(self, message: FromWorker) -> None:
        """Send whole, or not at all when the other end is gone: the thread that reads will notice that.

        Results too long for a frame are a failed batch; its parts are asked for then.
        """
        with self._sending, contextlib.suppress(WireError):
            if self._cut:
                return
            try:
                self._channel.send(message)
            except FrameTooLong:
                if isinstance(message, Ran):
                    self._channel.send(RunFailed(message.batch, "batch"))

    def cut(self) -> None:
        """Close. A thread that waits for the other end to read stops waiting."""
        self._cut = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        with self._sending:
            self._channel.close()
