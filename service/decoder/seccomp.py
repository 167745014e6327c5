"""A seccomp filter: the few system calls that a decoder needs once it has started; every other one fails with EPERM.

Written as classic BPF by hand, since that is a dozen instructions and saves a library.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import platform
import struct

_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_MODE_FILTER = 2

_ALLOW = 0x7FFF0000
_KILL = 0x80000000
_DENY = 0x00050000 | errno.EPERM

_LOAD, _EQUAL, _ANY_BIT, _AT_LEAST, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_NUMBER, _ARCH, _ARGUMENT = 0, 4, 16
"""Offsets in struct seccomp_data; arguments are eight bytes each, low half first on both machines."""

_FIONBIO = 0x5421
_X32 = 0x40000000

# name: (x86_64, aarch64); None where the machine has no such call.
_CALLS: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "poll": (7, None),
    "ppoll": (271, 73),
    "select": (23, None),
    "pselect6": (270, 72),
    "sendto": (44, 206),
    "recvfrom": (45, 207),
    "sendmsg": (46, 211),
    "recvmsg": (47, 212),
    "getsockname": (51, 204),
    "getsockopt": (55, 209),
    "brk": (12, 214),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "futex": (202, 98),
    "sched_yield": (24, 124),
    "getrandom": (318, 278),
    "clock_gettime": (228, 113),
    "gettimeofday": (96, 169),
    "clock_nanosleep": (230, 115),
    "restart_syscall": (219, 128),
    "rt_sigreturn": (15, 139),
    "rt_sigprocmask": (14, 135),
    "rt_sigaction": (13, 134),
    "exit": (60, 93),
    "exit_group": (231, 94),
}

# Allowed only while an argument (its index) has none of these bits. Memory is never made executable.
_WITHOUT_BITS: dict[str, tuple[tuple[int, int], int, int]] = {
    "mmap": ((9, 222), 2, mmap.PROT_EXEC),
    "mprotect": ((10, 226), 2, mmap.PROT_EXEC),
}

# Allowed only with this value of an argument: making a socket blocking.
_WITH_VALUE: dict[str, tuple[tuple[int, int], int, int]] = {"ioctl": ((16, 29), 1, _FIONBIO)}

_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}


def _instruction(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    """One BPF instruction; `then` and `otherwise` are how many instructions a comparison skips."""
    return struct.pack("HBBI", code, then, otherwise, value)


def program(machine: str) -> bytes:
    """The filter for a machine as `uname -m` names it. Raises KeyError for one that has no table here."""
    column, architecture = _MACHINES[machine]
    code = [
        _instruction(_LOAD, _ARCH),
        _instruction(_EQUAL, architecture, then=1),
        _instruction(_RETURN, _KILL),
        _instruction(_LOAD, _NUMBER),
        # x86_64 also has a second numbering (x32) with this bit set.
        _instruction(_AT_LEAST, _X32, otherwise=1),
        _instruction(_RETURN, _DENY),
    ]
    for numbers in _CALLS.values():
        number = numbers[column]
        if number is not None:
            code += [_instruction(_EQUAL, number, otherwise=1), _instruction(_RETURN, _ALLOW)]
    for table, test in ((_WITHOUT_BITS, _ANY_BIT), (_WITH_VALUE, _EQUAL)):
        for numbers, argument, value in table.values():
            good, bad = (_DENY, _ALLOW) if test == _ANY_BIT else (_ALLOW, _DENY)
            code += [
                _instruction(_EQUAL, numbers[column], otherwise=4),
                _instruction(_LOAD, _ARGUMENT + 8 * argument),
                _instruction(test, value, otherwise=1),
                _instruction(_RETURN, good),
                _instruction(_RETURN, bad),
            ]
    code.append(_instruction(_RETURN, _DENY))
    return b"".join(code)


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def no_new_privileges() -> bool:
    """Give up, for good, ever gaining rights through exec; a filter may then be installed without being root."""
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0)


def install() -> bool:
    """Install the filter in this process. False where the kernel or the machine has no support."""
    try:
        code = program(platform.machine())
    except KeyError:
        return False
    buffer = ctypes.create_string_buffer(code, len(code))
    description = _Program(len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(description), 0, 0) == 0)
