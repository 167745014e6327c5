"""The supervisor: starts, watches and restarts the other processes, and owns signals.

It holds what must outlive a crash: the listening port and the shared memory. It takes no request and loads no
library that could crash it. Each child has a control channel; whoever dispatches (the gateway, or the dispatcher where
there are several gateways) and its peers get their data channels from here, so that a new one finds the same workers
with their models loaded.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

from service import config as configuration
from service import log, orphans
from service.config import Config
from service.core.restart import MAX_DELAY
from service.errors import WireError
from service.lateness import Lateness
from service.places import Child, Shared, prepare
from service.wire.channel import ControlChannel
from service.wire.messages.control import (
    Attach,
    Control,
    Current,
    Drain,
    Failed,
    Late,
    Lost,
    Ready,
    Reload,
    Restarts,
    Start,
)
from service.wire.pulse import Pulse

EXIT_OK, EXIT_FAILED, EXIT_GAVE_UP = 0, 1, 3

_WATCH_SECONDS = 0.1
_DRAIN_SLACK = 5.0
_LEAVE_SECONDS = 2.0
"""What children get to end by themselves once nothing is in flight."""
_AGAIN = 10.0
"""Seconds between two tries to start a worker that cannot be started, while others serve."""
_STALLED = 1.0
"""Seconds without a turn of the supervisor itself after which it judges nobody: the whole service was stopped."""


def run(config: Config, banner: Callable[[Config], None] = lambda config: None) -> int:
    """Run the service until it is told to stop; the exit code as in the command line's contract.

    `banner` is called once, when the service is ready. Raises StartError when it cannot start, ConfigError when
    a model has no such default level.
    """
    log.configure(config.log_level, process="supervisor")
    if orphans.adopts():
        # No signal ends process 1 unless it takes it, and the models are still to be checked.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_OK))
    shared = prepare(config)
    bound = dataclasses.replace(config, http_port=shared.listeners[0].getsockname()[1])
    log.event("listening", host=bound.host, port=bound.http_port)
    if shared.admin is not None:
        bound = dataclasses.replace(bound, admin_port=shared.admin.getsockname()[1])
        log.event("admin_listening", host=bound.admin_host, port=bound.admin_port)
    if shared.rpc is not None:
        bound = dataclasses.replace(bound, grpc_port=shared.rpc.getsockname()[1])
        log.event("grpc_listening", host=bound.host, port=bound.grpc_port)
    return Supervisor(bound, shared, banner).run()


class Supervisor:
    """The watch over all children."""

    def __init__(self, config: Config, shared: Shared, banner: Callable[[Config], None]) -> None:
        self._config = config
        self._shared = shared
        self._banner: Callable[[Config], None] | None = banner
        self._selector = selectors.DefaultSelector()
        self._exit: int | None = None
        self._drain_until: float | None = None
        self._looked_at = time.monotonic()
        self._lateness = Lateness(shared.board)
        self._late: list[int] = []
        """Workers not heard of for a while, as whoever dispatches was told."""
        self._adopts = orphans.adopts()
        self._terminal = os.isatty(0)
        self._reload = False
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> int:
        """Until drained, failed or given up."""
        self._take_signals()
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._on_signal)
        try:
            while self._exit is None:
                self._start_due()
                for key, _ in self._selector.select(_WATCH_SECONDS):
                    key.data()
                if self._adopts:
                    orphans.reap({one.process.pid for one in self._shared.children if one.process is not None})
                self._check_pulses()
                self._check_drain()
            return self._exit
        finally:
            self._kill_all()

    # -- signals -----------------------------------------------------------------------------------------------

    def _take_signals(self) -> None:
        signal.set_wakeup_fd(self._wake_write)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    def _on_signal(self) -> None:
        for number in os.read(self._wake_read, 64):
            if number == signal.SIGHUP and not self._hung_up():
                self._reload = True
                self._reload_due()
            elif self._drain_until is not None:
                # Asked twice: leave at once.
                self._exit = EXIT_OK
            elif number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                self._begin_drain(self._config.drain_seconds if number == signal.SIGTERM else 0.0)

    def _hung_up(self) -> bool:
        """The terminal that the service was started from has gone, which SIGHUP says too."""
        return self._terminal and not os.isatty(0)

    def _reload_due(self) -> None:
        """Have whoever dispatches look at the models, if somebody asked for it; one that is yet to start will hear of
        it."""
        if self._reload and self._shared.hub.control is not None and self._drain_until is None:
            self._reload = False
            self._send(self._shared.hub, Reload())

    # -- children ----------------------------------------------------------------------------------------------

    def _start_due(self) -> None:
        now = time.monotonic()
        for child in self._shared.children:
            # While leaving only gateways are past their use; who serves those in flight is replaced as ever.
            leaving = self._drain_until is not None and child.role == "gateway"
            if child.start_at is not None and child.start_at <= now and not leaving:
                try:
                    self._start(child)
                except OSError as error:
                    log.event("start_failed", severity="error", process=child.name, reason=error.strerror)
                    self._schedule(child)

    def _start(self, child: Child) -> None:
        shared, config = self._shared, self._config
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for number in range(child.pulses):
            Pulse(shared.board, child.first_pulse + number).clear()
        child.process = subprocess.Popen(
            [sys.executable, "-m", f"service.{child.role}.main", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=configuration.child_environment(),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        theirs.close()
        child.pidfd = os.pidfd_open(child.process.pid)
        child.control = ControlChannel(ours, Control)
        child.started_at, child.start_at, child.ready = time.monotonic(), None, False
        self._selector.register(child.pidfd, selectors.EVENT_READ, lambda: self._on_exit(child))
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._on_control(child))
        start = Start(
            role=child.role,
            index=child.index,
            config=configuration.encode(config),
            pixel_slots=shared.pixels.slots,
            pixel_slot_bytes=shared.pixels.slot_bytes,
            body_slots=shared.bodies.slots,
            body_slot_bytes=shared.bodies.slot_bytes,
            first_pulse=child.first_pulse,
            pulses=child.pulses,
            units=shared.units,
            notes=shared.notes,
            again=self._banner is None,
        )
        descriptors = [shared.pixels.descriptor, shared.bodies.descriptor, shared.board.descriptor]
        if child.role == "gateway":
            descriptors.append(shared.listeners[child.index].fileno())
            if shared.admin is not None:
                descriptors.append(shared.admin.fileno())
        self._send(child, start, *descriptors)
        if child is shared.hub:
            self._attach(child)
            self._late = []
            self._reload_due()
        self._tell_restarts()

    def _attach(self, child: Child) -> None:
        """Give a process its data channels: whoever dispatches anew one to every peer that is ready, a peer that has
        become ready one to whoever dispatches. A peer that is still starting would keep what it is sent waiting."""
        hub = self._shared.hub
        peers = self._shared.children[1:] if child is hub else [child]
        for peer in peers:
            if hub.control is None or peer.control is None or not peer.ready:
                continue
            one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            self._send(hub, Attach(peer.role, peer.index), one.fileno())
            self._send(peer, Attach(peer.role, peer.index), other.fileno())
            one.close()
            other.close()

    def _send(self, child: Child, message: Control, *descriptors: int) -> None:
        if child.control is not None:
            # If that fails it is dying, and its exit is about to be seen.
            with contextlib.suppress(WireError):
                child.control.send(message, descriptors)

    def _on_control(self, child: Child) -> None:
        if child.control is None:
            return
        try:
            received = child.control.receive(0)
        except WireError:
            # Its end of the channel is closed: whatever still runs there must go.
            self._forget_control(child)
            self._kill(child)
            return
        if received is None:
            return
        message, descriptors = received
        for descriptor in descriptors:
            os.close(descriptor)
        if child is self._shared.hub and isinstance(message, Current | Lost):
            self._heed(message)
        elif isinstance(message, Ready) and not child.ready:
            child.ready = True
            if child is not self._shared.hub:
                self._attach(child)
            child.policy.ready(time.monotonic())
            log.event("ready", process=child.name, seconds=round(time.monotonic() - child.started_at, 3))
            if all(one.ready for one in self._shared.children) and self._banner is not None:
                with contextlib.suppress(OSError):
                    self._banner(self._config)
                self._banner = None
        elif isinstance(message, Failed) and not child.ready:
            # Only who is still starting is heard: afterwards a decoder may be somebody else's.
            log.event("failed", severity="error", process=child.name, reason=message.reason)
            if self._spared(child):
                return
            _say("".join(letter if letter.isprintable() else " " for letter in message.reason))
            self._exit = EXIT_FAILED

    def _heed(self, message: Current | Lost) -> None:
        """What whoever dispatches wants."""
        if isinstance(message, Current):
            self._shared.units, self._shared.notes = message.units, message.notes
            return
        for peer in self._shared.children[1:]:
            if (peer.role, peer.index) == (message.role, message.index):
                self._kill(peer)

    def _on_exit(self, child: Child) -> None:
        process = child.process
        if process is None:
            return
        # A message it sent just before it ended is still to be read.
        self._on_control(child)
        status = process.wait()
        self._selector.unregister(child.pidfd)
        os.close(child.pidfd)
        self._forget_control(child)
        child.process, child.ready = None, False
        if self._drain_until is not None and child.role == "gateway":
            return
        log.event("process_died", severity="error", process=child.name, status=status)
        self._schedule(child)
        self._tell_restarts()

    def _schedule(self, child: Child) -> None:
        """Start a child again when its policy says, or give up."""
        delay = child.policy.died(time.monotonic())
        if delay is None and self._spared(child):
            device = self._config.device(child.index)
            log.event("device_failed", severity="error", process=child.name, device=device, again_in=_AGAIN)
            delay = _AGAIN
        if delay is None:
            _say(f"{child.name} crashed {child.policy.crashes} times in a row; giving up")
            self._exit = self._exit or EXIT_GAVE_UP
            delay = MAX_DELAY
        child.start_at = time.monotonic() + delay

    def _spared(self, child: Child) -> bool:
        """Whether the service can do without this child for a while: a worker, whose device may have failed, while
        another one serves."""
        others = (one for one in self._shared.children if one is not child)
        return (
            child.role == "worker"
            and self._banner is None
            and any(one.role == "worker" and one.ready for one in others)
        )

    def _tell_restarts(self) -> None:
        counts: dict[str, int] = {}
        for one in self._shared.children:
            counts[one.role] = counts.get(one.role, 0) + one.policy.restarts
        self._send(self._shared.hub, Restarts(counts))

    def _forget_control(self, child: Child) -> None:
        if child.control is not None:
            self._selector.unregister(child.control.fileno())
            child.control.close()
            child.control = None

    # -- watching ----------------------------------------------------------------------------------------------

    def _check_pulses(self) -> None:
        now = time.monotonic()
        stalled, self._looked_at = now - self._looked_at > _STALLED, now
        if stalled:
            return
        late: list[int] = []
        for child in self._shared.children:
            if child.process is None:
                continue
            records = range(child.first_pulse, child.first_pulse + child.pulses)
            judged = self._lateness.judge(child.process.pid, records, now)
            slow_start = not child.ready and now - child.started_at > self._config.load_seconds
            if slow_start or judged.hung:
                log.event("process_hung", severity="error", process=child.name)
                self._kill(child)
            if child.role == "worker" and judged.late:
                late.append(child.index)
        if late != self._late:
            self._late = late
            self._send(self._shared.hub, Late(late))

    def _kill(self, child: Child) -> None:
        if child.process is not None:
            child.process.kill()

    # -- leaving -----------------------------------------------------------------------------------------------

    def _begin_drain(self, grace: float) -> None:
        """Stop taking connections with the gateways; everything admitted is answered first."""
        limits = self._config.limits
        self._drain_until = time.monotonic() + grace + limits.max_timeout_ms / 1000 + _DRAIN_SLACK
        for listener in self._shared.listeners:
            listener.close()
        if all(gateway.process is None for gateway in self._shared.gateways):
            self._exit = EXIT_OK
        for gateway in self._shared.gateways:
            self._send(gateway, Drain(grace))

    def _check_drain(self) -> None:
        if self._drain_until is None or self._exit is not None:
            return
        left = any(gateway.process is not None for gateway in self._shared.gateways)
        if not left or time.monotonic() > self._drain_until:
            self._exit = EXIT_OK

    def _kill_all(self) -> None:
        """Nothing is in flight any more: tell every child to end, end those that do not, and wait until all are
        gone."""
        for child in self._shared.children:
            self._send(child, Drain(0.0))
        until = time.monotonic() + _LEAVE_SECONDS
        for child in self._shared.children:
            if child.process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.process.wait(max(0.0, until - time.monotonic()))
                child.process.kill()
                child.process.wait()


def _say(words: str) -> None:
    """One line for whoever started the service, if anyone still reads."""
    with contextlib.suppress(OSError):
        print(f"squint: {words}", file=sys.stderr)
