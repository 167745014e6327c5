"""From an HTTP body to encoded images: raw, multipart or base64 JSON, within limits, never spooled to disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from service.config import Limits
from service.errors import Refusal

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

PARTS = ("image", "file")
_RAW = (b"application/octet-stream", b"application/x-www-form-urlencoded")
"""Raw bytes, and what curl calls every body; the image is known by its content anyway."""
_MAX_HEADER_BYTES = 4096
_IN_THREAD_ABOVE = 1 << 20


class Base64Body(msgspec.Struct, forbid_unknown_fields=True):
    """`{"image": "<base64>"}`."""

    image: bytes


class Budget:
    """Bytes of bodies that are held at any time, over all requests."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.held = 0

    def take(self, size: int) -> None:
        """Reserve `size` bytes; raises Refusal `overloaded`."""
        if self.held + size > self._limit:
            raise Refusal("overloaded", "too many bytes of images in flight", retry_after=1.0)
        self.held += size

    def give(self, size: int) -> None:
        """Return what was taken."""
        self.held -= size

    @contextmanager
    def share(self) -> Iterator[Share]:
        """What one request takes; all of it is returned at the end."""
        share = Share(self)
        try:
            yield share
        finally:
            self.give(share.held)


class Share:
    """One request's part of the budget."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.held = 0

    def cover(self, size: int) -> None:
        """Make sure that at least `size` bytes are reserved."""
        if size > self.held:
            self._budget.take(size - self.held)
            self.held = size


def check_head(request: Request, limits: Limits) -> None:
    """Refuse by the headers alone what the body could not mend."""
    length = request.headers.get("content-length")
    if length is not None and int(length) > limits.body_bytes:
        raise Refusal("body_too_large", f"the body is limited to {limits.body_bytes} bytes")
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Refusal("unsupported_media_type", "the body must not be compressed")


async def read(request: Request, limits: Limits, share: Share, seconds: float) -> list[bytes | bytearray]:
    """The encoded images of a request, at least one; `seconds` is what its deadline leaves.

    Raises Refusal, ClientDisconnect when the client left.
    """
    media, parameters = parse_options_header(request.headers.get("content-type"))
    chunks = _chunks(request, limits, share)
    try:
        async with asyncio.timeout(min(limits.upload_seconds, seconds)):
            if media == b"multipart/form-data":
                return await _multipart(chunks, parameters.get(b"boundary"), limits)
            body = await _whole(chunks)
    except TimeoutError:
        if seconds < limits.upload_seconds:
            raise Refusal("deadline_exceeded", "the body did not arrive before the deadline") from None
        raise Refusal("slow_upload", f"the body did not arrive within {limits.upload_seconds:g} seconds") from None
    if media == b"application/json":
        return [await _base64(body)]
    if not media or media.startswith(b"image/") or media in _RAW:
        return [body]
    raise Refusal("unsupported_media_type", "send image/*, multipart/form-data or application/json")


async def _chunks(request: Request, limits: Limits, share: Share) -> AsyncIterator[bytes]:
    # Memory is reserved as it is filled, not as it is announced: announcing costs a client nothing.
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limits.body_bytes:
            raise Refusal("body_too_large", f"the body is limited to {limits.body_bytes} bytes")
        share.cover(size)
        yield chunk


async def _whole(chunks: AsyncIterator[bytes]) -> bytes | bytearray:
    body: bytes | bytearray = b""
    async for chunk in chunks:
        if not body:
            body = chunk
        else:
            if not isinstance(body, bytearray):
                body = bytearray(body)
            body += chunk
    return body


async def _base64(body: bytes | bytearray) -> bytes:
    """Large bodies are decoded in a thread, so that the event loop does not stand still meanwhile."""
    try:
        if len(body) > _IN_THREAD_ABOVE:
            return (await asyncio.to_thread(msgspec.json.decode, body, type=Base64Body)).image
        return msgspec.json.decode(body, type=Base64Body).image
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise Refusal("bad_request", 'the body must be JSON of the form {"image": "<base64>"}') from None


class _Parts:
    """Collects the file parts of a multipart body as the parser meets them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._field = b""
        self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self._header_bytes = 0
        self.images: list[bytearray] = []
        self.ended = False

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self.part_begin,
            "on_header_field": self.header_field,
            "on_header_value": self.header_value,
            "on_header_end": self.header_end,
            "on_headers_finished": self.headers_finished,
            "on_part_data": self.part_data,
            "on_end": self.end,
        }

    def part_begin(self) -> None:
        self._headers = {}
        self._header_bytes = 0

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._field += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._value += data[start:end]

    def header_end(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field = self._value = b""

    def headers_finished(self) -> None:
        disposition, options = parse_options_header(self._headers.get(b"content-disposition"))
        name = options.get(b"name", b"").decode("latin-1")
        if disposition != b"form-data" or name not in PARTS:
            raise Refusal("bad_request", "parts must be named image or file; options go into the query")
        if len(self.images) >= self._limit:
            raise Refusal("bad_request", f"at most {self._limit} images in one request")
        self.images.append(bytearray())

    def part_data(self, data: bytes, start: int, end: int) -> None:
        self.images[-1] += data[start:end]

    def end(self) -> None:
        self.ended = True

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > _MAX_HEADER_BYTES:
            raise Refusal("bad_request", "the headers of a part are too long")


async def _multipart(chunks: AsyncIterator[bytes], boundary: bytes | None, limits: Limits) -> list[bytes | bytearray]:
    if not boundary or len(boundary) > 200:
        raise Refusal("bad_request", "the multipart body has no usable boundary")
    parts = _Parts(limits.images)
    try:
        parser = MultipartParser(boundary, parts.callbacks())
        async for chunk in chunks:
            parser.write(chunk)
        parser.finalize()
    except MultipartParseError:
        raise Refusal("bad_request", "the multipart body is malformed") from None
    if not parts.ended or not parts.images:
        raise Refusal("bad_request", "the multipart body is incomplete or holds no image")
    return list(parts.images)


__all__ = ["Budget", "ClientDisconnect", "Share", "check_head", "read"]
