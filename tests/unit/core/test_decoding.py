"""Who is decoded when: depth, heavy images apart, and who pays for them."""

from __future__ import annotations

from service.core.actions import Action, Answer, StartDecode
from service.core.decoding import HEAVY_SECONDS, Decoding
from service.core.dispatch import Dispatcher
from service.core.queue import Item, LaneKey
from tests.unit.core.test_dispatch import LANE, service


def item(id: int, client: str = "", heavy: bool = False) -> Item:
    return Item(id, LaneKey("m", "full"), 100.0 + id, 1, 0.0, client, heavy=heavy)


def decoding(decoders: int, *items: Item) -> Decoding:
    stage = Decoding()
    for index in range(decoders):
        stage.up(index)
    for one in items:
        stage.push(0.0, one)
    return stage


def given(stage: Decoding, now: float = 0.0) -> list[tuple[int, int]]:
    """(item, decoder) of everything that is handed out now."""
    out = []
    while (next_one := stage.next(now)) is not None:
        out.append((next_one[0].id, next_one[1]))
    return out


def test_each_decoder_holds_one_in_work_and_one_at_hand() -> None:
    assert given(decoding(2, *map(item, range(6)))) == [(0, 0), (1, 1), (2, 0), (3, 1)]


def test_heavy_images_leave_a_decoder_to_ordinary_ones_that_come() -> None:
    stage = decoding(3, item(0), *(item(id, heavy=True) for id in range(10, 14)))
    assert given(stage) == [(10, 2), (11, 1), (0, 0)]
    assert given(stage, now=0.9) == []
    stage.push(0.9, item(1))
    assert given(stage, now=0.9) == [(1, 0)]


def test_alone_they_get_all_decoders_one_image_each() -> None:
    stage = decoding(2, *(item(id, heavy=True) for id in range(10, 14)))
    assert given(stage) == [(10, 1), (11, 0)]


def test_nothing_waits_behind_a_heavy_image() -> None:
    stage = decoding(1, item(10, heavy=True))
    assert given(stage) == [(10, 0)]
    stage.push(0.0, item(1))
    assert given(stage) == []
    stage.finished(0, item(10, heavy=True), 0.3)


def test_with_one_decoder_heavy_images_get_a_floor_of_its_time() -> None:
    heavy = item(10_000, heavy=True)
    stage = decoding(1, item(0), heavy)
    order: list[int] = []
    for id in range(1, 1000):
        stage.push(0.0, item(id))
        for number, _ in given(stage):
            order.append(number)
        done = stage._held[0][0]
        stage.finished(0, done, HEAVY_SECONDS if done.heavy else 0.002)
    assert 10 < order.index(heavy.id) < 500


def test_a_heavy_image_costs_its_sender_what_it_took() -> None:
    stage = decoding(1, *(item(id, client="greedy") for id in range(50)))
    assert given(stage) == [(0, 0), (1, 0)]
    for id in range(100, 140):
        stage.push(0.0, item(id, client="modest"))
    order: list[int] = []
    while len(order) < 40:
        done = stage._held[0][0]
        stage.finished(0, done, 1.0 if done.id == 0 else 0.002)  # the first took as long as five hundred
        order += [number for number, _ in given(stage)]
    assert all(number >= 100 for number in order), "the modest client first, although all of greedy's are due before"


def decodes(actions: list[Action]) -> list[tuple[int, float]]:
    return [(action.item.id, action.limit) for action in actions if isinstance(action, StartDecode)]


def test_an_image_given_back_is_decoded_without_a_limit() -> None:
    core: Dispatcher = service()
    one = core.admit(0.0, 1, LANE, 1000.0)
    core.submit(0.0, one)
    assert decodes(core.take_actions()) == [(1, HEAVY_SECONDS)]
    core.heavy(0.0, 0, one)
    assert decodes(core.take_actions()) == [(1, 0.0)]


def test_an_image_given_back_after_its_client_left_is_not_decoded() -> None:
    core = service()
    one = core.admit(0.0, 1, LANE, 1000.0)
    core.submit(0.0, one)
    core.cancel(0.0, one)
    core.take_actions()
    core.heavy(0.0, 0, one)
    assert core.take_actions() == []
    assert core.in_flight == 0


def test_what_became_hopeless_while_its_body_came_is_refused_before_it_is_decoded() -> None:
    core = service(a=0.0, b=1.0)
    slow = core.admit(0.0, 1, LANE, 4.0)
    for id in range(2, 12):
        core.submit(0.0, core.admit(0.0, id, LANE, 100.0))
    core.take_actions()
    core.submit(0.0, slow)
    (answer,) = core.take_actions()
    assert isinstance(answer, Answer) and answer.item is slow
    assert answer.refusal is not None and answer.refusal.code == "overloaded" and answer.refusal.retry_after == 9
