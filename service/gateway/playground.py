"""The playground: one page at `/`, and the few files it is made of.

They are read once, when the gateway starts. A request only looks a name up in a table, so nothing that a client sends
comes near the file system. The page loads nothing from elsewhere, and its own policy has the browser see to that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import msgspec
from fastapi import APIRouter, Request, Response

from service.errors import Refusal
from service.version import VERSION

PREFIX = "/playground"
STATIC = Path(__file__).resolve().parent / "static"
SAMPLES = Path(__file__).resolve().parents[2] / "samples"
"""Images to begin with. An installation without them offers none."""

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".jpg": "image/jpeg",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cache-Control": "no-cache",
}
"""What every file of the page is served with. `no-cache` has browsers ask whether it changed, by its tag."""


class File:
    """One file of the page, in memory."""

    def __init__(self, path: Path) -> None:
        self.content = path.read_bytes()
        self.kind = _TYPES[path.suffix]
        self.tag = f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'

    def answer(self, request: Request) -> Response:
        """The file, or 304 for who has it already."""
        headers = HEADERS | {"ETag": self.tag}
        known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
        if self.tag in known:
            return Response(status_code=304, headers=headers)
        return Response(self.content, media_type=self.kind, headers=headers)


def _read(folder: Path) -> dict[str, File]:
    """Name -> file, of what browsers can be told the type of; nothing if there is no such folder."""
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return {path.name: File(path) for path in found if path.suffix in _TYPES and path.is_file()}


def router(page: bool) -> APIRouter:
    """`/`, and with `page` the playground."""
    routes = APIRouter()
    files: Mapping[str, File] = _read(STATIC) if page else {}
    samples: Mapping[str, File] = _read(SAMPLES) if page else {}

    @routes.get("/", summary="Where things are")
    async def root(request: Request) -> Response:
        """Links for programs. A browser, which asks for HTML, gets the playground if there is one."""
        accepted = request.headers.get("accept", "")
        if files and "text/html" in accepted and "application/json" not in accepted:
            answer = files["index.html"].answer(request)
        else:
            answer = Response(msgspec.json.encode(_links(bool(files))), media_type="application/json")
        answer.headers["Vary"] = "Accept"
        return answer

    if page:

        @routes.get(PREFIX + "/samples", include_in_schema=False)
        async def list_samples() -> Response:
            """The names of the samples."""
            return Response(msgspec.json.encode({"samples": list(samples)}), media_type="application/json")

        @routes.get(PREFIX + "/samples/{name}", include_in_schema=False)
        async def sample(request: Request, name: str) -> Response:
            """One sample."""
            return _found(samples, name).answer(request)

        @routes.get(PREFIX + "/{name}", include_in_schema=False)
        async def file(request: Request, name: str) -> Response:
            """One file of the page."""
            return _found(files, name).answer(request)

    return routes


def _links(page: bool) -> dict[str, str]:
    links = {"service": "squint", "version": VERSION, "models": "/v1/models", "docs": "/docs", "ready": "/readyz"}
    return links | ({"playground": "/"} if page else {})


def _found(files: Mapping[str, File], name: str) -> File:
    found = files.get(name)
    if found is None:
        raise Refusal("not_found", "no such path; see /docs")
    return found
