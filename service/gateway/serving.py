"""One request being served, whichever protocol it came by.

Options to model and level; admission, before the images are read; the images; their outcomes; one log line and the
metrics. What a protocol adds is how it reads a request and how it writes an answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import msgspec

from service import log
from service.config import Config
from service.core.drain import Drain
from service.core.levels import Choice, Level
from service.core.queue import PRIORITIES
from service.core.versions import Policy
from service.dispatcher.catalogue import Catalogue, Entry
from service.dispatcher.repository import Row
from service.dispatcher.statistics import Statistics
from service.dispatcher.tickets import Ask, Image, Outcome, Ticket
from service.errors import Refusal
from service.gateway import answers, body, schemas
from service.gateway.auth import Guard
from service.metrics import Metrics
from service.wire.messages.results import Options

Speech = Literal["http", "grpc", "kserve-http", "kserve-grpc"]
State = Literal["starting", "ready", "unavailable", "draining"]
NO_TASK = "none"
"""The task of a request that names its model, until that is found."""


class Listener(Protocol):
    """Who is told of every request once it is over."""

    def finished(self, serving: Serving, outcomes: Sequence[Outcome], refusal: Refusal | None, seconds: float) -> None:
        """It took `seconds`; `refusal` is what it was refused with as a whole. Must not raise or wait."""


class Tracer(Protocol):
    """A listener that gives every request its place in a trace."""

    def finished(self, serving: Serving, outcomes: Sequence[Outcome], refusal: Refusal | None, seconds: float) -> str:
        """As a listener's; answers that place, as a W3C `traceparent`."""


class Desk(Protocol):
    """Where images are handed in: the engine, or what stands for it where that is in another process."""

    clock: Callable[[], float]
    statistics: Statistics
    """Of what was answered here."""

    @property
    def in_flight(self) -> int:
        """Images handed in and not yet answered."""

    def ready(self) -> bool:
        """Requests can be answered now."""

    def admit(self, ask: Ask) -> Ticket:
        """Ask for one image to be taken in. Raises Refusal."""

    def submit(self, ticket: Ticket, body: Image) -> None:
        """Hand in its body."""

    def cancel(self, ticket: Ticket) -> None:
        """Nobody waits for it any more."""


class Ledger(Protocol):
    """All that is counted, by all gateways."""

    async def scrape(self) -> bytes:
        """All metrics in the Prometheus text format. Raises Refusal."""

    async def statistics(self) -> Statistics:
        """What was inferred. Raises Refusal."""


class Models(Protocol):
    """The models, as an operator sees and changes them. Everything raises Refusal."""

    def permit(self) -> None:
        """Refuse where calls may change nothing."""

    async def index(self) -> list[Row]:
        """Every version that is served, on its way in or out, or on disk."""

    async def policy(self, name: str) -> Policy:
        """What is to be served of a model."""

    async def reload(self) -> list[Row]:
        """Look at the disk again and serve what is wanted of it."""

    async def load(self, name: str) -> None:
        """Have this model served as it is on disk now."""

    async def unload(self, name: str) -> None:
        """Serve this model no more."""

    async def choose(self, name: str, policy: Policy) -> None:
        """Serve other versions of a model, or share its requests among them differently."""


@dataclass(slots=True)
class Gateway:
    """What requests are served with; lives in the application's state."""

    config: Config
    catalogue: Catalogue
    engine: Desk
    metrics: Metrics
    budget: body.Budget
    ledger: Ledger
    repository: Models
    guard: Guard
    triton: Listener | None
    """Counts for the metrics under Triton's names, where they are wanted."""
    tracer: Tracer | None = None
    drain: Drain = field(default_factory=Drain)

    def leaving(self) -> bool:
        """The service is shutting down."""
        return self.drain.phase(self.engine.clock()) != "serving"

    def closed(self) -> bool:
        """The service is shutting down and takes nothing more."""
        return self.drain.phase(self.engine.clock()) == "closed"

    def state(self) -> State:
        """Whether a request would be answered now, and if not, why."""
        if self.leaving():
            return "draining"
        if not self.catalogue.complete():
            return "starting"
        return "ready" if self.engine.ready() else "unavailable"


