from __future__ import annotations

from service.core.queue import DeadlineQueue, Item, LaneKey

LANE = LaneKey("m", "full")


def item(id: int, deadline: float, priority: int = 1) -> Item:
    return Item(id, LANE, deadline, priority, 0.0)


def test_earliest_deadline_first_within_a_priority() -> None:
    queue = DeadlineQueue()
    for entry in (item(1, 5.0), item(2, 3.0), item(3, 9.0, priority=0), item(4, 1.0, priority=2)):
        queue.push(entry)
    taken = [queue.pop() for _ in range(4)]
    assert [entry.id for entry in taken if entry] == [3, 2, 1, 4]
    assert queue.pop() is None


def test_removed_items_are_not_counted_and_not_popped() -> None:
    queue = DeadlineQueue()
    first, second = item(1, 1.0), item(2, 2.0)
    queue.push(first)
    queue.push(second)
    queue.remove(first)
    queue.remove(first)
    assert len(queue) == 1
    assert queue.head() is second
    assert queue.pop() is second
    assert len(queue) == 0


def test_removed_items_do_not_pile_up() -> None:
    queue = DeadlineQueue()
    queue.push(item(0, 0.5))
    for id in range(1, 1000):
        entry = item(id, 1.0 + id)
        queue.push(entry)
        queue.remove(entry)
    assert len(queue._heap) < 100
    first = queue.pop()
    assert first is not None and first.id == 0


def test_an_item_pushed_again_is_there_once() -> None:
    queue = DeadlineQueue()
    entry = item(1, 1.0)
    queue.push(entry)
    queue.remove(entry)
    queue.push(entry)
    assert queue.pop() is entry
    assert queue.pop() is None
