"""The two clients: the same calls, blocking and for asyncio. What they send and make of replies is in exchange.py, when
they ask again in retries.py; here is only the sending and the waiting."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Unpack

import httpx

from squint.client import exchange
from squint.client.errors import ClientError, Refused, Unreachable, Unreadable
from squint.client.exchange import Call, R, Reply
from squint.client.images import Encoding, ImageLike
from squint.client.model import Level, Model, Models
from squint.client.options import ClassifyOptions, DetectOptions, SegmentOptions
from squint.client.results import Classification, Detections, Segmentation
from squint.client.retries import NEVER, Budget, Course, Retries

TIMEOUT = 10.0
CONNECT = 5.0
"""A connection that takes longer to open has failed, and may be tried again."""
READY_TIMEOUT = 5.0


class _Settings:
    """What both clients are made with."""

    def __init__(
        self, url: str, api_key: str | None, timeout: float, retries: Retries | None, encoding: Encoding
    ) -> None:
        self.url = exchange.base_url(url)
        self._headers = exchange.common_headers(api_key)
        self._timeout = exchange.seconds(timeout)
        self._retries = retries or Retries()
        self._budget = Budget(self._retries)
        self._encoding: Encoding = encoding

    def _course(self, options: Mapping[str, Any]) -> Course:
        timeout = options.get("timeout")
        return Course(
            self._retries,
            self._budget,
            self._timeout if timeout is None else exchange.seconds(timeout),
            exchange.request_id(options.get("request_id")),
        )

    def _once(self, timeout: float) -> Course:
        """The course of a call that is never repeated."""
        return Course(NEVER, Budget(NEVER), timeout, exchange.request_id(None))

    def _sent(self, call: Call, course: Course) -> dict[str, str]:
        """The headers of one attempt: the service is told what is left of the time."""
        left = str(max(1, int(course.left * 1000)))
        return {**call.headers, "X-Request-Id": course.request_id, "X-Request-Timeout-Ms": left}

    def _broken(self, error: httpx.HTTPError, course: Course, began: bool) -> ClientError:
        """What became of an attempt that ended without a whole reply."""
        late = isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout)
        if late or course.left <= 0:
            return course.late()
        if began:
            return Unreadable("the connection broke in the middle of an answer", course.request_id)
        words = str(error) or type(error).__name__
        return Unreachable(f"no answer from {self.url}: {words}", course.request_id)


def _judge(outcome: Reply | ClientError, course: Course) -> Reply | ClientError:
    """A good reply, or the error that it is."""
    if isinstance(outcome, ClientError):
        return outcome
    return exchange.failure(outcome, course.request_id) or outcome


def _with(body: bytearray, part: bytes, course: Course) -> None:
    """Add to an answer, within its limit. Raises ClientError."""
    body += part
    if len(body) > exchange.MAX_ANSWER_BYTES:
        raise Unreadable(f"an answer of more than {exchange.MAX_ANSWER_BYTES} bytes", course.request_id)


class Client(_Settings):
    """Asks a service at `url`; threads may share one. Close it, or use it in a `with` statement.

    `timeout` is in seconds, for a call with all its retries; the service is told, and drops what it cannot answer in
    time. `encoding` is how Pillow's and numpy's pixels travel: `png`, which loses nothing, or `jpeg`, which is quicker
    for photos. `verify` is as in httpx (an ssl.SSLContext for a private authority or a client's certificate). Variables
    such as HTTP_PROXY are not heeded; `transport` leads elsewhere. Calls raise ClientError and its kinds, and for
    images and options that cannot be sent TypeError, ValueError or OSError.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        timeout: float = TIMEOUT,
        retries: Retries | None = None,
        encoding: Encoding = "png",
        verify: ssl.SSLContext | bool = True,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        super().__init__(url, api_key, timeout, retries, encoding)
        self._http = httpx.Client(
            base_url=self.url, headers=self._headers, verify=verify, transport=transport, trust_env=False
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def classify(self, image: ImageLike, **options: Unpack[ClassifyOptions]) -> Classification:
        """The main thing in an image: classes, best first."""
        return self._result("classify", Classification, image, options)

    def detect(self, image: ImageLike, **options: Unpack[DetectOptions]) -> Detections:
        """The things in an image and where they are, best first."""
        return self._result("detect", Detections, image, options)

    def segment(self, image: ImageLike, **options: Unpack[SegmentOptions]) -> Segmentation:
        """What every pixel of an image shows."""
        return self._result("segment", Segmentation, image, options)

    def classify_all(
        self, images: Sequence[ImageLike], **options: Unpack[ClassifyOptions]
    ) -> list[Classification | Refused]:
        """Several images in one request, answered in their order; one that is refused has its error in its place.

        How many images a request may hold is the service's to say (16, unless it was set otherwise).
        """
        return self._results("classify", Classification, images, options)

    def detect_all(self, images: Sequence[ImageLike], **options: Unpack[DetectOptions]) -> list[Detections | Refused]:
        """As `classify_all`."""
        return self._results("detect", Detections, images, options)

    def segment_all(
        self, images: Sequence[ImageLike], **options: Unpack[SegmentOptions]
    ) -> list[Segmentation | Refused]:
        """As `classify_all`."""
        return self._results("segment", Segmentation, images, options)

    def models(self) -> list[Model]:
        """All models that are served."""
        course = self._course({})
        return exchange.read(self._ask(Call("GET", "/v1/models"), course).body, Models, course.request_id).models

    def model(self, name: str) -> Model:
        """One model; raises Refused `unknown_model`."""
        course = self._course({})
        return exchange.read(self._ask(Call("GET", exchange.model_path(name)), course).body, Model, course.request_id)

    def levels(self, name: str) -> list[Level]:
        """The named levels that a model offers, best first."""
        return self.model(name).levels

    def ready(self) -> bool:
        """Whether a request would be answered now."""
        outcome = self._attempt(Call("GET", "/readyz"), self._once(min(self._timeout, READY_TIMEOUT)))
        return isinstance(outcome, Reply) and outcome.status == 200

    def _result(self, task: str, kind: type[R], image: ImageLike, options: Mapping[str, Any]) -> R:
        course = self._course(options)
        call = exchange.task_call(task, [image], options, self._encoding)
        return exchange.read(self._ask(call, course).body, kind, course.request_id)

    def _results(
        self, task: str, kind: type[R], images: Sequence[ImageLike], options: Mapping[str, Any]
    ) -> list[R | Refused]:
        course = self._course(options)
        call = exchange.task_call(task, images, options, self._encoding)
        return exchange.read_all(self._ask(call, course).body, kind, len(images), course.request_id)

    def _ask(self, call: Call, course: Course) -> Reply:
        """A good reply, at the first attempt or a later one. Raises ClientError."""
        while True:
            outcome = _judge(self._attempt(call, course), course)
            if isinstance(outcome, Reply):
                return outcome
            time.sleep(course.wait(outcome))

    def _attempt(self, call: Call, course: Course) -> Reply | ClientError:
        longest = max(0.0, course.patience)
        timeout = httpx.Timeout(longest, connect=min(longest, CONNECT))
        began = False
        try:
            with self._http.stream(
                call.method, call.path, content=call.content, headers=self._sent(call, course), timeout=timeout
            ) as response:
                began = True
                body = bytearray()
                for part in response.iter_bytes():
                    _with(body, part, course)
                    if course.patience <= 0:
                        return course.late()
                return Reply(response.status_code, response.headers, bytes(body))
        except httpx.HTTPError as error:
            return self._broken(error, course, began)


class AsyncClient(_Settings):
    """As `Client`, for asyncio. A call that is cancelled is dropped by the service too."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        timeout: float = TIMEOUT,
        retries: Retries | None = None,
        encoding: Encoding = "png",
        verify: ssl.SSLContext | bool = True,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(url, api_key, timeout, retries, encoding)
        self._http = httpx.AsyncClient(
            base_url=self.url, headers=self._headers, verify=verify, transport=transport, trust_env=False
        )

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def classify(self, image: ImageLike, **options: Unpack[ClassifyOptions]) -> Classification:
        """The main thing in an image: classes, best first."""
        return await self._result("classify", Classification, image, options)

    async def detect(self, image: ImageLike, **options: Unpack[DetectOptions]) -> Detections:
        """The things in an image and where they are, best first."""
        return await self._result("detect", Detections, image, options)

    async def segment(self, image: ImageLike, **options: Unpack[SegmentOptions]) -> Segmentation:
        """What every pixel of an image shows."""
        return await self._result("segment", Segmentation, image, options)

    async def classify_all(
        self, images: Sequence[ImageLike], **options: Unpack[ClassifyOptions]
    ) -> list[Classification | Refused]:
        """Several images in one request, answered in their order; one that is refused has its error in its place."""
        return await self._results("classify", Classification, images, options)

    async def detect_all(
        self, images: Sequence[ImageLike], **options: Unpack[DetectOptions]
    ) -> list[Detections | Refused]:
        """As `classify_all`."""
        return await self._results("detect", Detections, images, options)

    async def segment_all(
        self, images: Sequence[ImageLike], **options: Unpack[SegmentOptions]
    ) -> list[Segmentation | Refused]:
        """As `classify_all`."""
        return await self._results("segment", Segmentation, images, options)

    async def models(self) -> list[Model]:
        """All models that are served."""
        course = self._course({})
        reply = await self._ask(Call("GET", "/v1/models"), course)
        return exchange.read(reply.body, Models, course.request_id).models

    async def model(self, name: str) -> Model:
        """One model; raises Refused `unknown_model`."""
        course = self._course({})
        reply = await self._ask(Call("GET", exchange.model_path(name)), course)
        return exchange.read(reply.body, Model, course.request_id)

    async def levels(self, name: str) -> list[Level]:
        """The named levels that a model offers, best first."""
        return (await self.model(name)).levels

    async def ready(self) -> bool:
        """Whether a request would be answered now."""
        outcome = await self._attempt(Call("GET", "/readyz"), self._once(min(self._timeout, READY_TIMEOUT)))
        return isinstance(outcome, Reply) and outcome.status == 200

    async def _result(self, task: str, kind: type[R], image: ImageLike, options: Mapping[str, Any]) -> R:
        course = self._course(options)
        # Reading files and compressing pixels would hold up the event loop.
        call = await asyncio.to_thread(exchange.task_call, task, [image], options, self._encoding)
        return exchange.read((await self._ask(call, course)).body, kind, course.request_id)

    async def _results(
        self, task: str, kind: type[R], images: Sequence[ImageLike], options: Mapping[str, Any]
    ) -> list[R | Refused]:
        course = self._course(options)
        call = await asyncio.to_thread(exchange.task_call, task, images, options, self._encoding)
        return exchange.read_all((await self._ask(call, course)).body, kind, len(images), course.request_id)

    async def _ask(self, call: Call, course: Course) -> Reply:
        """A good reply, at the first attempt or a later one. Raises ClientError."""
        while True:
            outcome = _judge(await self._attempt(call, course), course)
            if isinstance(outcome, Reply):
                return outcome
            await asyncio.sleep(course.wait(outcome))

    async def _attempt(self, call: Call, course: Course) -> Reply | ClientError:
        longest = max(0.0, course.patience)
        timeout = httpx.Timeout(None, connect=min(longest, CONNECT))
        began = False
        try:
            async with (
                asyncio.timeout(longest),
                self._http.stream(
                    call.method, call.path, content=call.content, headers=self._sent(call, course), timeout=timeout
                ) as response,
            ):
                began = True
                body = bytearray()
                async for part in response.aiter_bytes():
                    _with(body, part, course)
                return Reply(response.status_code, response.headers, bytes(body))
        except TimeoutError:
            return course.late()
        except httpx.HTTPError as error:
            return self._broken(error, course, began)
