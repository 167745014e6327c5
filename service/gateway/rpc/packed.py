"""Messages that a client compressed, told by their first bytes.

gRPC's library unpacks messages without a limit, and only then looks how long they are: a few kilobytes would be
gigabytes by then. So it is told to leave them as they came, and they are unpacked here, within limits. It does not tell
which of them are compressed, but no message of ours begins as compressed ones do.
"""

from __future__ import annotations

_GZIP = b"\x1f\x8b"
"""In a message: field 3 in a form that there is not."""
_DEFLATE = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
"""zlib's head, one for each group of its levels. In a message: field 15, which no request has."""


def encoding(raw: bytes) -> str:
    """How a message is compressed, as `packing.unpacked` has it; empty for one that is not."""
    if raw.startswith(_GZIP):
        return "gzip"
    return "deflate" if raw.startswith(_DEFLATE) else ""
