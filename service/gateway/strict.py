"""What a request's head must keep to beyond what its parser asks: the rules that leave no room for two readings.

Whoever stands before the service may read a doubtful head in another way, and then what one takes for a body is a
request to the other. A head like that is refused, and its connection closed.
"""

from __future__ import annotations

import re

from service.gateway.exchange import Headers

MAX_HEAD_BYTES = 16_384
"""Request line and headers together."""
MAX_FIELDS = 100
"""Header fields."""

_HOST = re.compile(rb"(?:[A-Za-z0-9._~%!$&'()*+,;=-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{0,5})?")
_ONCE = (b"authorization", b"content-length", b"content-type", b"transfer-encoding", b"x-api-key")
_ABSOLUTE = (b"http://", b"https://")


def fault(method: bytes, target: bytes, version: str, headers: Headers) -> str:
    """What is wrong with a head, as the client is told; empty if nothing is."""
    if version not in ("1.1", "1.0"):
        return "the version of HTTP is not 1.0 or 1.1"
    if len(headers) > MAX_FIELDS:
        return f"the request has more than {MAX_FIELDS} header fields"
    said: set[bytes] = set()
    hosts, coding, size = [], b"", len(target)
    for name, value in headers:
        size += len(name) + len(value)
        if name == b"host":
            hosts.append(value)
        elif name in _ONCE:
            if name in said:
                return f"the header {name.decode('ascii')} was sent more than once"
            said.add(name)
            if name == b"transfer-encoding":
                coding = value
    if size > MAX_HEAD_BYTES:
        return "the request's head is too long"
    if len(hosts) != 1 and (hosts or version == "1.1"):
        return "the request needs exactly one Host"
    if hosts and not _HOST.fullmatch(hosts[0]):
        return "the Host is not a host"
    if b"transfer-encoding" in said and (coding.lower() != b"chunked" or b"content-length" in said or version != "1.1"):
        return "the only Transfer-Encoding is chunked, without Content-Length and in HTTP/1.1"
    return _target_fault(method, target)


def _target_fault(method: bytes, target: bytes) -> str:
    if method == b"CONNECT":
        return "the service is no proxy"
    if target[:1] == b"/" or target[:8].lower().startswith(_ABSOLUTE) or (target == b"*" and method == b"OPTIONS"):
        return ""
    return "the request's target is not a path"
