"""The one table of refusals: a code, its HTTP status, and the exception that carries it.

A refusal is an answer, not a failure of ours: its message goes to the client, so it never holds a path, a pid, a
traceback or a library's text.
"""

from __future__ import annotations

STATUS: dict[str, int] = {
    "bad_request": 400,
    "bad_option": 400,
    "unknown_level": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "unknown_model": 404,
    "unknown_version": 404,
    "method_not_allowed": 405,
    "slow_upload": 408,
    "body_too_large": 413,
    "image_too_large": 413,
    "unsupported_media_type": 415,
    "model_rejected": 422,
    "undecodable_image": 422,
    "unprocessable_image": 422,
    "overloaded": 429,
    "rate_limited": 429,
    "client_closed_request": 499,
    "internal": 500,
    "starting": 503,
    "model_loading": 503,
    "unavailable": 503,
    "deadline_exceeded": 504,
}


class Refusal(Exception):
    """A request that gets a typed error for an answer.

    `code` is a key of STATUS; `retry_after` is in seconds, for 429 and 503.
    """

    def __init__(self, code: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after = retry_after

    @property
    def status(self) -> int:
        """The HTTP status of this refusal."""
        return STATUS[self.code]


def bug() -> Refusal:
    """What a client is told of a bug of ours; its trace is in the log, for the operator."""
    return Refusal("internal", "an internal error; the operator can find it by the request id")


class ConfigError(Exception):
    """The service cannot start as configured; one line that names the key and the accepted values."""


class StartError(Exception):
    """The service cannot start, though it is configured well; one line that names what is in the way."""


class WireError(Exception):
    """A frame between processes was malformed, too long or cut short; the connection is of no more use."""


class FrameTooLong(WireError):
    """A message of ours is too long to send; nothing was sent, and the connection is as good as before."""
