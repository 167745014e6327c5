"""How a server is to be set up, and how that travels to its processes."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass

VARIABLE = "PEERS_PLAN"


@dataclass(frozen=True)
class Plan:
    """A server's set-up. `deadline_ms` and `queue` are 0 where its own defaults are to stay."""

    model: str
    port: int
    workers: int = 2
    threads: int = 1
    batch: int = 8
    wait_ms: float = 5.0
    deadline_ms: int = 0
    queue: int = 0

    def environment(self) -> dict[str, str]:
        """The variable that carries it."""
        return {VARIABLE: json.dumps(asdict(self))}


def given() -> Plan:
    """The plan this process was started with."""
    return Plan(**json.loads(os.environ[VARIABLE]))
