"""Start a command as container runtimes do by default: without the system calls that their profile denies.

`python profile.py COMMAND...` becomes the command. Of the profile these are the calls that an unprivileged service
might try all the same: placing of memory, io_uring, namespaces, keys, tracing. `clone3` is said not to exist.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

_MEMORY = {"mbind": 237, "set_mempolicy": 238, "get_mempolicy": 239, "migrate_pages": 256, "move_pages": 279}
_KEYS = {"add_key": 248, "request_key": 249, "keyctl": 250}
_PLACES = {"mount": 165, "umount2": 166, "unshare": 272, "setns": 308}
_TRACING = {"perf_event_open": 298, "bpf": 321, "userfaultfd": 323}
_RINGS = {"io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427}
DENIED = _MEMORY | _KEYS | _PLACES | _TRACING | _RINGS
"""By their numbers on x86_64; on another machine nothing is denied."""
CLONE3 = 435
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
_NO_NEW_PRIVS, _SECCOMP, _FILTER = 38, 22, 2


def program() -> bytes:
    """The filter, as classic BPF."""
    code = [struct.pack("HBBI", _LOAD, 0, 0, 0)]
    for number, answer in [*((one, errno.EPERM) for one in DENIED.values()), (CLONE3, errno.ENOSYS)]:
        code.append(struct.pack("HBBI", _EQUAL, 0, 1, number))
        code.append(struct.pack("HBBI", _RETURN, 0, 0, _ERROR | answer))
    code.append(struct.pack("HBBI", _RETURN, 0, 0, _ALLOW))
    return b"".join(code)


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def enter() -> None:
    """Deny them to this process and to all that it starts. Raises OSError."""
    code = program()
    buffer = ctypes.create_string_buffer(code, len(code))
    described = _Program(len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(_SECCOMP, _FILTER, ctypes.byref(described), 0, 0):
        raise OSError(ctypes.get_errno(), "no filter")


if __name__ == "__main__":
    if platform.machine() == "x86_64":
        enter()
    os.execvp(sys.argv[1], sys.argv[1:])
