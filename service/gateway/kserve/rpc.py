"""The protocol over gRPC: the service `inference.GRPCInferenceService`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import grpc
from google.protobuf import json_format

from service.config import Limits
from service.dispatcher.tickets import Image, Outcome
from service.errors import Refusal
from service.gateway.kserve import infer, message, metadata, repository, tensors
from service.gateway.kserve.outputs import Wanted
from service.gateway.kserve.tensors import BYTES, INPUT
from service.gateway.rpc import caller, status
from service.gateway.rpc.entrance import Context, Entrance, Handler, Inbox
from service.gateway.rpc.picture import gone
from service.gateway.serving import NO_TASK, Gateway, Serving
from service.proto.inference import inference_pb2 as pb

NAME: str = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name

IDLE_SECONDS = 300.0
"""A stream on which no request comes for so long is ended: it holds a place that others may need."""
_FIELDS = {"UINT8": "uint_contents", "FP32": "fp32_contents"}
_MAX_ID = 256
_ID_LETTERS = 48
"""Of the call's request id, which the ids of a stream's requests begin with."""
_WANTS_END, _END = "triton_enable_empty_final_response", "triton_final_response"


class Inference:
    """The methods."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def register(self, entrance: Entrance) -> None:
        """Add the service."""
        asked: dict[str, tuple[Any, Callable[[Any], Awaitable[Any]]]] = {
            "ServerLive": (pb.ServerLiveRequest, self._live),
            "ServerReady": (pb.ServerReadyRequest, self._ready),
            "ModelReady": (pb.ModelReadyRequest, self._model_ready),
            "ServerMetadata": (pb.ServerMetadataRequest, self._server),
            "ModelMetadata": (pb.ModelMetadataRequest, self._model),
            "ModelConfig": (pb.ModelConfigRequest, self._config),
            "ModelStatistics": (pb.ModelStatisticsRequest, self._statistics),
            "RepositoryIndex": (pb.RepositoryIndexRequest, self._index),
            "RepositoryModelLoad": (pb.RepositoryModelLoadRequest, self._load),
            "RepositoryModelUnload": (pb.RepositoryModelUnloadRequest, self._unload),
        }
        methods: dict[str, Handler] = {name: _question(*of) for name, of in asked.items()}
        methods["ModelInfer"] = grpc.unary_unary_rpc_method_handler(
            self._infer, pb.ModelInferRequest.FromString, pb.ModelInferResponse.SerializeToString
        )
        methods["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
            self._stream, pb.ModelInferRequest.FromString, pb.ModelStreamInferResponse.SerializeToString
        )
        entrance.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(NAME, methods)])

    # -- questions ---------------------------------------------------------------------------------------------

    async def _live(self, request: pb.ServerLiveRequest) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def _ready(self, request: pb.ServerReadyRequest) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._gateway.state() == "ready")

    async def _model_ready(self, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        entry = infer.find(self._gateway, request.name, request.version)
        return pb.ModelReadyResponse(ready=metadata.ready(self._gateway, entry))

    async def _server(self, request: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:
        return _parsed(metadata.server(), pb.ServerMetadataResponse())

    async def _model(self, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        entry = infer.find(self._gateway, request.name, request.version)
        return _parsed(metadata.model(self._gateway, entry), pb.ModelMetadataResponse())

    async def _config(self, request: pb.ModelConfigRequest) -> pb.ModelConfigResponse:
        entry = infer.find(self._gateway, request.name, request.version)
        return pb.ModelConfigResponse(config=_parsed(metadata.config(self._gateway, entry), pb.ModelConfig()))

    async def _statistics(self, request: pb.ModelStatisticsRequest) -> pb.ModelStatisticsResponse:
        gateway = self._gateway
        answer = pb.ModelStatisticsResponse()
        counted = await gateway.ledger.statistics()
        for entry in metadata.asked(gateway, request.name, request.version):
            _parsed(metadata.statistics(counted, entry), answer.model_stats.add())
        return answer

    async def _index(self, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
        models = await repository.index(self._gateway, ready_only=request.ready)
        return pb.RepositoryIndexResponse(models=[pb.RepositoryIndexResponse.ModelIndex(**one) for one in models])

    async def _load(self, request: pb.RepositoryModelLoadRequest) -> pb.RepositoryModelLoadResponse:
        await repository.load(self._gateway, request.model_name, bool(request.parameters))
        return pb.RepositoryModelLoadResponse()

    async def _unload(self, request: pb.RepositoryModelUnloadRequest) -> pb.RepositoryModelUnloadResponse:
        await repository.unload(self._gateway, request.model_name)
        return pb.RepositoryModelUnloadResponse()

    # -- inference ---------------------------------------------------------------------------------------------

    async def _infer(self, request: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:
        by = caller.current()
        how, trace = await self._one(request, by, by.request_id, context.time_remaining())
        if isinstance(how, Refusal):
            await status.abort(context, how, by.request_id, trace)
        status.tell_trace(context, trace)
        return how

    async def _one(
        self, request: pb.ModelInferRequest, by: caller.Caller, request_id: str, within: float | None
    ) -> tuple[pb.ModelInferResponse | Refusal, str]:
        """One inference, and its place in its trace. A refusal is counted here, and so is not raised."""
        gateway = self._gateway
        serving = Serving(gateway, NO_TASK, "kserve-grpc", request_id, by.client)
        serving.traceparent = by.traceparent
        share = gateway.budget.share()
        outcomes: list[Outcome] = []
        try:
            infer.choose(gateway, serving, request.model_name, request.model_version)
            share.cover(sum(map(len, request.raw_input_contents)) or request.ByteSize())
            asked = _asked(request, gateway.config.limits)
            plan = infer.begin(serving, asked, {}, within)
            outcomes = await _outcomes(serving, asked.images, within)
            answer = infer.answer(gateway, serving, plan, outcomes)
            serving.answered(outcomes)
            return _written(answer, request), serving.trace
        except Refusal as refusal:
            serving.refused(refusal, outcomes)
            return refusal, serving.trace
        except Exception:
            serving.refused(Refusal("internal", "an internal error"), outcomes)
            raise
        finally:
            share.release()

    async def _stream(self, inbox: Inbox, context: Context) -> None:
        """Answers in the order of the requests, of which some are under way at a time."""
        by = caller.current()
        room = asyncio.Semaphore(self._gateway.config.limits.stream_frames)
        taken: asyncio.Queue[asyncio.Task[pb.ModelStreamInferResponse] | None] = asyncio.Queue()

        async def read() -> None:
            number = 0
            try:
                while True:
                    await room.acquire()
                    request = await self._next(inbox)
                    if request is None:
                        return
                    number += 1
                    given = f"{by.request_id[:_ID_LETTERS]}-{number}"
                    answering = asyncio.ensure_future(self._answer(request, by, given, context.time_remaining()))
                    under_way.add(answering)
                    answering.add_done_callback(under_way.discard)
                    taken.put_nowait(answering)
            finally:
                taken.put_nowait(None)

        under_way: set[asyncio.Task[pb.ModelStreamInferResponse]] = set()
        reading = asyncio.ensure_future(read())
        try:
            while (answering := await taken.get()) is not None:
                await context.write(await answering)
                room.release()
            await reading
        finally:
            reading.cancel()
            for left in under_way:
                left.cancel()

    async def _next(self, inbox: Inbox) -> pb.ModelInferRequest | Refusal | None:
        """The next request of a stream, or why it cannot be read; None at the end."""
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                request: pb.ModelInferRequest = await anext(inbox)
                return request
        except StopAsyncIteration:
            return None
        except TimeoutError:
            raise Refusal("deadline_exceeded", f"no request came for {IDLE_SECONDS:g} seconds") from None
        except Refusal as refusal:
            self._gateway.metrics.refused(refusal.code)
            return refusal

    async def _answer(
        self, request: pb.ModelInferRequest | Refusal, by: caller.Caller, request_id: str, within: float | None
    ) -> pb.ModelStreamInferResponse:
        if isinstance(request, Refusal):
            return pb.ModelStreamInferResponse(error_message=request.message)
        how, _ = await self._one(request, by, request_id, within)
        if isinstance(how, Refusal):
            error = pb.ModelStreamInferResponse(error_message=how.message)
            error.infer_response.id = request.id
            error.infer_response.parameters["code"].string_param = how.code
            return error
        if _WANTS_END in request.parameters and request.parameters[_WANTS_END].bool_param:
            how.parameters[_END].bool_param = True
        return pb.ModelStreamInferResponse(infer_response=how)


_Message = TypeVar("_Message", pb.ServerMetadataResponse, pb.ModelMetadataResponse, pb.ModelConfig, pb.ModelStatistics)


def _parsed(told: dict[str, Any], message: _Message) -> _Message:
    """The message filled with what it has a field for; the structure may tell more."""
    json_format.ParseDict(told, message, ignore_unknown_fields=True)
    return message


async def _outcomes(serving: Serving, images: Sequence[Image], within: float | None) -> list[Outcome]:
    """Hand in the images and wait; when the call ends meanwhile, they are dropped wherever they are. Raises Refusal."""
    finished: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
    serving.submit(images, finished.set_result)
    try:
        return await finished
    except asyncio.CancelledError:
        serving.refused(gone(serving, within))
        raise


def _question(takes: Any, answer: Callable[[Any], Awaitable[Any]]) -> Handler:
    """A method that only looks something up."""

    async def method(request: Any, context: Context) -> Any:
        return await answer(request)

    return grpc.unary_unary_rpc_method_handler(method, takes.FromString, lambda message: message.SerializeToString())


def _asked(request: pb.ModelInferRequest, limits: Limits) -> infer.Asked:
    """The request in the form that both protocols share. Raises Refusal."""
    if len(request.id) > _MAX_ID:
        raise Refusal("bad_request", f"an id has at most {_MAX_ID} characters")
    if len(request.inputs) != 1 or request.inputs[0].name != INPUT:
        raise Refusal("bad_request", f"the model has one input, {INPUT}")
    given = request.inputs[0]
    if "shared_memory_region" in given.parameters:
        raise Refusal("bad_request", "this server reads no memory of clients; send the data")
    if any(side < 0 for side in given.shape):
        raise Refusal("bad_request", "a shape has no negative numbers")
    if len(request.raw_input_contents) > 1 or (request.raw_input_contents and given.HasField("contents")):
        raise Refusal("bad_request", "the data of the one input come once: in contents, or in raw_input_contents")
    if request.raw_input_contents:
        data = memoryview(request.raw_input_contents[0])
        images = message.images(given.datatype, given.shape, data, limits)
    else:
        images = _typed(given, limits)
    return infer.Asked(images, _plain(request.parameters), [_wanted(output) for output in request.outputs])


def _typed(given: pb.ModelInferRequest.InferInputTensor, limits: Limits) -> list[Image]:
    """The images of an input whose elements are typed."""
    if given.datatype == BYTES:
        return tensors.images_of_bytes(given.shape, given.contents.bytes_contents, limits)
    if given.datatype not in _FIELDS:
        raise Refusal("bad_request", f"{INPUT} is BYTES, UINT8 or FP32")
    return tensors.images_of_typed(
        given.datatype, given.shape, getattr(given.contents, _FIELDS[given.datatype]), limits
    )


def _wanted(output: pb.ModelInferRequest.InferRequestedOutputTensor) -> Wanted:
    parameters = _plain(output.parameters)
    if "shared_memory_region" in parameters:
        raise Refusal("bad_request", "this server writes to no memory of clients")
    return Wanted(output.name, message.classes(parameters.get("classification")))


def _plain(parameters: Mapping[str, pb.InferParameter]) -> dict[str, infer.Value]:
    """Parameters as values. Raises Refusal."""
    if len(parameters) > message.MAX_PARAMETERS:
        raise Refusal("bad_request", f"at most {message.MAX_PARAMETERS} parameters")
    plain: dict[str, infer.Value] = {}
    for name, parameter in parameters.items():
        choice = parameter.WhichOneof("parameter_choice")
        value = getattr(parameter, choice) if choice else None
        if isinstance(value, str) and len(value) > message.MAX_TEXT:
            raise Refusal("bad_request", f"the text of a parameter has at most {message.MAX_TEXT} characters")
        plain[name] = value
    return plain


def _written(answer: infer.Answer, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
    written = pb.ModelInferResponse(model_name=answer.model, model_version=answer.version, id=request.id)
    for name, value in answer.parameters.items():
        written.parameters[name].string_param = value
    for output in answer.outputs:
        written.outputs.add(name=output.name, datatype=output.datatype, shape=output.shape)
        written.raw_output_contents.append(tensors.binary(output))
    return written
