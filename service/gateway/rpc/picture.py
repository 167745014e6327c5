"""One image under way that came by gRPC: from its message to its typed answer, or its refusal."""

from __future__ import annotations

import asyncio

from service import log
from service.dispatcher.tickets import Outcome
from service.errors import Refusal, bug
from service.gateway.rpc import typed
from service.gateway.rpc.caller import Caller
from service.gateway.serving import Gateway, Serving

_NEAR_SECONDS, _NEAR_SHARE = 0.01, 0.02
"""A client whose deadline has passed gives up by its own clock. That is a little before the service sees it pass, since
a deadline is rounded up on its way: by so many seconds, or this share of it."""


class Picture:
    """See the module. `done` becomes the answer or the refusal, unless `drop` comes first. However it ends, it is
    counted and logged once, and holds nothing any more."""

    __slots__ = ("_gateway", "_share", "_within", "done", "request_id", "serving")

    def __init__(
        self, gateway: Gateway, task: str, request: typed.Request, by: Caller, request_id: str, within: float | None
    ) -> None:
        self._gateway = gateway
        self._within = within
        self._share = gateway.budget.share()
        self.request_id = request_id
        self.done: asyncio.Future[typed.Response | Refusal] = asyncio.get_running_loop().create_future()
        self.serving = Serving(gateway, task, "grpc", request_id, by.client)
        self.serving.traceparent = by.traceparent
        try:
            self._begin(task, request)
        except Exception as error:
            self._fail(error)

    def _begin(self, task: str, request: typed.Request) -> None:
        limit = self._gateway.config.limits.body_bytes
        self.serving.understand(*typed.options(task, request), self._within)
        image = request.image
        if len(image) > limit:
            raise Refusal("body_too_large", f"an image is limited to {limit} bytes")
        self._share.cover(len(image))
        self.serving.submit([image], self._outcome)

    def _outcome(self, outcomes: list[Outcome]) -> None:
        """It is answered."""
        (outcome,) = outcomes
        if outcome.refusal is not None:
            self._refuse(outcome.refusal, outcomes)
            return
        try:
            seconds = self.serving.answered(outcomes)
            self._end(typed.answer(self.serving, outcome, seconds))
        except Exception as error:
            self._fail(error)

    def drop(self) -> None:
        """Nobody waits for it any more: the call was cancelled, or its deadline has passed."""
        if self.serving.unanswered:
            self.serving.refused(gone(self.serving, self._within))
            self._share.release()
        self.done.cancel()

    def _refuse(self, refusal: Refusal, outcomes: list[Outcome]) -> None:
        self.serving.refused(refusal, outcomes)
        self._end(refusal)

    def _fail(self, error: Exception) -> None:
        """A refusal, or a bug of ours: the operator gets the trace, the client only a code."""
        if isinstance(error, Refusal):
            self._refuse(error, [])
            return
        log.event("bug", severity="error", request_id=self.request_id, trace=log.frames(error))
        self._refuse(bug(), [])

    def _end(self, how: typed.Response | Refusal) -> None:
        self._share.release()
        if not self.done.done():
            self.done.set_result(how)


def gone(serving: Serving, within: float | None) -> Refusal:
    """Why a call has ended that had `within` seconds (None: any time) and has no answer yet."""
    if within is not None and serving.left <= max(_NEAR_SECONDS, _NEAR_SHARE * within):
        return Refusal("deadline_exceeded", "not answered before the deadline")
    return Refusal("client_closed_request", "the client cancelled the call")
