"""`squint load`: measure a running service under load."""

from __future__ import annotations

import argparse
from typing import Any

from squint.errors import Failure


def add(commands: Any) -> None:
    """Describe the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "load",
        help="measure a running service under load (not in this release)",
        description="Send requests at the rates a scenario names, whether or not the service keeps up, and report.",
        allow_abbrev=False,
    )
    parser.add_argument("url", metavar="URL", help="the service, such as http://127.0.0.1:8000")
    parser.add_argument("--scenario", metavar="FILE", required=True, help="what to send, and when")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Arrives with the load generator."""
    raise Failure("load: not available in this release")
