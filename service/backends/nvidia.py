"""NVIDIA's driver, as far as it is needed before any runtime is loaded: which devices there are, and memory of ours
that a device may read by itself.

The driver's own library is asked, through ctypes: that costs milliseconds, where importing a runtime costs seconds, and
it is there exactly when a device can be used.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LIBRARY = "libcuda.so.1"
_MAJOR, _MINOR = 75, 76
"""Attributes: the compute capability."""
_PORTABLE = 1
_NAME_BYTES = 128


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU. `capability` is its architecture, such as 9.0; `driver` the version of CUDA that the driver speaks."""

    index: int
    name: str
    uuid: str
    capability: str
    memory_bytes: int
    driver: str

    @property
    def make(self) -> str:
        """What compiled code depends on: two devices of one make run the same."""
        return f"{self.name}, compute {self.capability}, driver {self.driver}"


class Driver:
    """The driver's library. Raises OSError when there is none, or it has no device to offer."""

    def __init__(self, library: Any = None) -> None:
        self._library = library if library is not None else ctypes.CDLL(_LIBRARY)
        self._call("cuInit", 0)
        self._contexts: dict[int, ctypes.c_void_p] = {}
        self._retaining = threading.Lock()

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            raise OSError(f"{name} answered {status}")

    def devices(self) -> list[Device]:
        """Those this process may use; CUDA_VISIBLE_DEVICES has been heeded."""
        count, version = ctypes.c_int(), ctypes.c_int()
        self._call("cuDeviceGetCount", ctypes.byref(count))
        self._call("cuDriverGetVersion", ctypes.byref(version))
        driver = f"{version.value // 1000}.{version.value % 1000 // 10}"
        return [self._device(index, driver) for index in range(count.value)]

    def _device(self, index: int, driver: str) -> Device:
        handle = self._handle(index)
        name, uuid = ctypes.create_string_buffer(_NAME_BYTES), (ctypes.c_ubyte * 16)()
        memory, major, minor = ctypes.c_size_t(), ctypes.c_int(), ctypes.c_int()
        self._call("cuDeviceGetName", name, _NAME_BYTES, handle)
        self._call("cuDeviceGetUuid_v2", ctypes.byref(uuid), handle)
        self._call("cuDeviceTotalMem_v2", ctypes.byref(memory), handle)
        self._call("cuDeviceGetAttribute", ctypes.byref(major), _MAJOR, handle)
        self._call("cuDeviceGetAttribute", ctypes.byref(minor), _MINOR, handle)
        capability = f"{major.value}.{minor.value}"
        return Device(index, name.value.decode(errors="replace"), bytes(uuid).hex(), capability, memory.value, driver)

    def _handle(self, index: int) -> ctypes.c_int:
        handle = ctypes.c_int()
        self._call("cuDeviceGet", ctypes.byref(handle), index)
        return handle

    def pin(self, index: int, memory: NDArray[np.uint8]) -> None:
        """Keep an array's pages where they are, and let device `index` read them by itself, for as long as the array
        lives. Without that each upload goes through memory of the driver's. Raises OSError."""
        self._call("cuCtxSetCurrent", self._context(index))
        address = memory.ctypes.data
        self._call("cuMemHostRegister_v2", ctypes.c_void_p(address), ctypes.c_size_t(memory.nbytes), _PORTABLE)
        weakref.finalize(memory, self._unpin, address)

    def _unpin(self, address: int) -> None:
        """At worst the pages stay where they are until the process ends."""
        with contextlib.suppress(OSError):
            self._call("cuMemHostUnregister", ctypes.c_void_p(address))

    def _context(self, index: int) -> ctypes.c_void_p:
        """The context that the runtimes use on this device."""
        with self._retaining:
            if index not in self._contexts:
                context = ctypes.c_void_p()
                self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._handle(index))
                self._contexts[index] = context
            return self._contexts[index]


_found: Driver | None = None


def driver() -> Driver | None:
    """The driver of this machine; None when it has none, or none that works."""
    global _found
    if _found is None:
        with contextlib.suppress(OSError, AttributeError):
            _found = Driver()
    return _found


def devices() -> list[Device]:
    """The GPUs of this machine, none where there is no driver."""
    found = driver()
    if found is None:
        return []
    try:
        return found.devices()
    except OSError:
        return []
