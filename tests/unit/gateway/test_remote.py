"""A gateway's end of the channel to the dispatcher, with a dispatcher that says what the test has it say."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from service.config import Config
from service.core.levels import Level
from service.dispatcher.catalogue import Catalogue
from service.dispatcher.tickets import Ask, Stored, Ticket
from service.errors import Refusal
from service.gateway.remote import RemoteEngine
from service.wire.channel import Channel
from service.wire.messages.control import Unit
from service.wire.messages.gateway import Admit, Admitted, Answered, Cancel, Freed, FromGateway, Served, Submit
from service.wire.messages.results import Classification, Options
from service.wire.slots import Arena
from tests.contract import models

KEY = "toy/1"
SLOTS = range(2, 4)
LEVEL = Level("full", "full", "full", 1.0, 0)


class Side:
    """A gateway's engine, and the dispatcher's end of its channel."""

    def __init__(self, folder: Path, again: bool = False) -> None:
        directory = models.fake(folder, "classify", "toy")
        self.entry = Catalogue(Config(), [Unit(KEY, "toy", str(directory))]).of(KEY)
        self.bodies = Arena.create("test-bodies", 4, 4096)
        self.cut: list[Any] = []
        self.engine = RemoteEngine(self.bodies, SLOTS, 8, 0.05, lambda *peer: self.cut.append(peer), again)
        self._end: Channel[FromGateway]

    async def dispatcher(self, ready: bool = True) -> None:
        """One is there, and serves."""
        ours, theirs = socket.socketpair()
        await self.engine.attach(ours.detach())
        self._end = Channel(theirs, FromGateway)
        await self.say(Served(1, [], {}, [], ready))

    async def say(self, *messages: Any) -> None:
        for message in messages:
            self._end.send(message)
        await asyncio.sleep(0.01)

    async def heard(self) -> list[FromGateway]:
        """What the gateway said since this was asked last."""
        await asyncio.sleep(0.01)
        return await asyncio.to_thread(self._end.receive)

    async def gone(self) -> None:
        self._end.close()
        await asyncio.sleep(0.01)

    def ask(self, seconds: float = 10.0) -> Ticket:
        assert self.entry is not None
        return self.engine.admit(Ask(self.entry, LEVEL, time.monotonic() + seconds, 1, Options(), "someone"))


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Callable[[Side], Awaitable[None]]], None]:
    def go(scenario: Callable[[Side], Awaitable[None]]) -> None:
        async def whole() -> None:
            side = Side(tmp_path)
            await asyncio.wait_for(scenario(side), 10.0)
            await side.gone()

        asyncio.run(whole())

    return go


Run = Callable[[Callable[[Side], Awaitable[None]]], None]


def body_of(side: Side, submit: FromGateway) -> bytes:
    assert isinstance(submit, Submit)
    return bytes(side.bodies.view(submit.body_slot)[: submit.body_bytes])


def test_nothing_is_asked_before_the_dispatcher_has_been_there(run: Run) -> None:
    async def scenario(side: Side) -> None:
        with pytest.raises(Refusal) as refused:
            side.ask()
        assert refused.value.code == "starting"
        await side.dispatcher(ready=False)
        assert side.engine.there() and not side.engine.ready()
        side.ask()

    run(scenario)


def test_the_way_of_one_image(run: Run) -> None:
    async def scenario(side: Side) -> None:
        await side.dispatcher()
        ticket, verdicts = side.ask(), list[Refusal | None]()
        ticket.verdict = verdicts.append
        (asked,) = await side.heard()
        assert isinstance(asked, Admit) and (asked.unit, asked.client, asked.level.lane) == (KEY, "someone", "full")
        await side.say(Admitted([asked.id]))
        assert verdicts == [None] and not ticket.pending and not ticket.done.done()
        side.engine.submit(ticket, b"image")
        (handed,) = await side.heard()
        assert body_of(side, handed) == b"image"
        result = Classification([])
        await side.say(Answered(asked.id, result=result, level="full", batch=3, times=(1.0, 2.0, 4.0, 7.0, 11.0, 16.0)))
        assert ticket.done.done() and ticket.outcome.refusal is None
        assert (ticket.outcome.result, ticket.outcome.level, ticket.outcome.batch) == (result, LEVEL, 3)
        assert (ticket.outcome.decoder_wait, ticket.outcome.queue, ticket.outcome.ended) == (2.0, 4.0, 16.0)
        assert side.engine.in_flight == 0 and verdicts == [None]

    run(scenario)


def test_one_that_is_not_admitted_is_told_so_at_once(run: Run) -> None:
    async def scenario(side: Side) -> None:
        await side.dispatcher()
        ticket, verdicts = side.ask(), list[Refusal | None]()
        ticket.verdict = verdicts.append
        await side.say(Answered(1, "overloaded", "no", 2.5, outside=True))
        (refusal,) = verdicts
        assert refusal is not None and (refusal.code, refusal.retry_after) == ("overloaded", 2.5)
        side.engine.submit(ticket, b"image")
        assert side.engine.in_flight == 0 and len(await side.heard()) == 1, "its body goes nowhere"

    run(scenario)


def test_bodies_beyond_the_slots_wait_and_a_slot_that_is_read_is_kept(run: Run) -> None:
    async def scenario(side: Side) -> None:
        await side.dispatcher()
        tickets = [side.ask() for _ in range(4)]
        for number, ticket in enumerate(tickets):
            side.engine.submit(ticket, b"%d" % number)
        handed = [one for one in await side.heard() if isinstance(one, Submit)]
        assert {one.body_slot for one in handed} == set(SLOTS)
        first = handed[0]
        await side.say(Answered(first.id, "client_closed_request", "gone", read=True))
        assert isinstance(tickets[1].body, Stored) and not isinstance(tickets[2].body, Stored)
        await side.say(Freed(first.id))
        (third,) = await side.heard()
        assert body_of(side, third) == b"2" and isinstance(third, Submit) and third.body_slot == first.body_slot
        # Who leaves before there was a slot takes none.
        late = Answered(tickets[3].item.id, "deadline_exceeded", "late")
        await side.say(late, Answered(handed[1].id, "internal", "an internal error"))
        assert side.engine.in_flight == 1

    run(scenario)


def test_what_is_not_answered_is_handed_in_again(run: Run) -> None:
    async def scenario(side: Side) -> None:
        await side.dispatcher()
        asked, handed = side.ask(), side.ask()
        side.engine.submit(handed, b"image")
        await side.heard()
        await side.gone()
        assert not side.engine.there()
        meanwhile = side.ask()
        side.engine.submit(asked, b"later")
        await side.dispatcher()
        said = await side.heard()
        assert [one.id for one in said if isinstance(one, Admit)] == [asked.item.id, handed.item.id, meanwhile.item.id]
        bodies = {one.id: body_of(side, one) for one in said if isinstance(one, Submit)}
        assert bodies == {asked.item.id: b"later", handed.item.id: b"image"}
        side.engine.cancel(meanwhile)
        assert await side.heard() == [Cancel(meanwhile.item.id)]

    run(scenario)


def test_who_is_late_or_leaves_while_there_is_none_is_answered(run: Run) -> None:
    async def scenario(side: Side) -> None:
        await side.dispatcher()
        late, leaver = side.ask(0.05), side.ask()
        await side.gone()
        side.engine.cancel(leaver)
        assert leaver.outcome.refusal is not None and leaver.outcome.refusal.code == "client_closed_request"
        while not late.done.done():
            await asyncio.sleep(0.01)
        assert late.outcome.refusal is not None and late.outcome.refusal.code == "deadline_exceeded"

    run(scenario)


def test_two_dispatchers_that_died_of_it_are_enough(run: Run) -> None:
    async def scenario(side: Side) -> None:
        await side.dispatcher()
        ticket = side.ask()
        await side.gone()
        await side.dispatcher()
        assert not ticket.done.done()
        await side.gone()
        await side.dispatcher()
        assert ticket.outcome.refusal is not None and ticket.outcome.refusal.code == "unavailable"

    run(scenario)


def test_a_dispatcher_that_says_what_it_should_not_is_cut_off(run: Run) -> None:
    async def scenario(side: Side) -> None:
        await side.dispatcher()
        await side.say(Submit(1, 2, 3))
        assert side.cut == [("dispatcher", 0)]

    run(scenario)
