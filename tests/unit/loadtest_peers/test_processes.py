"""A server's processes are found and ended, also those that do not want to end."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

from loadtest.peers import processes

STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_family_is_found_measured_and_ended() -> None:
    processes.GRACE_SECONDS, before = 0.2, processes.GRACE_SECONDS
    root = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert root.stdout is not None
        child = int(root.stdout.readline())
        found = processes.family(root.pid)
        assert set(found) == {root.pid, child}
        assert processes.memory_mib(found) > 1
        assert found[child].parent == root.pid and found[root.pid].cpu_seconds >= 0
        assert processes.end(found, root.pid, signal.SIGTERM) == sorted([root.pid, child])
        assert root.wait(5) == -signal.SIGKILL
        assert processes.family(root.pid, found) == {}
    finally:
        processes.GRACE_SECONDS = before
        root.kill()
        if root.stdout is not None:
            root.stdout.close()


def test_a_child_is_known_after_its_parent_has_gone() -> None:
    code = STUBBORN.replace("signal.signal(signal.SIGTERM, signal.SIG_IGN)", "")
    root = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    assert root.stdout is not None
    child = int(root.stdout.readline())
    found = processes.family(root.pid)
    root.kill()
    root.wait()
    root.stdout.close()
    assert set(processes.family(root.pid, found)) == {child}
    begin = time.monotonic()
    processes.GRACE_SECONDS, before = 0.2, processes.GRACE_SECONDS
    try:
        assert processes.end(found, root.pid, signal.SIGTERM) == [child]
    finally:
        processes.GRACE_SECONDS = before
    assert time.monotonic() - begin < 30
