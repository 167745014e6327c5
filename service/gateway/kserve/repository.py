"""The models as a repository: what there is, and having a model loaded or unloaded where the operator permits it."""

from __future__ import annotations

from typing import Any

from service.errors import Refusal
from service.gateway.serving import Gateway


async def index(gateway: Gateway, *, ready_only: bool = False) -> list[dict[str, Any]]:
    """Every version of every model, its state in Triton's words and why it is not ready; with `ready_only` those that
    are."""
    return [
        {"name": row.name, "version": row.version, "state": row.state, "reason": row.reason}
        for row in await gateway.repository.index()
        if row.state == "READY" or not ready_only
    ]


async def load(gateway: Gateway, name: str, changed: bool = False) -> None:
    """Load a model as it is on disk; `changed` means that the client sent a configuration or files with it. Raises
    Refusal."""
    gateway.repository.permit()
    if changed:
        raise Refusal("bad_request", "a model is loaded as it is; no configuration and no files are taken from clients")
    await gateway.repository.load(name)


async def unload(gateway: Gateway, name: str) -> None:
    """Unload a model; its requests under way are answered. Raises Refusal."""
    await gateway.repository.unload(name)