class Serving:
    """One request under way. However it ends, it is counted once and no ticket is left behind: whoever makes one calls
    `answered` or `refused` in the end."""

    __slots__ = (
        "_ask",
        "_gateway",
        "_held",
        "_outside",
        "_then",
        "_tickets",
        "asked",
        "client",
        "decided",
        "entry",
        "explain",
        "level",
        "protocol",
        "request_id",
        "sizes",
        "started",
        "task",
        "trace",
        "traceparent",
        "unanswered",
        "undecided",
        "waiting",
    )

    def __init__(self, gateway: Gateway, task: str, protocol: Speech, request_id: str, client: str = "") -> None:
        self._gateway = gateway
        self._ask: Ask | None = None
        self._held: Entry | None = None
        self._tickets: list[Ticket] = []
        self._then: Callable[[list[Outcome]], None] | None = None
        self._outside: Refusal | None = None
        """Why an image was not admitted, if that became known later."""
        self.undecided = 0
        """Images that may yet be refused admission."""
        self.decided: Callable[[Refusal | None], None] | None = None
        """Told once none is, or one was."""
        self.task = task
        self.protocol = protocol
        self.request_id = request_id
        self.client = client
        self.traceparent: str | None = None
        """What the client sent of the trace it is in (W3C)."""
        self.trace = ""
        """The request's own place in its trace, once it is over and if there is a tracer (W3C)."""
        self.started = gateway.engine.clock()
        self.asked = "none"
        """The level asked for, as metrics have it."""
        self.explain = False
        """The answer tells about its batch."""
        self.entry: Entry | None = None
        self.level: Level | Choice | None = None
        self.sizes: list[int] = []
        self.waiting = 0
        """Images handed in and not answered."""
        self.unanswered = True
        """Neither answered nor refused."""

    @property
    def ask(self) -> Ask:
        """What was understood."""
        if self._ask is None:
            raise RuntimeError("nothing was understood")
        return self._ask

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return max(0.0, self.ask.deadline - self._gateway.engine.clock())

    def understand(
        self,
        options: schemas.CommonOptions,
        of_result: Options,
        within: float | None = None,
        entry: Entry | None = None,
    ) -> None:
        """Choose model and level and fix the deadline. `within` is how many seconds the protocol itself leaves, for
        those that say; then the default does not hold. `entry` is the model where the protocol has chosen it. Raises
        Refusal."""
        limits = self._gateway.config.limits
        catalogue = self._gateway.catalogue
        if entry is None:
            entry = catalogue.pick(options.model, self.task, options.version)
        catalogue.use(entry)
        level = entry.level(options.level, options.min_level)
        if options.explain == "tokens" and not entry.explains:
            raise Refusal("bad_option", "explain=tokens: this model merges no tokens")
        if not entry.explains:
            of_result = msgspec.structs.replace(of_result, explain=None)
        self.level, self.asked = level, entry.asked_label(options.level)
        self.hold(entry)
        self.explain = options.explain in ("batch", "all")
        seconds = limits.default_timeout_ms / 1000 if within is None else within
        if options.timeout_ms is not None:
            seconds = options.timeout_ms / 1000 if within is None else min(options.timeout_ms / 1000, within)
        deadline = self.started + min(seconds, limits.max_timeout_ms / 1000)
        self._ask = Ask(entry, level, deadline, PRIORITIES[options.priority], of_result, self.client)

    def hold(self, entry: Entry) -> None:
        """This version is meant: it is not unloaded before the request has ended."""
        if self._held is not None:
            self._held.users -= 1
        entry.users += 1
        self.entry = self._held = entry

    def admit(self, images: int = 1) -> None:
        """Take in as many images, before they are read; while some are `undecided`, that is known later. Raises
        Refusal."""
        for _ in range(images):
            ticket = self._gateway.engine.admit(self.ask)
            self._tickets.append(ticket)
            if ticket.pending:
                ticket.verdict = self._verdict
                self.undecided += 1

    def submit(self, images: Sequence[Image], then: Callable[[list[Outcome]], None]) -> None:
        """Hand in all images, at least one; those not admitted yet are. `then` is called with their outcomes, unless
        the request has ended before. Raises Refusal."""
        self.sizes = [len(image) for image in images]
        if self._outside is not None:
            raise self._outside
        self.admit(len(images) - len(self._tickets))
        self._then = then
        self.waiting = len(images)
        for ticket, image in zip(self._tickets, images, strict=True):
            self._gateway.engine.submit(ticket, image)
        for ticket in self._tickets:
            ticket.done.add_done_callback(self._done)

    def cancel(self) -> None:
        """Drop what is not answered yet; nothing happens to what is. The engine answers what it had."""
        for ticket in self._tickets:
            if not ticket.done.done():
                self._gateway.engine.cancel(ticket)

    def answered(self, outcomes: Sequence[Outcome]) -> float:
        """The request has its answer: write its log line, count it. Seconds since it began."""
        self._end()
        model = self.ask.entry.manifest.name
        metrics = self._gateway.metrics
        for outcome in outcomes:
            if outcome.refusal is None and outcome.level is not None:
                label = outcome.level.label
                metrics.stages(model, label, outcome.decode, outcome.queue, outcome.infer, outcome.post)
                metrics.served(model, label, self.asked)
            elif outcome.refusal is not None:
                metrics.refused(outcome.refusal.code)
        return self._finish(200, "ok", None, outcomes)

    def refused(self, refusal: Refusal, outcomes: Sequence[Outcome] = ()) -> bool:
        """The request ends without an answer; false if it had ended before. What is under way is dropped."""
        if not self.unanswered:
            return False
        self._end()
        self._gateway.metrics.refused(refusal.code)
        self._finish(refusal.status, refusal.code, refusal, outcomes)
        return True

    # -- inside ------------------------------------------------------------------------------------------------

    def _done(self, done: asyncio.Future[None]) -> None:
        """One image is answered."""
        self.waiting -= 1
        if not self.waiting and self.unanswered and self._then is not None:
            self._then([ticket.outcome for ticket in self._tickets])

    def _verdict(self, refusal: Refusal | None) -> None:
        """It is known of one image more whether it is admitted. If one is not, the request is refused as a whole."""
        self.undecided -= 1
        if refusal is not None and self._outside is None:
            self._outside = refusal
            then, self._then = self._then, None
            if then is not None and self.unanswered:
                then([Outcome(refusal=refusal)])
        if self.decided is not None and (refusal is not None or not self.undecided):
            self.decided(refusal)

    def _end(self) -> None:
        self.unanswered = False
        self.cancel()

    def _finish(self, status: int, outcome: str, refusal: Refusal | None, outcomes: Sequence[Outcome]) -> float:
        """Count it, and write its log line."""
        seconds = self._gateway.engine.clock() - self.started
        level = next((one.level for one in outcomes if one.level), self.level)
        model = self.entry.manifest.name if self.entry else "none"
        if self._held is not None:
            self._held.answered += outcome == "ok"
            self._held.refused += outcome != "ok"
            self._held.users -= 1
            self._held = None
        self._gateway.metrics.request(self.task, model, level.label if level else "none", outcome, seconds)
        fields: dict[str, Any] = {"level": level.spelled if level else "none"}
        if self.entry is not None:
            fields["version"] = self.entry.manifest.version
        if isinstance(level, Level):
            fields |= {"tokens": level.tokens, "gmacs": level.gmacs}
        if outcomes:
            fields |= answers.course(outcomes[0])
        if self._gateway.tracer is not None:
            self.trace = self._gateway.tracer.finished(self, outcomes, refusal, seconds)
            fields["trace_id"] = self.trace[3:35]
        log.event(
            "request",
            request_id=self.request_id,
            protocol=self.protocol,
            client=self.client,
            task=self.task,
            model=model,
            status=status,
            outcome=outcome,
            images=len(self.sizes),
            bytes=sum(self.sizes),
            total_ms=answers.milliseconds(seconds),
            **fields,
        )
        if self.entry is not None:
            version, statistics = self.entry.manifest.version, self._gateway.engine.statistics
            if refusal is None:
                statistics.answered(model, version, outcomes, seconds)
            else:
                statistics.refused(model, version, seconds)
        if self._gateway.triton is not None:
            self._gateway.triton.finished(self, outcomes, refusal, seconds)
        return seconds
