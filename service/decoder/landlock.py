"""Landlock: no path of the file system can be opened, and no TCP port bound or reached, whatever the rights of the
user. A second wall behind seccomp, for kernels that have it (5.13 and later).
"""

from __future__ import annotations

import ctypes
import platform
import struct

_CREATE, _RESTRICT = 444, 446
_VERSION = 1
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""How many access rights to files each version of the interface knows."""
_NET_SINCE, _SCOPED_SINCE = 4, 6


def restrict() -> bool:
    """Take all of it away from this process (which must have no_new_privs set). False where unsupported."""
    if platform.machine() not in ("x86_64", "aarch64"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE, None, ctypes.c_size_t(0), _VERSION)
    if version < 1:
        return False
    attributes = struct.pack("=Q", (1 << _FILE_RIGHTS.get(version, 16)) - 1)
    if version >= _NET_SINCE:
        attributes += struct.pack("=Q", 0b11)
    if version >= _SCOPED_SINCE:
        attributes += struct.pack("=Q", 0b11)
    ruleset = libc.syscall(_CREATE, attributes, ctypes.c_size_t(len(attributes)), 0)
    if ruleset < 0:
        return False
    # A ruleset without a single rule; the descriptor stays open, which harms nobody.
    return bool(libc.syscall(_RESTRICT, ruleset, 0) == 0)
