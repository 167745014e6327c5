"""The trace collector that the operator names, spoken to over OTLP/HTTP: the one outside connection of the service."""

from __future__ import annotations

import gzip
import http.client
import ssl
import urllib.parse
from collections.abc import Callable

_SECONDS = 10.0
"""For one request."""
_READ = 65_536
"""Most bytes of an answer that are read."""
_AGAIN = (429, 502, 503, 504)
"""Statuses after which the same spans may be sent again."""
_BACKOFF = (1.0, 2.0, 4.0)
_LONGEST = 30.0


class Collector:
    """`endpoint` is a base URL, to which `/v1/traces` is added. For one thread."""

    def __init__(self, endpoint: str) -> None:
        parts = urllib.parse.urlsplit(endpoint)
        self._path = f"{parts.path.rstrip('/')}/v1/traces"
        host = parts.hostname or ""
        self._connection: http.client.HTTPConnection
        if parts.scheme == "https":
            context = ssl.create_default_context()
            self._connection = http.client.HTTPSConnection(host, parts.port, timeout=_SECONDS, context=context)
        else:
            self._connection = http.client.HTTPConnection(host, parts.port, timeout=_SECONDS)

    def send(self, spans: bytes, pause: Callable[[float], bool]) -> str:
        """Deliver spans, and try again where that may help; what went wrong in the end, or nothing. `pause` waits so
        many seconds, and says whether to go on."""
        body = gzip.compress(spans, 1)
        for wait in (*_BACKOFF, None):
            wrong, after = self._post(body)
            if not wrong or after is None or wait is None or not pause(min(max(wait, after), _LONGEST)):
                return wrong
        return ""

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()

    def _post(self, body: bytes) -> tuple[str, float | None]:
        """What went wrong, if anything did, and the seconds after which to try again, if that may help."""
        headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip", "User-Agent": "squint"}
        try:
            self._connection.request("POST", self._path, body, headers)
            answer = self._connection.getresponse()
            answer.read(_READ)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return f"cannot be reached: {type(error).__name__}", 0.0
        if not answer.isclosed():
            self._connection.close()
        if 200 <= answer.status < 300:
            return "", None
        asked = answer.getheader("Retry-After", "")
        after = float(asked) if asked.isascii() and asked.isdigit() else 0.0
        return f"answered {answer.status}", after if answer.status in _AGAIN else None
