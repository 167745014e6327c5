"""Who hangs and who was kept waiting, by invented counts of the kernel and by its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from service.lateness import PARDONED, Lateness, Thread, threads
from service.wire.pulse import RECORD_BYTES, Pulse
from service.wire.slots import Arena

LIMIT = 2.0
TURN = 0.1
BEGIN = 100.0


class Kernel:
    """The threads of one process, and what becomes of them in a turn: each runs and waits for so much of it."""

    def __init__(self, *shares: tuple[float, float]) -> None:
        self._shares = shares
        self.threads = [Thread(5.0, 7.0, ready=False) for _ in shares]

    def look(self, process: int) -> dict[int, Thread]:
        return dict(enumerate(self.threads))

    def turn(self) -> None:
        self.threads = [
            Thread(one.ran + TURN * ran, one.waited + TURN * waited, ready=ran + waited > 0)
            for one, (ran, waited) in zip(self.threads, self._shares, strict=True)
        ]


class Watch:
    """One loop that wrote at BEGIN, and its process, looked at every turn."""

    def __init__(self, kernel: Kernel) -> None:
        board = Arena.create("test", 1, RECORD_BYTES)
        self.pulse = Pulse(board, 0)
        self.kernel = kernel
        self.now = BEGIN
        self._lateness = Lateness(board, kernel.look)
        self.pulse.beat(BEGIN, LIMIT)

    def until(self, seconds: float) -> tuple[bool, bool]:
        """Look until so long after the beginning: whether the process hangs, and is late."""
        judged = self._lateness.judge(1, range(1), self.now)
        while self.now < BEGIN + seconds - TURN / 2:
            self.now += TURN
            self.kernel.turn()
            judged = self._lateness.judge(1, range(1), self.now)
        return judged.hung, judged.late


@pytest.mark.parametrize(
    "shares",
    [
        pytest.param([(0.0, 0.0)], id="asleep in C, stopped, or waiting for a lock"),
        pytest.param([(1.0, 0.0)], id="spinning"),
        pytest.param([], id="the kernel tells nothing"),
    ],
)
def test_whoever_hangs_is_late_at_half_its_limit(shares: list[tuple[float, float]]) -> None:
    watch = Watch(Kernel(*shares))
    assert watch.until(0.5 * LIMIT - TURN) == (False, False)
    assert watch.until(0.5 * LIMIT + TURN) == (False, True)
    assert watch.until(LIMIT - TURN) == (False, True)
    assert watch.until(LIMIT + TURN) == (True, True)


def test_whoever_waits_for_a_cpu_is_not_late() -> None:
    """Another thread than the loop's may run its batch."""
    watch = Watch(Kernel((0.0, 0.0), (0.4, 0.6)))
    assert watch.until(0.8 * LIMIT) == (False, False)
    watch.pulse.beat(watch.now, LIMIT)
    assert watch.until(1.5 * LIMIT) == (False, False)


def test_a_wait_that_goes_on_counts_before_it_is_over() -> None:
    kernel = Kernel((0.0, 0.0))
    watch = Watch(kernel)
    kernel.threads = [Thread(5.0, 7.0, ready=True)]
    kernel.turn = lambda: None  # type: ignore[method-assign]
    assert watch.until(LIMIT) == (False, False)
    kernel.threads = [Thread(5.01, 7.0 + 0.7 * LIMIT, ready=False)]
    assert watch.until(1.01 * LIMIT) == (False, False), "it counts once"


def test_a_wait_before_the_record_was_written_is_none_since() -> None:
    kernel = Kernel((0.0, 0.0))
    watch = Watch(kernel)
    watch.until(0.4 * LIMIT)
    kernel.threads = [Thread(5.0, 90.0, ready=False)]
    watch.pulse.beat(watch.now, LIMIT)
    assert watch.until(0.4 * LIMIT + LIMIT + TURN) == (True, True)


def test_who_gets_no_cpu_at_all_is_given_up_in_the_end() -> None:
    watch = Watch(Kernel((0.0, 1.0)))
    assert watch.until(0.5 * LIMIT / (1 - PARDONED) + TURN) == (False, True)
    assert watch.until(LIMIT / (1 - PARDONED) + TURN) == (True, True)


def test_a_loop_that_has_not_begun_is_not_judged() -> None:
    watch = Watch(Kernel())
    watch.pulse.clear()
    assert watch.until(10 * LIMIT) == (False, False)


# --- the kernel's own counts ---------------------------------------------------------------------------------------


@pytest.fixture
def crowd() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Three processes that share one CPU and want all of it, and one that sleeps."""
    cpu = min(os.sched_getaffinity(0))
    spin = f"import os; os.sched_setaffinity(0, [{cpu}])\nwhile True: pass"
    running = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(3)]
    running.append(subprocess.Popen(["sleep", "60"]))
    try:
        yield running
    finally:
        for one in running:
            one.kill()
            one.wait()


def test_the_kernel_tells_who_waits(crowd: list[subprocess.Popen[bytes]]) -> None:
    if not threads(os.getpid()):
        pytest.skip("this kernel does not count waits")

    def waited(process: subprocess.Popen[bytes]) -> float:
        return max(one.waited for one in threads(process.pid).values())

    *spinning, sleeping = crowd
    until = time.monotonic() + 30.0
    while min(map(waited, spinning)) < 0.3 and time.monotonic() < until:
        time.sleep(0.05)
    assert min(map(waited, spinning)) >= 0.3
    assert waited(sleeping) < 0.3
    sleeping.kill()
    sleeping.wait()
    assert threads(sleeping.pid) == {}
