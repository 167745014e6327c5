from __future__ import annotations

import random

from service.core.fairness import Shares, Waiting
from service.core.queue import FairQueue, Item, LaneKey

LANE = LaneKey("m", "full")
NORMAL = 1


def item(id: int, deadline: float, priority: int = NORMAL, client: str = "") -> Item:
    return Item(id, LANE, deadline, priority, 0.0, client)


def filled(*items: Item) -> FairQueue:
    queue = FairQueue(Shares())
    for entry in items:
        queue.push(entry)
    return queue


def taken(queue: FairQueue, priority: int = NORMAL) -> list[int]:
    ids = []
    while (entry := queue.pop(priority)) is not None:
        ids.append(entry.id)
    return ids


def test_earliest_deadline_first_within_a_class() -> None:
    queue = filled(item(1, 5.0), item(2, 3.0), item(3, 9.0, priority=0), item(4, 1.0, priority=2))
    assert [taken(queue, priority) for priority in range(3)] == [[3], [2, 1], [4]]
    assert len(queue) == 0


def test_a_client_that_was_given_more_than_a_quantum_comes_after_the_others() -> None:
    shares = Shares(quantum=4.0)
    queue = FairQueue(shares)
    for id in range(20):
        queue.push(item(id, 1.0 + id, client="greedy"))
    for id in range(100, 104):
        queue.push(item(id, 50.0 + id, client="modest"))
    order = []
    while (entry := queue.pop(NORMAL)) is not None:
        shares.charge(entry.client, 1.0, 2)
        order.append(entry.id)
    assert order[:12] == [0, 1, 2, 3, 100, 101, 102, 103, 4, 5, 6, 7], (
        "by quanta, although all of greedy's are due first"
    )
    assert sorted(order) == [*range(20), *range(100, 104)]


def test_within_a_turn_the_earliest_deadline_of_all_clients_goes_first() -> None:
    queue = filled(*(item(id, 100.0 - id, client=str(id)) for id in range(50)))
    assert taken(queue) == list(range(49, -1, -1))


def test_an_urgent_item_brings_its_client_forward() -> None:
    queue = filled(item(1, 9.0, client="a"), item(2, 5.0, client="b"))
    queue.push(item(3, 1.0, client="a"))
    assert taken(queue) == [3, 2, 1]


def test_removed_items_are_not_counted_and_not_popped() -> None:
    first, second = item(1, 1.0), item(2, 2.0)
    queue = filled(first, second)
    queue.remove(first)
    queue.remove(first)
    assert len(queue) == 1
    head = queue.head(NORMAL)
    assert head is not None and head.item is second
    assert queue.pop(NORMAL) is second
    assert len(queue) == 0


def size(queue: FairQueue) -> int:
    """Entries of all its heaps."""
    return sum(len(of.order) + sum(len(flow.items) for flow in of.flows.values()) for of in queue._classes)


def test_removed_items_do_not_pile_up() -> None:
    queue = filled(item(0, 0.5))
    for id in range(1, 1000):
        entry = item(id, 1.0 + id, client=str(id))
        queue.push(entry)
        queue.remove(entry)
    assert size(queue) < 300
    assert taken(queue) == [0]


def test_neither_do_clients_that_come_and_go() -> None:
    shares = Shares()
    queue = FairQueue(shares)
    for id in range(5000):
        queue.push(item(id, 1.0 + id, client=str(id)))
        entry = queue.pop(NORMAL)
        assert entry is not None and entry.id == id
        shares.charge(entry.client, 1.0, 1)
    assert size(queue) == 0
    assert len(shares._tags) <= 2048


def test_an_item_pushed_again_is_there_once() -> None:
    entry = item(1, 1.0)
    queue = filled(entry)
    queue.remove(entry)
    queue.push(entry)
    assert taken(queue) == [1]


def test_random_pushes_pops_and_removals_against_a_plain_list() -> None:
    """Against the definition: the least (turn, deadline) of what is there."""
    rng = random.Random(0)
    shares = Shares(quantum=3.0)
    queue = FairQueue(shares)
    there: list[Item] = []
    for id in range(20_000):
        if there and rng.random() < 0.3:
            gone = there.pop(rng.randrange(len(there)))
            queue.remove(gone)
        elif there and rng.random() < 0.5:
            entry = queue.pop(NORMAL)
            best = min((shares.turn(one.client), one.deadline) for one in there)
            assert entry is not None
            assert (shares.turn(entry.client), entry.deadline) == best
            there.remove(entry)
            shares.charge(entry.client, rng.random() * 2, len({one.client for one in there}) + 1)
        else:
            there.append(item(id, rng.random() * 100, client=str(rng.randrange(8))))
            queue.push(there[-1])
        assert len(queue) == len(there)


def test_who_had_all_it_wanted_comes_back_without_a_debt() -> None:
    shares = Shares(quantum=4.0)
    queue = FairQueue(shares)
    for _ in range(100):  # served at once each time, while something of another's was under way
        queue.push(item(0, 1.0, client="busy"))
        queue.pop(NORMAL)
        shares.charge("busy", 1.0, 2)
    for id in range(1, 40):
        queue.push(item(id, 2.0, client="newcomer"))
    queue.push(item(100, 3.0, client="busy"))
    order = []
    while (entry := queue.pop(NORMAL)) is not None:
        shares.charge(entry.client, 1.0, 2)
        order.append(entry.id)
    assert order.index(100) <= 12


def test_an_outage_says_nothing_of_how_turns_go() -> None:
    """A client's turn is told by the pace at which its items were taken while there was somebody to take them."""
    waiting = Waiting()
    for _ in range(100):
        waiting.enter(0.0, 1, "a")
    waiting.took(0.01, 1, "a", 1)
    waiting.resume(5.0)
    waiting.took(5.01, 1, "a", 1)
    assert waiting.patience(1, "a") <= 100 * 0.011
    waiting.took(10.0, 1, "a", 1)
    assert waiting.patience(1, "a") > 10
