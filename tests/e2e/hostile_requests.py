"""Raw requests that a well-meaning client never sends, and what each is answered.

`Probe.statuses` are those of all answers on the connection, in their order; after a 400 the connection is closed,
whatever else was sent. `{image}` stands for a small PNG, `{length}` for its length.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.e2e import images

IMAGE = images.png((1, 2, 3))
LENGTH = str(len(IMAGE)).encode()
SMUGGLED = b"GET /livez HTTP/1.1\r\nHost: t\r\n\r\n"
HOST = b"Host: t\r\n"
LAST = b"Connection: close\r\n"


@dataclass(frozen=True)
class Probe:
    """One connection's bytes and the answers' statuses."""

    name: str
    raw: bytes
    statuses: tuple[int, ...]


def get(fields: bytes = HOST + LAST, target: bytes = b"/livez", version: bytes = b"HTTP/1.1") -> bytes:
    return b"GET " + target + b" " + version + b"\r\n" + fields + b"\r\n"


def post(fields: bytes, body: bytes = IMAGE, target: bytes = b"/classify") -> bytes:
    return b"POST " + target + b" HTTP/1.1\r\n" + HOST + fields + b"\r\n" + body


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + end


OK, NOT_WELL = (200,), (400,)
CL = b"Content-Length: " + LENGTH + b"\r\n"
TE = b"Transfer-Encoding: chunked\r\n"

PROBES = (
    # What is well formed, so that the rest says something.
    Probe("a plain request", get(), OK),
    Probe("an image", post(CL + LAST), OK),
    Probe("an image in chunks", post(TE + LAST, chunked(IMAGE[:9], IMAGE[9:])), OK),
    Probe("chunks of one byte", post(TE + LAST, chunked(*(IMAGE[k : k + 1] for k in range(len(IMAGE))))), OK),
    Probe("two requests at once", get(HOST) + get(), (200, 200)),
    Probe("a whole URL for a target", get(target=b"http://elsewhere.example/livez"), OK),
    Probe("HTTP/1.0 without a Host", get(b"", version=b"HTTP/1.0"), OK),
    Probe("a Host with a port", get(b"Host: t:8000\r\n" + LAST), OK),
    Probe("a Host of IPv6", get(b"Host: [::1]:8000\r\n" + LAST), OK),
    Probe("empty lines before a request", b"\r\n\r\n" + get(), OK),
    Probe("an upgrade that is not taken", get(HOST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n"), OK),
    # Two ways to say how long a body is.
    Probe("length and chunks", post(CL + TE, chunked(IMAGE)), NOT_WELL),
    Probe("chunks and length", post(TE + CL, chunked(IMAGE)), NOT_WELL),
    Probe("both, and a second request", post(b"Content-Length: 5\r\n" + TE, b"0\r\n\r\n" + SMUGGLED), NOT_WELL),
    Probe("two lengths", post(CL + b"Content-Length: 5\r\n"), NOT_WELL),
    Probe("twice the same length", post(CL + CL), NOT_WELL),
    Probe("a list of lengths", post(b"Content-Length: 5, 5\r\n", b"abcde"), NOT_WELL),
    Probe("a negative length", post(b"Content-Length: -1\r\n", b""), NOT_WELL),
    Probe("a length with a sign", post(b"Content-Length: +5\r\n", b"abcde"), NOT_WELL),
    Probe("a hexadecimal length", post(b"Content-Length: 0x5\r\n", b"abcde"), NOT_WELL),
    Probe("a length with a space inside", post(b"Content-Length: 1 0\r\n", b"abcde"), NOT_WELL),
    Probe("a length that is no number", post(b"Content-Length: all\r\n", b""), NOT_WELL),
    Probe("an empty length", post(b"Content-Length:\r\n", b""), NOT_WELL),
    Probe("a length beyond 64 bits", post(b"Content-Length: 99999999999999999999\r\n", b""), NOT_WELL),
    Probe("a length with a fraction", post(b"Content-Length: 5.0\r\n", b"abcde"), NOT_WELL),
    # Chunks.
    Probe("an unknown coding", post(b"Transfer-Encoding: gzip\r\n", b""), NOT_WELL),
    Probe("chunks within chunks", post(b"Transfer-Encoding: chunked, chunked\r\n", chunked(IMAGE)), NOT_WELL),
    Probe("compressed chunks", post(b"Transfer-Encoding: gzip, chunked\r\n", chunked(IMAGE)), NOT_WELL),
    Probe("chunked and more", post(b"Transfer-Encoding: chunked, identity\r\n", chunked(IMAGE)), NOT_WELL),
    Probe("almost chunked", post(b"Transfer-Encoding: xchunked\r\n", chunked(IMAGE)), NOT_WELL),
    Probe("chunked in quotes", post(b'Transfer-Encoding: "chunked"\r\n', chunked(IMAGE)), NOT_WELL),
    Probe("two codings in two fields", post(TE + TE, chunked(IMAGE)), NOT_WELL),
    Probe("a tab before chunked", post(b"Transfer-Encoding:\x0bchunked\r\n", chunked(IMAGE)), NOT_WELL),
    Probe("chunks in HTTP/1.0", b"POST /classify HTTP/1.0\r\n" + HOST + TE + b"\r\n" + chunked(IMAGE), NOT_WELL),
    Probe("a chunk's size that is no number", post(TE, b"zz\r\nabc\r\n0\r\n\r\n"), NOT_WELL),
    Probe("a chunk's size with a sign", post(TE, b"+3\r\nabc\r\n0\r\n\r\n"), NOT_WELL),
    Probe("a chunk's size with 0x", post(TE, b"0x3\r\nabc\r\n0\r\n\r\n"), NOT_WELL),
    Probe("a chunk's size beyond 64 bits", post(TE, b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n"), NOT_WELL),
    Probe("a chunk longer than it says", post(TE, b"2\r\nabc\r\n0\r\n\r\n"), NOT_WELL),
    Probe("a chunk that ends in a bare line feed", post(TE, b"3\nabc\n0\n\n"), NOT_WELL),
    Probe("a chunk's extension without end", post(TE, b"3;" + b"x" * 300_000), NOT_WELL),
    Probe("trailers without end", post(TE, chunked(b"abc", end=b"0\r\n") + b"X: y\r\n" * 60_000), NOT_WELL),
    Probe("trailers that pose as Hosts", post(TE + LAST, chunked(IMAGE, end=b"0\r\nHost: a\r\nHost: b\r\n\r\n")), OK),
    Probe("a trailer that changes the length", post(TE + LAST, chunked(IMAGE, end=b"0\r\nX-A: 9\r\n\r\n")), OK),
    # The Host.
    Probe("no Host", get(LAST), NOT_WELL),
    Probe("two Hosts", get(HOST + HOST), NOT_WELL),
    Probe("two different Hosts", get(HOST + b"Host: u\r\n"), NOT_WELL),
    Probe("an empty Host", get(b"Host:\r\n"), NOT_WELL),
    Probe("a Host with a path", get(b"Host: t/livez\r\n"), NOT_WELL),
    Probe("a Host with a user", get(b"Host: root@t\r\n"), NOT_WELL),
    Probe("a Host with a space", get(b"Host: t u\r\n"), NOT_WELL),
    # Lines and fields.
    Probe("bare line feeds", b"GET /livez HTTP/1.1\nHost: t\n\n", NOT_WELL),
    Probe("one bare line feed", b"GET /livez HTTP/1.1\r\nHost: t\nX: y\r\n\r\n", NOT_WELL),
    Probe("a bare carriage return", get(b"Host: t\rX: y\r\n"), NOT_WELL),
    Probe("a folded line", get(HOST + b"X: y\r\n  z\r\n"), NOT_WELL),
    Probe("a folded first line", get(b" Host: t\r\n"), NOT_WELL),
    Probe("a space before the colon", get(HOST + b"X : y\r\n"), NOT_WELL),
    Probe("a field without a name", get(HOST + b": y\r\n"), NOT_WELL),
    Probe("a field without a colon", get(HOST + b"hello\r\n"), NOT_WELL),
    Probe("a name with a control character", get(HOST + b"X\x01: y\r\n"), NOT_WELL),
    Probe("a value with a null", get(HOST + b"X: a\x00b\r\n"), NOT_WELL),
    Probe("a value with an escape", get(HOST + b"X: a\x1b[31m\r\n"), NOT_WELL),
    Probe("a hundred fields", get(HOST + LAST + b"X: y\r\n" * 98), OK),
    Probe("a hundred and one fields", get(HOST + b"X: y\r\n" * 100), NOT_WELL),
    Probe("a head just too long", get(HOST + b"X: " + b"y" * 16_400 + b"\r\n"), NOT_WELL),
    Probe("a very long head", get(HOST + b"X: " + b"y" * 200_000 + b"\r\n"), NOT_WELL),
    Probe("a very long target", get(target=b"/" + b"a" * 100_000), NOT_WELL),
    Probe("two keys", get(HOST + b"X-API-Key: a\r\nX-API-Key: b\r\n"), NOT_WELL),
    # The first line.
    Probe("nonsense", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64, NOT_WELL),
    Probe("HTTP/2 from the start", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", NOT_WELL),
    Probe("HTTP/0.9", b"GET /livez\r\n\r\n", NOT_WELL),
    Probe("HTTP/2.0", get(version=b"HTTP/2.0"), NOT_WELL),
    Probe("HTTP/1.2", get(version=b"HTTP/1.2"), NOT_WELL),
    Probe("HTTP/1.1 in small letters", get(version=b"http/1.1"), NOT_WELL),
    Probe("an unknown method", b"FETCH /livez HTTP/1.1\r\n" + HOST + b"\r\n", NOT_WELL),
    Probe("a method in small letters", b"get /livez HTTP/1.1\r\n" + HOST + b"\r\n", NOT_WELL),
    Probe("a tunnel", b"CONNECT t:443 HTTP/1.1\r\n" + HOST + b"\r\n" + SMUGGLED, NOT_WELL),
    Probe("a target without a slash", get(target=b"livez"), NOT_WELL),
    Probe("a star for a target", get(target=b"*"), NOT_WELL),
    Probe("a target of another scheme", get(target=b"ftp://t/livez"), NOT_WELL),
    Probe("a target with a space", get(target=b"/livez x"), NOT_WELL),
    Probe("a target with a control character", get(target=b"/li\x01vez"), NOT_WELL),
    # A second request that poses as part of the first, or the other way round.
    Probe("a request in a body", post(b"Content-Length: %d\r\n" % len(SMUGGLED) + LAST, SMUGGLED), (415,)),
    Probe("a request after the last one", get() + SMUGGLED, OK),
    Probe("a request after a bad one", get(LAST) + SMUGGLED, NOT_WELL),
    # Not 400 too: whoever stands between might take it for the answer to the first.
    Probe("a bad one after a request", get(HOST) + get(LAST), OK),
    Probe("a body where none belongs", get(HOST + b"Content-Length: 3\r\n" + LAST) + b"abc" + SMUGGLED, OK),
    Probe("a request behind an upgrade", get(HOST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n") + SMUGGLED, OK),
)  # fmt: skip
