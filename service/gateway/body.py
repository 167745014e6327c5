"""From an HTTP body to encoded images: raw, multipart or base64 JSON, within limits, never spooled to disk."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.config import Limits
from service.errors import Refusal

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

PARTS = ("image", "file", "data")
"""The last is what TorchServe's clients call it."""
_RAW = (b"application/octet-stream", b"application/x-www-form-urlencoded")
"""Raw bytes, and what curl calls every body; the image is known by its content anyway."""
_MAX_HEADER_BYTES = 4096
_LARGE = 1 << 20
"""Bytes from which a body is not joined out of its pieces, which takes its memory twice, nor read as JSON on the event
loop, which would stand still meanwhile."""
_MAX_CACHED = 200

Image = bytes | bytearray


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

    def share(self) -> Share:
        """What one request takes; to be released at the end."""
        return Share(self)


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

    def release(self) -> None:
        """Return all of it."""
        self._budget.give(self.held)
        self.held = 0


def check_head(length: str | None, encoding: str | None, limits: Limits) -> None:
    """Refuse by `Content-Length` and `Content-Encoding` alone what the body could not mend."""
    if length is not None and int(length) > limits.body_bytes:
        raise Refusal("body_too_large", f"the body is limited to {limits.body_bytes} bytes")
    if encoding is not None and encoding != "identity":
        raise Refusal("unsupported_media_type", "the body must not be compressed")


class Upload:
    """A body as it comes. The constructor, `add` and `images` raise Refusal."""

    def __init__(self, content_type: str | None, limits: Limits, share: Share) -> None:
        self._limits = limits
        self._share = share
        self._size = 0
        self._chunks: list[bytes] = []
        self._large: bytearray | None = None
        self._media, boundary = _media_type(content_type)
        self._form: _Form | None = None
        if self._media == b"multipart/form-data":
            self._form = _Form(boundary, limits)

    def add(self, data: bytes) -> None:
        """Some of the body. Memory is reserved as it is filled, not as it is announced: announcing costs a client
        nothing."""
        self._size += len(data)
        if self._size > self._limits.body_bytes:
            raise Refusal("body_too_large", f"the body is limited to {self._limits.body_bytes} bytes")
        self._share.cover(self._size)
        if self._form is not None:
            self._form.add(data)
        elif self._large is not None:
            self._large += data
        else:
            self._chunks.append(data)
            if self._size > _LARGE:
                self._large = bytearray().join(self._chunks)
                self._chunks = []

    @property
    def slow(self) -> bool:
        """`images` takes long: to be called in a thread."""
        return self._media == b"application/json" and self._size > _LARGE

    def images(self) -> list[Image]:
        """The encoded images, at least one, once the body is whole."""
        if self._form is not None:
            return self._form.images()
        whole = self.whole()
        if self._media == b"application/json":
            return [_base64(whole)]
        if not self._media or self._media.startswith(b"image/") or self._media in _RAW:
            return [whole]
        raise Refusal("unsupported_media_type", "send image/*, multipart/form-data or application/json")

    def whole(self) -> Image:
        """All of a body that is no form."""
        if self._large is not None:
            return self._large
        return self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)


@lru_cache(256)
def _cached_media_type(content_type: str) -> tuple[bytes, bytes | None]:
    media, parameters = parse_options_header(content_type)
    return media, parameters.get(b"boundary")


def _media_type(content_type: str | None) -> tuple[bytes, bytes | None]:
    """The media type and the boundary of parts; a long header, which only a stranger sends, is not kept."""
    if not content_type:
        return b"", None
    known = _cached_media_type if len(content_type) <= _MAX_CACHED else _cached_media_type.__wrapped__
    return known(content_type)


def _base64(body: Image) -> bytes:
    try:
        return msgspec.json.decode(body, type=Base64Body).image
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise Refusal("bad_request", _unlike(body)) from None


def _unlike(body: Image) -> str:
    """What is wrong with a JSON body that is not one of ours."""
    form = 'the body must be JSON of the form {"image": "<base64>"}'
    try:
        given = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return form
    if "image" not in given:
        return form
    if len(given) > 1:
        return f"{form}, with nothing beside it; options go into the query"
    if bytes(memoryview(given["image"])[:6]) == b'"data:':
        return f"{form}; take off what comes before the base64 (data:...;base64,)"
    return f"{form}; what it holds is not base64 (without line breaks, padded with =)"


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
            raise Refusal("bad_request", "parts must be named image, file or data; options go into the query")
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


class _Form:
    """A multipart body, parsed as it comes."""

    def __init__(self, boundary: bytes | None, limits: Limits) -> None:
        if not boundary or len(boundary) > 200:
            raise Refusal("bad_request", "the multipart body has no usable boundary")
        self._parts = _Parts(limits.images)
        self._parser = MultipartParser(boundary, self._parts.callbacks())

    def add(self, data: bytes) -> None:
        try:
            self._parser.write(data)
        except MultipartParseError:
            raise Refusal("bad_request", "the multipart body is malformed") from None

    def images(self) -> list[Image]:
        try:
            self._parser.finalize()
        except MultipartParseError:
            raise Refusal("bad_request", "the multipart body is malformed") from None
        if not self._parts.ended or not self._parts.images:
            raise Refusal("bad_request", "the multipart body is incomplete or holds no image")
        return list(self._parts.images)
