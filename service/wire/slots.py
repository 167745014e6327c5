"""Shared memory between the processes: arenas of fixed-size slots, and who holds which.

An arena is one memfd, sealed against resizing, so that no process can make another fault on it; it has no name in
the file system and is gone with the last process that holds it. Pixel slots are handed out by whoever dispatches alone,
through `SlotTable`; every hand-out has a generation, which travels to the worker and back, so that an answer about an
earlier use of a slot is recognised and dropped.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from dataclasses import dataclass

PAGE = mmap.PAGESIZE


class Arena:
    """`slots` slots of `slot_bytes` bytes (rounded up to whole pages) in shared memory.

    With `first`, only the slots from that one on are mapped, and slot 0 is that one.
    """

    def __init__(self, descriptor: int, slots: int, slot_bytes: int, *, writable: bool, first: int = 0) -> None:
        self.descriptor = descriptor
        self.slots = slots
        self.slot_bytes = slot_bytes
        self._stride = _stride(slot_bytes)
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        size, offset = slots * self._stride, first * self._stride
        self._map = mmap.mmap(descriptor, size, mmap.MAP_SHARED, protection, offset=offset)
        self._view = memoryview(self._map)

    @classmethod
    def create(cls, label: str, slots: int, slot_bytes: int) -> Arena:
        """A new zeroed arena. Pages cost memory only once they are touched."""
        descriptor = os.memfd_create(label, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, slots * _stride(slot_bytes))
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        return cls(descriptor, slots, slot_bytes, writable=True)

    def view(self, slot: int) -> memoryview:
        """The bytes of one slot, not copied."""
        if not 0 <= slot < self.slots:
            raise IndexError(slot)
        start = slot * self._stride
        return self._view[start : start + self.slot_bytes]

    def discard(self, slot: int) -> None:
        """Give the slot's pages back to the system; it reads as zeros afterwards."""
        self._map.madvise(mmap.MADV_REMOVE, slot * self._stride, self._stride)


def _stride(slot_bytes: int) -> int:
    return -(-max(slot_bytes, 1) // PAGE) * PAGE


@dataclass(frozen=True, slots=True)
class Slot:
    """One hand-out of a slot."""

    index: int
    generation: int


class SlotTable:
    """Which slots are free. Last out, first in, so that few pages are ever touched under light load."""

    def __init__(self, slots: int) -> None:
        self._free = list(range(slots - 1, -1, -1))
        self._generation = [0] * slots
        self._held = [False] * slots

    def acquire(self) -> Slot | None:
        """A free slot, or None when all are held."""
        if not self._free:
            return None
        index = self._free.pop()
        self._generation[index] += 1
        self._held[index] = True
        return Slot(index, self._generation[index])

    def release(self, slot: Slot) -> None:
        """Take a slot back. Releasing it twice, or an earlier use of it, is a bug of ours and raises."""
        if not self._held[slot.index] or self._generation[slot.index] != slot.generation:
            raise ValueError(f"slot {slot} is not held")
        self._held[slot.index] = False
        self._free.append(slot.index)
