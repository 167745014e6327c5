"""`squint health`: ask a running service whether it would answer, for an image's health check and for scripts."""

from __future__ import annotations

import argparse
import http.client
import json
import ssl
from typing import Any
from urllib.parse import urlsplit

from service import config
from service.config import Config
from squint.errors import Failure

DESCRIPTION = """\
Ask a running service whether it would answer a request now. Ends with 0 if so, else with 1 and one line that says why.

Without URL it asks the service of this machine: the port is that of the variables SQUINT_... and of squint.toml, so
give the port there, and not as a flag of `squint serve`, where something relies on this command.
"""
_MAX_BYTES = 1 << 16
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def add(commands: Any) -> None:
    """Describe the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "health",
        help="ask a running service whether it would answer",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("url", metavar="URL", nargs="?", help="where the service is (default: on this machine)")
    parser.add_argument("--live", action="store_true", help="ask only whether it is alive, not whether it is ready")
    parser.add_argument("--timeout", type=_seconds, default=3.0, metavar="SECONDS", help="wait no longer (default: 3)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """One question."""
    url = options.url or own_url(config.load({}))
    path = "/livez" if options.live else "/readyz"
    status, state = ask(url, path, options.timeout, verify=options.url is not None)
    if status != 200:
        raise Failure(f"{url} answers {status}: {state}")
    print(state)
    return 0


def own_url(loaded: Config) -> str:
    """Where the service with this configuration is asked from this machine: on the port for its operator, if any, since
    that one asks nobody for a certificate."""
    scheme, host, port = "https" if loaded.tls_cert else "http", loaded.host, loaded.http_port
    if loaded.admin_port:
        host, port = loaded.admin_host, loaded.admin_port
        scheme = "http" if host in {"127.0.0.1", "::1", "localhost"} else scheme
    host = _EVERYWHERE.get(host, host)
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def ask(url: str, path: str, seconds: float, *, verify: bool = True) -> tuple[int, str]:
    """The status of one health endpoint and what it says. Raises Failure when nobody answers.

    Without `verify` any certificate will do: on this machine it names the service as others call it.
    """
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme not in {"http", "https"}:
        raise Failure(f"{url}: expected a URL such as http://127.0.0.1:8000")
    connection = _connection(parts.scheme, host, port, seconds, verify)
    try:
        connection.request("GET", path, headers={"Accept": "application/json"})
        response = connection.getresponse()
        body = response.read(_MAX_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise Failure(f"{url} does not answer: {getattr(error, 'strerror', None) or type(error).__name__}") from None
    finally:
        connection.close()
    return response.status, _state(body)


def _connection(scheme: str, host: str, port: int | None, seconds: float, verify: bool) -> http.client.HTTPConnection:
    if scheme == "http":
        return http.client.HTTPConnection(host, port, timeout=seconds)
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(host, port, timeout=seconds, context=context)


def _state(body: bytes) -> str:
    """The word that the service has for its state."""
    try:
        told = json.loads(body)
        return str(told.get("status") or told.get("error"))[:200]
    except (ValueError, AttributeError, RecursionError):
        return "not what this service answers"


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 60:
        raise argparse.ArgumentTypeError(f"{text!r}: expected seconds, more than 0 and at most 60")
    return value
