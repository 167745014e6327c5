"""One inference of the protocol, in whichever form it came: parameters to options, images to output tensors.

Every image of a request is answered or none: tensors have no place for one image's error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import msgspec

from service.core.levels import Level
from service.dispatcher.catalogue import Entry, Served
from service.dispatcher.tickets import Image, Outcome
from service.errors import Refusal
from service.gateway import answers, schemas
from service.gateway.kserve import metadata, outputs
from service.gateway.kserve.outputs import RAW, Results, Wanted
from service.gateway.kserve.tensors import Output
from service.gateway.serving import Gateway, Serving
from service.wire.messages.results import Options, Result

Value = bool | int | float | str | None
Parameters = Mapping[str, Value]

_RESERVED = {"sequence_id", "sequence_start", "sequence_end", "headers", "binary_data_output", "priority", "timeout"}
_OF_TRITON = "triton_"
_DEFAULTS = {"segment": {"mask": "png"}}
"""Options whose default differs from that of REST: a tensor holds a file as well as a text."""
_KEPT_LETTERS = 500
"""Options longer than this are a stranger's, and not kept."""
_encoder = msgspec.json.Encoder()


class Asked(msgspec.Struct, frozen=True):
    """What a request wants, whichever form it came in."""

    images: Sequence[Image]
    parameters: Parameters = {}
    outputs: Sequence[Wanted] = ()


class Plan(msgspec.Struct, frozen=True):
    """What was made of it: the outputs to answer, and the option top_k."""

    outputs: list[Wanted]
    top_k: int


class Answer(msgspec.Struct, frozen=True):
    """What it gets."""

    model: str
    version: str
    parameters: dict[str, str]
    outputs: list[Output]


def find(gateway: Gateway, name: str, version: str = "") -> Entry:
    """The model that a question is about: this version of it, or without one that which requests get as a rule. Raises
    Refusal `unknown_model` or `unknown_version`."""
    served = _served(gateway, name)
    return served.take(version) if version else served.stable


def choose(gateway: Gateway, serving: Serving, name: str, version: str = "") -> Entry:
    """The model that a request names, which may be its canary; `serving` holds it from here on. Raises as `find`
    does."""
    entry = _served(gateway, name).take(version or None)
    serving.task = entry.manifest.task
    serving.hold(entry)
    return entry


def _served(gateway: Gateway, name: str) -> Served:
    served = gateway.catalogue.models.get(name)
    if served is None:
        raise Refusal("unknown_model", "no model of that name; see /v2/models")
    return served


def begin(serving: Serving, asked: Asked, options: Mapping[str, str], within: float | None = None) -> Plan:
    """Have `serving`, whose model was chosen, know the options. `options` are those that came beside the parameters,
    which win over them. Raises Refusal."""
    entry = _entry(serving)
    manifest = entry.manifest
    wanted = outputs.check(asked.outputs, metadata.specs(entry), manifest.task)
    for name in ("model", "version"):
        if name in options or name in asked.parameters:
            raise Refusal("bad_option", f"the {name} is said by the request itself, not by an option")
    given = {**_DEFAULTS.get(manifest.task, {}), **options, **_options(asked.parameters)}
    parsed, of_result = _parsed(manifest.task, given)
    classes = max(one.classes for one in wanted)
    serving.understand(
        parsed,
        msgspec.structs.replace(
            of_result,
            top_k=max(of_result.top_k, classes),
            raw=tuple(one.name.removeprefix(RAW) for one in wanted if one.name.startswith(RAW)),
        ),
        _least(within, _timeout(asked.parameters)),
        entry,
    )
    return Plan(wanted, of_result.top_k)


