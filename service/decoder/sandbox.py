"""What a decoder gives up before it touches a stranger's bytes.

After `enter` it can compute, use memory up to a limit, and talk over the sockets it holds. It cannot open a file, make
a socket, start a process or a thread, or make memory executable. Everything it needs must be imported, and every lazy
import of a library done, before.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import stat
import sys

from service.decoder import landlock, seccomp

DESCRIPTORS = 64
"""Open descriptors; a decoder holds about ten."""


def enter(memory_bytes: int) -> frozenset[str]:
    """Enter the sandbox, for good. `memory_bytes` is how much address space may be added to what is mapped now.

    Returns the layers in force: always `environment` and `limits`; `no_new_privs`, `landlock` and `seccomp` where the
    kernel has them. Only seccomp stops sockets and processes, so its absence deserves a warning.
    """
    gc.collect()
    gc.freeze()
    _empty_environment()
    _limit(memory_bytes)
    layers = {"environment", "limits"}
    if seccomp.no_new_privileges():
        layers.add("no_new_privs")
        if landlock.restrict():
            layers.add("landlock")
        # Last, since it forbids what the others need.
        if seccomp.install():
            layers.add("seccomp")
    return frozenset(layers)


def _empty_environment() -> None:
    os.environ.clear()
    ctypes.CDLL(None).clearenv()


def _limit(memory_bytes: int) -> None:
    limits = {
        resource.RLIMIT_AS: _mapped() + memory_bytes,
        resource.RLIMIT_NOFILE: DESCRIPTORS,
        resource.RLIMIT_FSIZE: _writable_bytes(),
        resource.RLIMIT_CORE: 0,
        # Root is not held by this one; seccomp holds everybody.
        resource.RLIMIT_NPROC: 0,
    }
    for kind, value in limits.items():
        hard = resource.getrlimit(kind)[1]
        if hard != resource.RLIM_INFINITY:
            value = hard if value == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def _mapped() -> int:
    """Bytes of address space in use."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _writable_bytes() -> int:
    """0, unless stderr is a file: then log lines must still reach it, and it is the only file there is."""
    try:
        regular = stat.S_ISREG(os.fstat(sys.stderr.fileno()).st_mode)
    except (AttributeError, OSError, ValueError):
        regular = False
    return resource.RLIM_INFINITY if regular else 0
