"""A call as HTTP has it: what is sent, what comes back, and what that means. No network here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit
from uuid import uuid4

import msgspec

from service.version import VERSION
from squint.client.errors import ClientError, DeadlineExceeded, Refused, Unreadable
from squint.client.images import Encoding, ImageLike, encoded, form
from squint.client.model import Model, Models
from squint.client.options import target
from squint.client.results import Classification, Detections, Error, Segmentation

MAX_ANSWER_BYTES = 256_000_000
MAX_TIMEOUT = 3600.0
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_KEY = re.compile(r"[!-~]{1,512}")
_SECONDS = re.compile(r"[0-9]{1,6}")

T = TypeVar("T")
R = TypeVar("R", Classification, Detections, Segmentation)

_KINDS = (Classification, Detections, Segmentation, Model, Models, list[msgspec.Raw])
# Made before there are threads: two that decode the first answers of one type at once, crash in msgspec, where one
# meets what the other has half made of the type.
_DECODERS: dict[Any, msgspec.json.Decoder[Any]] = {kind: msgspec.json.Decoder(kind) for kind in _KINDS}
_ERRORS = msgspec.json.Decoder(Error)


@dataclass(frozen=True)
class Call:
    """One request to send."""

    method: str
    path: str
    content: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """One response."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def base_url(url: str) -> str:
    """The service's address, checked. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"{url!r}: expected http://HOST:PORT or https://HOST:PORT")
    return url.rstrip("/")


def common_headers(api_key: str | None) -> dict[str, str]:
    """Headers of every request. Raises ValueError, which does not show the key."""
    headers = {"User-Agent": f"squint-client/{VERSION}", "Accept": "application/json"}
    if api_key is not None:
        if not _KEY.fullmatch(api_key):
            raise ValueError("an API key is 1 to 512 visible ASCII characters")
        headers["Authorization"] = f"Bearer {api_key}"
    return headers


def request_id(given: str | None) -> str:
    """The id a call goes by in the service's log; the same for all its attempts. Raises ValueError."""
    if given is None:
        return uuid4().hex
    if not _REQUEST_ID.fullmatch(given):
        raise ValueError(f"request_id={given!r}: expected 1 to 64 letters, digits, '.', '_' or '-'")
    return given


def seconds(timeout: float) -> float:
    """A timeout, checked. Raises ValueError."""
    if not 0 < timeout <= MAX_TIMEOUT:
        raise ValueError(f"timeout={timeout!r}: expected seconds, more than 0 and at most {MAX_TIMEOUT:g}")
    return float(timeout)


def task_call(task: str, images: Sequence[ImageLike], options: Mapping[str, Any], encoding: Encoding) -> Call:
    """The request for one image or several. Raises what `images.encoded` raises, and ValueError for none."""
    if not images:
        raise ValueError("no images")
    files = [encoded(image, encoding) for image in images]
    if len(files) == 1:
        content, kind = files[0], "application/octet-stream"
    else:
        content, kind = form(files)
    return Call("POST", target(task, options), content, {"Content-Type": kind})


def model_path(name: str) -> str:
    """Where one model is described."""
    return f"/v1/models/{quote(name, safe='')}"


def failure(reply: Reply, sent_as: str) -> ClientError | None:
    """The error that a reply is, or None."""
    if reply.status == 200:
        return None
    retry_after = reply.headers.get("retry-after", "")
    wait = float(retry_after) if _SECONDS.fullmatch(retry_after) else None
    try:
        error = _ERRORS.decode(reply.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # A proxy's page, or no Squint at all: its status still says whether to come back.
        message = f"HTTP status {reply.status}, and no word from Squint"
        return Refused(message, "unknown", reply.status, sent_as, wait)
    found = error.request_id or sent_as
    if error.code == "deadline_exceeded":
        return DeadlineExceeded(error.error, found)
    return Refused(error.error, error.code, reply.status, found, wait)


def read(body: bytes, kind: type[T], sent_as: str) -> T:
    """The body of a good reply, which is one of `_KINDS`. Raises Unreadable."""
    try:
        found: T = _DECODERS[kind].decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(f"the answer is not as documented: {error}", sent_as) from None
    return found


def read_all(body: bytes, kind: type[R], images: int, sent_as: str) -> list[R | Refused]:
    """The results for several images, in their order; a refused image has its error in its place. Raises Unreadable."""
    if images == 1:
        return [read(body, kind, sent_as)]
    items = read(body, list[msgspec.Raw], sent_as)
    if len(items) != images:
        raise Unreadable(f"{len(items)} answers for {images} images", sent_as)
    return [_item(bytes(item), kind, sent_as) for item in items]


def _item(body: bytes, kind: type[R], sent_as: str) -> R | Refused:
    try:
        error = _ERRORS.decode(body)
    except msgspec.ValidationError:
        return read(body, kind, sent_as)
    if error.code == "deadline_exceeded":
        return DeadlineExceeded(error.error, error.request_id)
    return Refused(error.error, error.code, 0, error.request_id)
