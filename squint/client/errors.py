"""How a call fails. Whatever the service or the network does, it is one of these."""

from __future__ import annotations


class ClientError(Exception):
    """Base of all errors of this client; `request_id` finds the request in the service's log."""

    def __init__(self, message: str, request_id: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.request_id = request_id


class Refused(ClientError):
    """The service answered with an error.

    `code` is for programs and stable (docs/api.md lists all), `message` for people; `status` is the HTTP status, 0 for
    an image among several; `retry_after` is in seconds, where the service said when to come back.
    """

    def __init__(
        self, message: str, code: str, status: int, request_id: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(message, request_id)
        self.code = code
        self.status = status
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" + (f" (request {self.request_id})" if self.request_id else "")


class DeadlineExceeded(Refused):
    """No answer before the deadline: the service said so, or did not answer in time."""

    def __init__(self, message: str, request_id: str = "") -> None:
        super().__init__(message, "deadline_exceeded", 504, request_id)


class Unreachable(ClientError):
    """No answer began: no connection could be made, or it broke before."""


class Unreadable(ClientError):
    """What came is no answer of Squint: another server, another version, or an answer cut short."""
