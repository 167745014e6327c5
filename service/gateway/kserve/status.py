"""The statuses that Triton itself answers with, for clients that go by them."""

from __future__ import annotations

from service.config import Config
from service.errors import Refusal

_KEPT = (401, 403, 404, 405, 499, 500)
_SAID = {
    "overloaded": 503,
    "rate_limited": 503,
    "deadline_exceeded": 503,
    "starting": 400,
    "unavailable": 400,
    "model_loading": 400,
}


def of(config: Config, refusal: Refusal) -> int:
    """The HTTP status of a refusal, as the operator chose it for clients of this protocol."""
    return triton(refusal) if config.triton_status_codes else refusal.status


def triton(refusal: Refusal) -> int:
    """Triton's HTTP status for a refusal: 503 for a full queue, for one who asks too often and for a deadline that has
    passed, 400 for what is not ready and for whatever is wrong with a request."""
    return _SAID.get(refusal.code) or (refusal.status if refusal.status in _KEPT else 400)
