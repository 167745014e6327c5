"""service.orphans: takes the status of strangers, and leaves our own children to whoever watches them."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

from service import orphans


def run(code: str) -> str:
    """In a process of its own, whose children are all ours to know."""
    head = "import os, subprocess, time\nfrom service import orphans\n"
    head += "def ended(pid): return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)\n"
    done = subprocess.run(
        [sys.executable, "-c", head + textwrap.dedent(code)], capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout


def test_strangers_are_taken_and_our_own_left() -> None:
    told = run("""
        ours = subprocess.Popen(["sleep", "60"])
        strangers = [os.posix_spawn("/bin/sh", ["sh", "-c", "exit 3"], {}) for _ in range(3)]
        for pid in strangers: ended(pid)
        print(orphans.reap({ours.pid}), orphans.reap({ours.pid}))
        ours.terminate(); ended(ours.pid)
        print(orphans.reap({ours.pid}), ours.wait())
    """)
    assert told.split() == ["3", "0", "0", "-15"]


def test_without_children_there_is_nothing_to_take() -> None:
    assert run("print(orphans.reap(set()))") == "0\n"


def test_only_process_1_adopts() -> None:
    assert orphans.adopts() == (os.getpid() == 1)
