"""What gateways that are processes of their own ask, and the answers: about the models, and all that is counted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from service import log
from service.core.versions import Policy
from service.dispatcher.counting import Counting
from service.dispatcher.repository import Repository
from service.errors import Refusal
from service.wire.messages.gateway import Question, Reply

_encode = msgspec.msgpack.Encoder().encode


class Questions:
    """`gather` has all gateways say what they have counted, `settle` serve what is served now: whoever is told that a
    model was changed finds it changed, whichever gateway answers."""

    def __init__(
        self,
        repository: Repository,
        counting: Counting,
        gather: Callable[[], Awaitable[None]],
        settle: Callable[[], Awaitable[None]],
    ) -> None:
        self._repository = repository
        self._counting = counting
        self._gather = gather
        self._settle = settle

    async def reply(self, question: Question) -> Reply:
        """The answer; a refusal is one too."""
        try:
            return Reply(question.number, await self._answer(question))
        except Refusal as refusal:
            return Reply(question.number, b"", refusal.code, refusal.message, refusal.retry_after)
        except Exception as error:
            log.event("bug", severity="error", about=question.about, trace=log.frames(error))
            return Reply(question.number, b"", "internal", "an internal error")

    async def _answer(self, question: Question) -> bytes:
        repository, name = self._repository, question.name
        if question.about == "metrics":
            await self._gather()
            return await self._counting.scrape()
        if question.about == "statistics":
            await self._gather()
            return _encode((await self._counting.statistics()).all())
        if question.about == "policy":
            return _encode(await repository.policy(name))
        if question.about == "index":
            return _encode(await repository.index())
        if question.about == "reload":
            await repository.reload()
        elif question.about == "load":
            await repository.load(name)
        elif question.about == "unload":
            await repository.unload(name)
        elif question.about == "choose":
            await repository.choose(name, msgspec.msgpack.decode(question.data, type=Policy))
        await self._settle()
        return _encode(await repository.index())
