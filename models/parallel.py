"""Training on several cores as several processes with one thread each.

Threads inside one process meet at a barrier thousands of times a step, and wait there whenever something else runs on
one of the cores. Processes meet once a step, to add their gradients up.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer


def join(rank: int, size: int, port: int) -> None:
    """Become process `rank` of `size`, with one thread. An interrupt, which reaches all of them, is the leader's."""
    torch.set_num_threads(1)
    if rank > 0:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if size > 1:
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)


def rank() -> int:
    """This process's number, 0 for the one that leads."""
    return int(dist.get_rank()) if dist.is_initialized() else 0


def size() -> int:
    """How many processes train together."""
    return int(dist.get_world_size()) if dist.is_initialized() else 1


@contextmanager
def team(count: int, work: Callable[..., None], *arguments: Any) -> Iterator[None]:
    """Run `work(rank, count, port, *arguments)` in count - 1 more processes; this one joins as number 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = get_context("spawn")
    others = [context.Process(target=work, args=(n, count, port, *arguments), daemon=True) for n in range(1, count)]
    for process in others:
        process.start()
    join(0, count, port)
    try:
        yield
    finally:
        if size() > 1:
            dist.destroy_process_group()
        for process in others:
            process.join(timeout=10)
            process.kill()
        torch.set_num_threads(os.cpu_count() or 1)


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Gives the leader a function that says whether to stop after this step, which an interrupt asks for; a second
    interrupt stops at once."""
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)


def lead(values: list[float]) -> list[float]:
    """The leader's numbers, on every process."""
    if size() == 1:
        return values
    box = torch.tensor(values, dtype=torch.float64)
    dist.broadcast(box, 0)
    return [float(value) for value in box]


def average(tensors: list[Tensor]) -> None:
    """Replace tensors by their mean over the processes, in one message."""
    if size() == 1:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    flat /= size()
    start = 0
    for tensor in tensors:
        tensor.copy_(flat[start : start + tensor.numel()].view_as(tensor))
        start += tensor.numel()


def step_in_shares(optimiser: Optimizer) -> None:
    """A step of an optimiser whose parameters are costly to update: each process updates every n-th and passes it on.

    The optimiser's state is then spread over the processes; see `collect`.
    """
    if size() == 1:
        optimiser.step()
        return
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    for number, parameter in enumerate(parameters):
        if number % size() != rank():
            parameter.grad = None
    optimiser.step()
    for owner in range(size()):
        _broadcast([p.data for p in parameters[owner :: size()]], owner)


def collect(optimiser: Optimizer) -> None:
    """Bring the state of an optimiser stepped in shares together, on every process."""
    if size() == 1:
        return
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    for parameter in parameters:
        optimiser.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
    for owner in range(size()):
        _broadcast([optimiser.state[p]["momentum_buffer"] for p in parameters[owner :: size()]], owner)


def _broadcast(tensors: list[Tensor], owner: int) -> None:
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.broadcast(flat, owner)
    start = 0
    for tensor in tensors:
        tensor.copy_(flat[start : start + tensor.numel()].view_as(tensor))
        start += tensor.numel()
