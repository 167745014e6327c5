"""Compressed bodies: what comes in, never more than a limit of it; and what goes out to who asked for it."""

from __future__ import annotations

import zlib

from service.errors import Refusal

_GZIP, _ZLIB, _BARE = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
_QUICK = 1
LEAST_BYTES = 1024
"""Shorter answers are not worth it."""
NAMES = ("gzip", "deflate")


def unpacked(data: bytes, encoding: str, limit: int) -> bytes:
    """A body that was sent with this `Content-Encoding`. Raises Refusal for one that makes more than `limit` bytes, is
    damaged or cut short, or is in another encoding than `gzip` and `deflate`."""
    if encoding not in NAMES:
        raise Refusal("unsupported_media_type", "the body is sent as it is, or in the encoding gzip or deflate")
    window = _GZIP if encoding == "gzip" else _ZLIB
    if encoding == "deflate" and not _has_head(data):
        window = _BARE
    unpacker = zlib.decompressobj(window)
    try:
        whole = unpacker.decompress(data, limit + 1)
    except zlib.error:
        raise Refusal("bad_request", f"the body is no {encoding}") from None
    if len(whole) > limit:
        raise Refusal("body_too_large", f"the body is limited to {limit} bytes, unpacked")
    if not unpacker.eof or unpacker.unused_data:
        raise Refusal("bad_request", f"the body is no {encoding}, or not all of it")
    return whole


def _has_head(data: bytes) -> bool:
    """Whether it begins as zlib's format does; some clients send the bare stream as `deflate`."""
    return len(data) >= 2 and data[0] & 0x0F == zlib.DEFLATED and int.from_bytes(data[:2], "big") % 31 == 0


def accepted(header: str | None) -> str:
    """The encoding in which to answer, by `Accept-Encoding`; empty for none."""
    if not header:
        return ""
    offers = [offer.strip().lower().partition(";") for offer in header[:200].split(",")]
    names = {name.strip() for name, _, weight in offers if weight.strip() not in ("q=0", "q=0.0", "q=0.00", "q=0.000")}
    return next((name for name in NAMES if name in names), "")


def packed(data: bytes, encoding: str) -> bytes:
    """An answer in an encoding of NAMES."""
    packer = zlib.compressobj(_QUICK, zlib.DEFLATED, _GZIP if encoding == "gzip" else _ZLIB)
    return packer.compress(data) + packer.flush()