def answer(gateway: Gateway, serving: Serving, plan: Plan, outcomes: Sequence[Outcome]) -> Answer:
    """The output tensors that what became of the images makes. Raises Refusal, that of the first image that was
    refused."""
    _check(outcomes)
    entry = _entry(serving)
    answered = _results(gateway, serving, entry, outcomes, plan.top_k)
    tensors = [outputs.tensor(one, answered) for one in plan.outputs]
    levels = dict.fromkeys(_level(outcome, serving).spelled for outcome in outcomes)
    parameters = {"level": ",".join(levels), "backend": entry.backend}
    return Answer(entry.manifest.name, entry.manifest.version, parameters, tensors)


def _entry(serving: Serving) -> Entry:
    if serving.entry is None:
        raise RuntimeError("no model was chosen")
    return serving.entry


def _parsed(task: str, given: Mapping[str, str]) -> tuple[schemas.CommonOptions, Options]:
    """Options as they were validated, those of the same request as before without doing it again. Raises Refusal."""
    pairs = tuple(given.items())
    short = sum(len(name) + len(value) for name, value in pairs) <= _KEPT_LETTERS
    return _cached(task, pairs) if short else _cached.__wrapped__(task, pairs)


@lru_cache(1024)
def _cached(task: str, pairs: tuple[tuple[str, str], ...]) -> tuple[schemas.CommonOptions, Options]:
    parsed = schemas.parse_options(task, dict(pairs))
    return parsed, schemas.of_result(parsed)


def _options(parameters: Parameters) -> dict[str, str]:
    """Our options among a request's parameters. Raises Refusal."""
    given = {}
    for name, value in parameters.items():
        if name not in _RESERVED and not name.startswith(_OF_TRITON) and value is not None:
            given[name] = str(value).lower() if isinstance(value, bool) else str(value)
    priority = parameters.get("priority")
    if isinstance(priority, str):
        given["priority"] = priority
    elif priority:
        if not isinstance(priority, int) or priority < 0:
            raise Refusal("bad_option", "priority must be a whole number, 1 the highest, or a word")
        given["priority"] = metadata.PRIORITIES[min(priority, len(metadata.PRIORITIES))]
    return given


def _timeout(parameters: Parameters) -> float | None:
    """Seconds that a request's parameter `timeout`, in microseconds, leaves; 0 is as good as none. Raises Refusal."""
    timeout = parameters.get("timeout")
    if timeout is None or timeout == 0:
        return None
    # Written so that what is no number, which compares false, is refused as well.
    if isinstance(timeout, bool | str) or not timeout > 0:
        raise Refusal("bad_option", "timeout must be a number of microseconds")
    return timeout / 1e6


def _least(*seconds: float | None) -> float | None:
    return min((one for one in seconds if one is not None), default=None)


def _check(outcomes: Sequence[Outcome]) -> None:
    """Raise the first image's refusal, if any was refused."""
    for number, outcome in enumerate(outcomes):
        if outcome.refusal is not None:
            refusal = outcome.refusal
            where = f"image {number}: " if len(outcomes) > 1 else ""
            raise Refusal(refusal.code, where + refusal.message, refusal.retry_after)


def _level(outcome: Outcome, serving: Serving) -> Level:
    if outcome.level is None:
        raise RuntimeError(f"an answer without a level, request {serving.request_id}")
    return outcome.level


def _results(gateway: Gateway, serving: Serving, entry: Entry, outcomes: Sequence[Outcome], top_k: int) -> Results:
    """What the tensors are made of."""
    manifest = entry.manifest
    backend = entry.backend

    def described(number: int) -> bytes:
        seconds = gateway.engine.clock() - serving.started
        return _encoder.encode(
            answers.answer(serving.request_id, manifest, backend, outcomes[number], seconds, serving.explain)
        )

    return Results(
        manifest.labels,
        [_result(outcome) for outcome in outcomes],
        [outcome.raw for outcome in outcomes],
        top_k,
        described,
    )


def _result(outcome: Outcome) -> Result:
    if outcome.result is None:
        raise Refusal("internal", "the result was lost")
    return outcome.result
