"""The TCP ports of the service: those that the supervisor listens on itself, and one that it only keeps."""

from __future__ import annotations

import errno
import socket

from service.errors import StartError

_BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises StartError."""
    listener = _bind(host, port)
    try:
        listener.listen(_BACKLOG)
    except OSError as error:
        raise _taken(host, port, error) from None
    return listener


def listen_together(host: str, port: int, count: int) -> list[socket.socket]:
    """Several listening sockets on one port, among which the system shares connections out. Raises StartError."""
    first = keep(host, port)
    listeners = [first]
    for _ in range(count - 1):
        made = socket.socket(first.family, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(first.getsockname())
        listeners.append(made)
    for listener in listeners:
        listener.listen(_BACKLOG)
    return listeners


def keep(host: str, port: int) -> socket.socket:
    """A port for gRPC, whose library opens it by itself in the gateway: as long as this socket is open, to which nobody
    can connect, the port stays ours while one gateway takes the place of another. Raises StartError."""
    kept = _bind(host, port)
    # Nobody else had it; from here on, others of this user may have it too if they say so, as gRPC does.
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return kept


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except OSError as error:
        made.close()
        raise _taken(host, port, error) from None
    return made


def _taken(host: str, port: int, error: OSError) -> StartError:
    words = f"cannot listen on {host}:{port}: {error.strerror}"
    if error.errno == errno.EADDRINUSE:
        words += " (--http-port, --grpc-port and --admin-port take another one; 0 is any that is free)"
    return StartError(words)
