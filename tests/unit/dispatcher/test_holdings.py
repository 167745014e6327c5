"""What each worker has loaded: all of them or none, whoever dies meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from service.dispatcher.holdings import Holdings, LoadError
from service.wire.messages.control import Unit
from service.wire.messages.worker import Load, LoadDone, Loaded, LoadFailed, Unload, Unloaded

OLD, NEW = Unit("toy@1:aa", "toy", "there/1"), Unit("toy@2:bb", "toy", "there/2")


class Workers:
    """What they were sent, and what they say."""

    def __init__(self, *indices: int) -> None:
        self.sent: list[tuple[int, Load | Unload]] = []
        self.holdings = Holdings(lambda worker, message: self.sent.append((worker, message)), [OLD])
        for index in indices:
            self.holdings.hello(index, [OLD.key])

    def done(self, worker: int, unit: Unit = NEW) -> bool:
        return self.holdings.said(worker, LoadDone(Loaded(unit.model, "fake/none", 0.1, [], key=unit.key)))

    def told(self) -> list[tuple[int, Load | Unload]]:
        sent, self.sent = self.sent, []
        return sent


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 10))


async def begun(workers: Workers) -> asyncio.Task[None]:
    task = asyncio.ensure_future(workers.holdings.load(NEW, 5.0))
    await asyncio.sleep(0)
    return task


async def failed(task: asyncio.Task[None]) -> str:
    with pytest.raises(LoadError) as error:
        await task
    return error.value.outcome


def test_it_is_loaded_when_all_have_it() -> None:
    async def scenario() -> None:
        workers = Workers(0, 1)
        task = await begun(workers)
        assert workers.told() == [(0, Load(NEW)), (1, Load(NEW))]
        assert workers.done(0)
        await asyncio.sleep(0)
        assert not task.done()
        assert workers.done(1)
        await task
        assert workers.holdings.everywhere(NEW.key)

    run(scenario())


def test_what_fails_in_one_is_given_up_in_all() -> None:
    async def scenario() -> None:
        workers = Workers(0, 1, 2)
        task = await begun(workers)
        workers.done(0)
        workers.told()
        workers.holdings.said(1, LoadFailed(NEW.key, "no"))
        assert await failed(task) == "load"
        assert workers.told() == [(0, Unload(NEW.key))]
        assert not workers.done(2), "one that was still at it gives it up when it has it"
        assert workers.told() == [(2, Unload(NEW.key))]

    run(scenario())


def test_a_worker_that_comes_back_is_brought_to_the_same_state() -> None:
    async def scenario() -> None:
        workers = Workers(0)
        task = await begun(workers)
        workers.holdings.lost(0)
        workers.told()
        workers.holdings.hello(0, [OLD.key, "stray"])
        assert workers.told() == [(0, Load(NEW)), (0, Unload("stray"))]
        workers.done(0)
        await task

    run(scenario())


def test_a_unit_that_kills_workers_is_given_up() -> None:
    async def scenario() -> None:
        workers = Workers(0)
        task = await begun(workers)
        workers.holdings.lost(0)
        workers.holdings.hello(0, [OLD.key])
        workers.holdings.lost(0)
        assert await failed(task) == "crashed"
        workers.told()
        workers.holdings.hello(0, [OLD.key])
        assert workers.told() == []

    run(scenario())


def test_it_waits_for_a_first_worker_and_not_for_ever() -> None:
    async def scenario() -> None:
        workers = Workers()
        task = asyncio.ensure_future(workers.holdings.load(NEW, 0.05))
        assert await failed(task) == "timeout"

    run(scenario())


def test_what_a_worker_says_of_a_unit_it_is_to_give_up_is_out_of_date() -> None:
    async def scenario() -> None:
        workers = Workers(0)
        leaving = asyncio.ensure_future(workers.holdings.unload(OLD.key, 5.0))
        await asyncio.sleep(0)
        assert workers.told() == [(0, Unload(OLD.key))]
        again = asyncio.ensure_future(workers.holdings.load(OLD, 5.0))
        await asyncio.sleep(0)
        assert workers.told() == [(0, Load(OLD))]
        assert not workers.done(0, OLD), "said before it was told to unload"
        workers.holdings.said(0, Unloaded(OLD.key))
        assert workers.done(0, OLD)
        await asyncio.gather(leaving, again)
        assert workers.holdings.everywhere(OLD.key)

    run(scenario())


def test_what_was_loaded_for_a_gateway_before_is_given_up() -> None:
    workers = Workers()
    assert not workers.done(0), "before its Hello"
    workers.holdings.hello(0, [OLD.key])
    assert workers.told() == [(0, Unload(NEW.key))]


def test_a_unit_that_served_and_cannot_be_loaded_again_is_told_of() -> None:
    workers = Workers(0, 1)
    missed: list[str] = []
    workers.holdings.missed = missed.append
    workers.holdings.lost(0)
    workers.holdings.hello(0, [])
    workers.holdings.said(0, LoadFailed(OLD.key, "gone"))
    assert missed == [], "another worker has it"
    workers.holdings.lost(1)
    workers.holdings.hello(1, [])
    workers.holdings.said(1, LoadFailed(OLD.key, "gone"))
    assert missed == [OLD.key]
