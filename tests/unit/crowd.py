"""Threads of another process that are the first to do something, a little apart."""

from __future__ import annotations

import subprocess
import sys

from tests.e2e.service import ROOT

_PROGRAM = """
import sys, threading, time
{setup}

def slowly(frame, event, argument):
    # While msgspec looks at a type for the first time, it lets others go on: they meet a type that is half made.
    if event == "call" and "msgspec" in frame.f_code.co_filename:
        time.sleep(0.005)

def work(number):
    sys.setprofile(slowly)
    time.sleep(number * 0.005)
    {use}

threads = [threading.Thread(target=work, args=(number,)) for number in range(30)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def first_together(setup: str, use: str, *arguments: str) -> tuple[int, str]:
    """Run `use`, a line of Python, in 30 threads after the lines `setup`, which find `arguments` in sys.argv[1:]; the
    exit code and what was said on stderr."""
    program = _PROGRAM.format(setup=setup, use=use)
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr
