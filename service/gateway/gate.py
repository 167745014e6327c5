"""Before the application: every request shows who it is from, but for a short list of paths.

What is not on the list is guarded whether it exists or not, so that a new route cannot be forgotten and an answer
never tells a stranger which paths there are. The path is the one that the router sees, decoded and without host.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import Refusal
from service.gateway import answers
from service.gateway.handler import request_id
from service.gateway.serving import Gateway

HEALTH = frozenset(
    ("/livez", "/readyz", "/startupz", "/healthz", "/health", "/ping", "/v2/health/live", "/v2/health/ready")
)
"""What an orchestrator asks without a key, on every port."""
METRICS = "/metrics"
_READING = ("GET", "HEAD")
_REPOSITORY = ("/v2/repository/models/", ("/load", "/unload"))


class Gate:
    """The application behind it sees only who may ask; `scope["state"]["client"]` is their name."""

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self._app = app
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "http":
            headers = dict(reversed(scope["headers"]))
            try:
                scope.setdefault("state", {})["client"] = self._admit(scope, headers)
            except Refusal as refusal:
                self._gateway.metrics.refused(refusal.code)
                response = answers.error(refusal, request_id(_text(headers, b"x-request-id")))
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _admit(self, scope: Scope, headers: dict[bytes, bytes]) -> str:
        """Who asks. Raises Refusal."""
        path, peer = scope["path"], scope["client"][0] if scope.get("client") else ""
        reading = scope["method"] in _READING
        config, guard = self._gateway.config, self._gateway.guard
        on_admin_port = bool(scope["state"].get("admin_port"))
        changes = path == "/admin" or path.startswith("/admin/")
        if reading and path in HEALTH:
            return peer
        if path == METRICS and config.metrics_admin_only and not on_admin_port:
            raise _not_here()
        if reading and path == METRICS and (on_admin_port or "metrics" in config.public):
            return peer
        if reading and "playground" in config.public and (path == "/" or _within(path, "/playground")):
            return peer
        if on_admin_port and not changes and path != METRICS:
            raise _not_here()
        if changes and b"origin" in headers:
            # A page that an operator happens to look at must not reach their own machine's ports.
            raise Refusal("forbidden", "what changes the service is not for web pages")
        if changes and not on_admin_port and not guard.closed:
            raise _not_here()
        if on_admin_port and not guard.closed:
            return peer
        admin = changes or (path.startswith(_REPOSITORY[0]) and path.endswith(_REPOSITORY[1]))
        return guard.identify(_text(headers, b"authorization"), _text(headers, b"x-api-key"), peer, admin)


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + "/")


def _not_here() -> Refusal:
    return Refusal("not_found", "no such path; see /docs")


def _text(headers: dict[bytes, bytes], name: bytes) -> str | None:
    value = headers.get(name)
    return None if value is None else value.decode("latin-1")
