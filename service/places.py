"""The places in the process tree, and what those who fill them share: all that is there before the first one starts."""

from __future__ import annotations

import math
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from service import ports, preflight
from service.config import Config
from service.core.decoding import DEPTH
from service.core.restart import Restart
from service.wire.channel import ControlChannel
from service.wire.messages.control import Control, Role, Unit
from service.wire.pulse import RECORD_BYTES
from service.wire.slots import Arena

if TYPE_CHECKING:
    import subprocess

BODIES = 256
"""Body slots of each of several gateways; images beyond wait in its own memory."""


@dataclass(slots=True, eq=False)
class Child:
    """One place in the process tree, and the process that fills it now."""

    role: Role
    index: int
    first_pulse: int
    pulses: int
    policy: Restart
    process: subprocess.Popen[bytes] | None = None
    control: ControlChannel[Control] | None = None
    pidfd: int = -1
    started_at: float = 0.0
    start_at: float | None = 0.0
    """When to start it next; None while it runs."""
    ready: bool = False

    alone: bool = False
    """There is no other of its role."""

    @property
    def name(self) -> str:
        """As in `ps`."""
        return self.role if self.alone else f"{self.role} {self.index}"


@dataclass(slots=True)
class Shared:
    """What every child gets."""

    pixels: Arena
    bodies: Arena
    board: Arena
    listeners: list[socket.socket]
    """One for each gateway."""
    admin: socket.socket | None
    rpc: socket.socket | None
    """Kept, see ports.keep."""
    children: list[Child] = field(default_factory=list)
    units: list[Unit] = field(default_factory=list)
    """What is served now."""
    notes: bytes = b""
    """What whoever dispatches wrote down for the next one."""

    @property
    def gateways(self) -> list[Child]:
        """Those that speak to clients."""
        return [child for child in self.children if child.role == "gateway"]

    @property
    def hub(self) -> Child:
        """Whoever dispatches: all others have their data channels with it."""
        return self.children[0]


def prepare(config: Config) -> Shared:
    """Check every model, take the port, make the shared memory."""
    preflight.check_extras(config)
    preflight.check_files(config)
    checked = preflight.check_models(config)
    preflight.warn(config)
    if config.gateways == 1:
        listeners = [ports.listen(config.host, config.http_port)]
    else:
        listeners = ports.listen_together(config.host, config.http_port, config.gateways)
    admin = None if config.admin_port is None else ports.listen(config.admin_host, config.admin_port)
    limits = config.limits
    # A slot for every image in flight, and for those answered early that a process may still touch.
    ghosts = config.decoders * DEPTH + config.workers * (config.threads + 1) * config.max_batch
    bodies = config.decoders * DEPTH if config.gateways == 1 else config.gateways * min(limits.in_flight, BODIES)
    children = _children(config)
    slot_bytes = math.ceil(checked.image_bytes * config.slot_headroom)
    return Shared(
        pixels=Arena.create("squint-pixels", limits.in_flight + ghosts, slot_bytes),
        bodies=Arena.create("squint-bodies", bodies, limits.body_bytes),
        board=Arena.create("squint-pulse", sum(child.pulses for child in children), RECORD_BYTES),
        listeners=listeners,
        admin=admin,
        rpc=None if config.grpc_port is None else ports.keep(config.host, config.grpc_port),
        children=children,
        units=checked.units,
    )


def _children(config: Config) -> list[Child]:
    """Every place in the process tree, whoever dispatches first."""
    several = config.gateways > 1
    counts: list[tuple[Role, int, int]] = [("dispatcher", 1, 1)] if several else []
    counts += [("gateway", config.gateways, 1), ("decoder", config.decoders, 1)]
    counts += [("worker", config.workers, config.threads)]
    children: list[Child] = []
    first = 0
    for role, count, pulses in counts:
        alone = role == "dispatcher" or (role == "gateway" and not several)
        for index in range(count):
            children.append(Child(role, index, first, pulses, Restart(config.max_crashes), alone=alone))
            first += pulses
    return children
