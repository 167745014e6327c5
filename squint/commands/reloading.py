"""`squint models reload`: have a running service look at its model directories again."""

from __future__ import annotations

import argparse
from typing import Any

from squint.commands.named import api_key, command, needs, of_service
from squint.commands.table import show
from squint.errors import Failure

URL = "http://127.0.0.1:8002"
SECONDS = 600.0
"""For all that is new to be loaded and warmed."""
_WHERE = "name the port of `squint serve --admin-port` with --url; SIGHUP reloads without one"


def add(group: Any) -> None:
    """Describe the command."""
    parser = command(
        group,
        "reload",
        reload,
        "have a running service look at its models again",
        "New versions are verified, loaded and warmed, and serve from then on; what cannot be served is told of and "
        "changes nothing. The service must have been started with --model-control explicit.",
    )
    of_service(parser, URL, f"the service's admin port, or its port for clients with an admin key (default {URL})")
    parser.add_argument("--json", action="store_true", help="one JSON array instead of a table")


def reload(options: argparse.Namespace) -> int:
    """Every version there is; 1 if one was rejected."""
    with needs("asking a service", "client"):
        import httpx
    key = api_key(options)
    try:
        reply = httpx.post(
            f"{options.url.rstrip('/')}/admin/reload", headers={"X-API-Key": key} if key else {}, timeout=SECONDS
        )
        told = reply.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        raise Failure(f"{options.url}: no answer of a Squint service ({_WHERE})") from None
    if reply.status_code == 404:
        raise Failure(f"{options.url}: nothing is reloaded at this port ({_WHERE})")
    if reply.status_code != 200:
        raise Failure(f"{options.url}: {told.get('error', reply.status_code)}")
    rows = [{"reason": "", **row} for row in told["versions"]]
    show(rows, ("name", "version", "state", "share", "reason"), as_json=options.json)
    return int(any(row["rejected"] for row in rows))
