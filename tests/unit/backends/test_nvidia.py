from __future__ import annotations

import ctypes
import gc
from typing import Any

import numpy as np
import pytest

from service.backends import nvidia
from service.backends.nvidia import Device, Driver

FAILED = 999


class Library:
    """A driver with two devices, as far as it is asked; functions not named here do not exist."""

    def __init__(self, devices: int = 2) -> None:
        self.devices = devices
        self.registered: dict[int, int] = {}
        self.retained: list[int] = []

    def cuInit(self, flags: int) -> int:
        return 0 if flags == 0 and self.devices else FAILED

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self.devices
        return 0

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = 13020
        return 0

    def cuDeviceGet(self, handle: Any, index: int) -> int:
        handle._obj.value = index
        return 0

    def cuDeviceGetName(self, name: Any, length: int, handle: Any) -> int:
        name.value = f"GPU number {handle.value}".encode()[: length - 1]
        return 0

    def cuDeviceGetUuid_v2(self, uuid: Any, handle: Any) -> int:
        for place in range(16):
            uuid._obj[place] = handle.value + place
        return 0

    def cuDeviceTotalMem_v2(self, memory: Any, handle: Any) -> int:
        memory._obj.value = 141 << 30
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, handle: Any) -> int:
        value._obj.value = {75: 9, 76: 0}[attribute]
        return 0

    def cuDevicePrimaryCtxRetain(self, context: Any, handle: Any) -> int:
        self.retained.append(handle.value)
        context._obj.value = 1000 + handle.value
        return 0

    def cuCtxSetCurrent(self, context: Any) -> int:
        return 0 if context.value >= 1000 else FAILED

    def cuMemHostRegister_v2(self, address: Any, length: Any, flags: int) -> int:
        if address.value in self.registered:
            return FAILED
        self.registered[address.value] = length.value
        return 0

    def cuMemHostUnregister(self, address: Any) -> int:
        del self.registered[address.value]
        return 0


def test_devices_are_told_apart() -> None:
    one, other = Driver(Library()).devices()
    assert one == Device(0, "GPU number 0", bytes(range(16)).hex(), "9.0", 141 << 30, "13.2")
    assert other.index == 1 and other.uuid != one.uuid
    assert one.make == "GPU number 0, compute 9.0, driver 13.2"


def test_without_a_device_there_is_no_driver() -> None:
    with pytest.raises(OSError, match="cuInit answered 999"):
        Driver(Library(devices=0))


def test_a_machine_without_a_driver_has_no_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "_LIBRARY", "libcuda-that-is-not-there.so")
    monkeypatch.setattr(nvidia, "_found", None)
    assert nvidia.driver() is None and nvidia.devices() == []


def test_memory_is_registered_for_as_long_as_it_lives() -> None:
    library = Library()
    driver = Driver(library)
    memory = np.zeros(1 << 16, np.uint8)
    address = memory.ctypes.data
    driver.pin(1, memory)
    driver.pin(1, np.zeros(8, np.uint8))
    gc.collect()
    assert library.registered == {address: 1 << 16} and library.retained == [1]
    view = memory[4:]
    del memory
    gc.collect()
    assert library.registered
    del view
    gc.collect()
    assert not library.registered


def test_what_the_driver_refuses_is_an_error() -> None:
    driver = Driver(Library())
    memory = np.zeros(16, np.uint8)
    driver.pin(0, memory)
    with pytest.raises(OSError, match="cuMemHostRegister_v2 answered"):
        driver.pin(0, memory)


def test_the_names_are_those_of_the_real_library() -> None:
    """Where there is a driver, it has them all."""
    try:
        real = ctypes.CDLL("libcuda.so.1")
    except OSError:
        pytest.skip("this machine has no driver of NVIDIA's")
    assert all(hasattr(real, name) for name in vars(Library) if name.startswith("cu"))
