"""`/predictions/NAME`, where TorchServe's clients send an image: by name of the model, answered as by its task."""

from __future__ import annotations

import asyncio

import msgspec
from fastapi import FastAPI, Request, Response

from service.errors import Refusal
from service.gateway import answers, body, schemas
from service.gateway.engine import Outcome
from service.gateway.kserve import infer, rest
from service.gateway.serving import Gateway, Serving

_encoder = msgspec.json.Encoder()


def add_to(app: FastAPI) -> None:
    """Have the application serve them."""
    for path in ("/predictions/{model}", "/predictions/{model}/{version}"):
        # curl -T sends a file with PUT.
        app.add_route(path, _predict, methods=["POST", "PUT"], include_in_schema=False)


async def _predict(request: Request) -> Response:
    gateway: Gateway = request.app.state.gateway
    entry = infer.chosen(gateway, request.path_params["model"], request.path_params.get("version", ""))
    with rest.begun(gateway, request, entry, "http") as (serving, share):
        try:
            options, of_result = schemas.options(serving.task, request.url.query.encode(), request.headers.raw)
            serving.understand(options, of_result, entry=entry)
            return _answer(serving, await _outcomes(gateway, request, serving, share))
        except Refusal as refusal:
            serving.refused(refusal)
            return answers.error(refusal, serving.request_id)


async def _outcomes(gateway: Gateway, request: Request, serving: Serving, share: body.Share) -> list[Outcome]:
    """Read the images and have them answered. Raises Refusal."""
    limits = gateway.config.limits
    body.check_head(request.headers.get("content-length"), request.headers.get("content-encoding"), limits)
    serving.admit()
    upload = body.Upload(request.headers.get("content-type"), limits, share)
    await rest.receive(request, limits, upload.add)
    if upload.slow:
        images = await asyncio.get_running_loop().run_in_executor(None, upload.images)
    else:
        images = upload.images()
    outcomes = await rest.waiting(request)(serving, images)
    if len(outcomes) == 1 and outcomes[0].refusal is not None:
        serving.refused(outcomes[0].refusal, outcomes)
        raise outcomes[0].refusal
    return outcomes


def _answer(serving: Serving, outcomes: list[Outcome]) -> Response:
    seconds = serving.answered(outcomes)
    entry = serving.ask.entry
    given = [
        answers.answer(serving.request_id, entry.manifest, entry.backend, one, seconds, serving.explain)
        for one in outcomes
    ]
    headers = {
        "X-Request-Id": serving.request_id,
        "X-Squint-Level": (outcomes[0].level or serving.ask.level).spelled,
        "Server-Timing": answers.server_timing(outcomes[0], seconds).decode("ascii"),
        **({"traceparent": serving.trace} if serving.trace else {}),
    }
    content = _encoder.encode(given[0] if len(given) == 1 else given)
    return Response(content, headers=headers, media_type="application/json")
