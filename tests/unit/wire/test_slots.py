from __future__ import annotations

import mmap
import os

import pytest

from service.wire.pulse import Pulse
from service.wire.slots import PAGE, Arena, Slot, SlotTable


def test_slots_are_apart_and_shared() -> None:
    arena = Arena.create("test", slots=3, slot_bytes=PAGE + 1)
    other = Arena(arena.descriptor, 3, PAGE + 1, writable=False)
    arena.view(1)[:] = b"\xff" * (PAGE + 1)
    assert bytes(other.view(1)) == b"\xff" * (PAGE + 1)
    assert not any(other.view(0)) and not any(other.view(2))
    with pytest.raises(TypeError):
        other.view(1)[0] = 0
    with pytest.raises(IndexError):
        arena.view(3)


def test_nobody_can_resize_an_arena() -> None:
    arena = Arena.create("test", slots=1, slot_bytes=PAGE)
    for size in (0, 2 * PAGE):
        with pytest.raises(PermissionError):
            os.ftruncate(arena.descriptor, size)


def test_a_discarded_slot_reads_as_zeros() -> None:
    arena = Arena.create("test", slots=2, slot_bytes=PAGE)
    arena.view(0)[:] = arena.view(1)[:] = b"\x01" * PAGE
    arena.discard(0)
    assert not any(arena.view(0))
    assert all(arena.view(1))


def test_an_arena_has_no_name() -> None:
    before = set(os.listdir("/dev/shm"))
    arena = Arena.create("test", slots=1, slot_bytes=mmap.PAGESIZE)
    assert set(os.listdir("/dev/shm")) == before
    assert arena.slots == 1


def test_a_slot_is_held_once_and_its_generation_grows() -> None:
    table = SlotTable(2)
    first, second = table.acquire(), table.acquire()
    assert first is not None and second is not None
    assert first.index != second.index
    assert table.acquire() is None
    table.release(first)
    again = table.acquire()
    assert again == Slot(first.index, first.generation + 1)
    assert table.acquire() is None


def test_releasing_what_is_not_held_is_seen() -> None:
    table = SlotTable(1)
    slot = table.acquire()
    assert slot is not None
    table.release(slot)
    with pytest.raises(ValueError, match="not held"):
        table.release(slot)
    table.acquire()
    with pytest.raises(ValueError, match="not held"):
        table.release(slot)


def test_a_pulse_is_overdue_only_after_its_limit() -> None:
    board = Arena.create("test", slots=2, slot_bytes=16)
    writer, reader = Pulse(board, 1), Pulse(board, 1)
    assert not reader.read().overdue(now=1e9), "never written: not started, not late"
    writer.beat(now=100.0, limit=2.0)
    assert not reader.read().overdue(now=102.0)
    assert reader.read().overdue(now=102.1)
    writer.clear()
    assert not reader.read().overdue(now=1e9)
