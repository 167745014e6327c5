"""What falls to process 1. In a container the supervisor is that process: whoever loses its parent becomes its child,
and stays in the process table until somebody takes its exit status."""

from __future__ import annotations

import os
from collections.abc import Collection


def adopts() -> bool:
    """Whether this process is the one that orphans are given to."""
    return os.getpid() == 1


def reap(own: Collection[int]) -> int:
    """Take the status of children that have ended and are none of `own` (process ids); how many there were.

    Stops at one of its own: that one is watched, and about to be taken by whoever watches it.
    """
    taken = 0
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return taken
        if ended is None or ended.si_pid in own:
            return taken
        os.waitpid(ended.si_pid, 0)
        taken += 1
