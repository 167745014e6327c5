"""A trace collector: takes OTLP/HTTP as any would, and keeps the spans."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector:
    """`answer` gives status and headers of the next answer, and may take its time."""

    def __init__(self, answer: Callable[[], tuple[int, dict[str, str]]] = lambda: (200, {})) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.heads: list[tuple[str, dict[str, str]]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, headers = answer()
                collector.heads.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                if status == 200:
                    collector.requests.append(ExportTraceServiceRequest.FromString(gzip.decompress(body)))
                content = ExportTraceServiceResponse().SerializeToString()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *arguments: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Collector:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def spans(self) -> list[Span]:
        """All that came."""
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def traces(self, roots: int, seconds: float = 20.0) -> dict[bytes, dict[str, list[Span]]]:
        """Trace -> name -> spans, as soon as so many requests are there."""
        until = time.monotonic() + seconds
        while True:
            found: dict[bytes, dict[str, list[Span]]] = {}
            for span in self.spans():
                found.setdefault(span.trace_id, {}).setdefault(span.name.partition(" ")[0], []).append(span)
            if sum(len(trace.get("request", ())) for trace in found.values()) >= roots:
                return found
            if time.monotonic() > until:
                raise TimeoutError(f"{len(found)} traces, not {roots}")
            time.sleep(0.05)


def attributes(span: Span) -> dict[str, str | int]:
    """Of one span."""
    return {one.key: one.value.string_value or one.value.int_value for one in span.attributes}
