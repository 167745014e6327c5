"""The course of one inference of the protocol over HTTP, which takes the short way through a connection.

It differs from that of a task in what a body may be: compressed, JSON with tensors behind it, or one image. Images are
admitted once they are known, for only the body says how many there are and what is asked of them.
"""

from __future__ import annotations

import functools
import re

import msgspec

from service.dispatcher.tickets import Outcome
from service.errors import Refusal
from service.gateway import body, packing, schemas
from service.gateway.door import Opening
from service.gateway.exchange import Exchange
from service.gateway.handler import Call
from service.gateway.kserve import infer, message, status
from service.gateway.serving import NO_TASK, Gateway

HEADER_LENGTH = b"inference-header-content-length"
_PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
_LARGE = 1 << 20
"""Bytes of JSON from which it is read in a thread, and of an answer from which it is compressed in one: the event loop
would stand still."""


def find(gateway: Gateway, method: bytes, path: str) -> Opening | None:
    """Who serves this path, if it is one of an inference."""
    found = _PATH.fullmatch(path) if method == b"POST" else None
    if found is None:
        return None
    return functools.partial(Inference, gateway, model=found[1], version=found[2] or "")


class Inference(Call):
    """One inference over HTTP."""

    __slots__ = ("_alone", "_json_bytes", "_model", "_plan", "_request", "_version")

    def __init__(self, gateway: Gateway, exchange: Exchange, model: str, version: str) -> None:
        super().__init__(gateway, exchange, NO_TASK, "kserve-http")
        self._model = model
        self._version = version
        self._json_bytes: int | None = None
        """How much of the body is JSON; None when all is, 0 when the body is an image."""
        self._alone = False
        """The body is an image by its type, and not by the protocol's own rule for that."""
        self._request: message.Read | None = None
        self._plan: infer.Plan | None = None

    # -- the request -------------------------------------------------------------------------------------------

    def _enter(self) -> None:
        exchange, limits = self._exchange, self._gateway.config.limits
        infer.choose(self._gateway, self._serving, self._model, self._version)
        length = exchange.header(HEADER_LENGTH)
        if length is not None:
            if not (length.isascii() and length.isdigit() and len(length) <= 12):
                raise Refusal("bad_request", "Inference-Header-Content-Length is a number of bytes")
            self._json_bytes = int(length)
        elif (exchange.header(b"content-type") or "").startswith("image/"):
            self._alone, self._json_bytes = True, 0
        body.check_head(exchange.header(b"content-length"), None, limits)
        self._upload = body.Upload(None, limits, self._share)
        exchange.body_seconds = limits.upload_seconds

    def _read(self, upload: body.Upload) -> None:
        raw = upload.whole()
        encoding = (self._exchange.header(b"content-encoding") or "").strip().lower()
        if encoding in ("", "identity"):
            self._parse(raw)
        else:
            # However short it is, it may become long.
            self._aside(self._unpacked, packing.unpacked, raw, encoding, self._gateway.config.limits.body_bytes)

    def _unpacked(self, raw: bytes) -> None:
        self._share.cover(len(raw))
        self._parse(raw)

    def _parse(self, raw: bytes | bytearray) -> None:
        limits, json_bytes = self._gateway.config.limits, self._json_bytes
        if len(raw) > _LARGE and (json_bytes is None or json_bytes > _LARGE):
            self._aside(self._understand, message.read, raw, json_bytes, limits)
        else:
            self._understand(message.read(raw, json_bytes, limits))

    def _understand(self, request: message.Read) -> None:
        exchange, serving = self._exchange, self._serving
        # Whoever sends an image as an image, and not by the protocol's own rule for that, is told in JSON.
        self._request = msgspec.structs.replace(request, binary=False) if self._alone else request
        options = schemas.given(serving.task, exchange.query, exchange.headers)
        self._plan = infer.begin(serving, request.asked, options)
        self._submit(request.asked.images)

    # -- the answer --------------------------------------------------------------------------------------------

    def _answer(self, outcomes: list[Outcome]) -> None:
        if self._plan is None or self._request is None:
            raise RuntimeError("an inference was answered before it was read")
        answer = infer.answer(self._gateway, self._serving, self._plan, outcomes)
        content, json_bytes = message.written(answer, self._request)
        level = answer.parameters["level"]
        encoding = packing.accepted(self._exchange.header(b"accept-encoding"))
        if not encoding or len(content) < packing.LEAST_BYTES:
            self._give(outcomes, level, json_bytes, "", content)
            return
        give = functools.partial(self._give, outcomes, level, json_bytes, encoding)
        if len(content) > _LARGE:
            self._aside(give, packing.packed, content, encoding)
        else:
            give(packing.packed(content, encoding))

    def _give(self, outcomes: list[Outcome], level: str, json_bytes: int | None, encoding: str, content: bytes) -> None:
        """Send the answer, of which `json_bytes` are JSON before compression (None: all of it)."""
        self._share.release()
        headers = self._told(level, outcomes[0], self._serving.answered(outcomes))
        if encoding:
            headers.append((b"content-encoding", encoding.encode("ascii")))
        if json_bytes is None:
            self._send(200, headers, content)
        else:
            headers.append((HEADER_LENGTH, b"%d" % json_bytes))
            self._send(200, headers, content, b"application/octet-stream")

    def _status(self, refusal: Refusal) -> int:
        return status.of(self._gateway.config, refusal)
