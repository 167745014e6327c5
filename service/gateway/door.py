"""What all connections behind one port have in common, and which requests on them take the short way (see http.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from service.config import Limits
from service.gateway.addresses import Proxies
from service.gateway.exchange import Exchange, Headers, Taker
from service.gateway.reception import Room
from service.gateway.tls import Clients

Opening: TypeAlias = Callable[[Exchange], Taker]
"""Makes whoever serves an exchange."""


class Door:
    """Which requests take the short way: `posts` has who serves POST to each path; `find` is asked by method and path
    about those with a name in them."""

    def __init__(
        self,
        posts: Mapping[str, Opening],
        find: Callable[[bytes, str], Opening | None] = lambda method, path: None,
        extra_headers: Callable[[Exchange], Headers] | None = None,
        *,
        limits: Limits | None = None,
        room: Room | None = None,
        clients: Clients | None = None,
        admin: bool = False,
        refused: Callable[[str], None] = lambda code: None,
    ) -> None:
        self.by_path = dict(posts)
        self.by_raw_path = {path.encode("ascii"): opening for path, opening in posts.items()}
        self.find = find
        self.extra_headers = extra_headers
        """Headers that an answer to this request has besides its own."""
        self.limits = limits or Limits()
        self.room = room or Room(self.limits, Proxies(()))
        self.clients = clients
        """Whose certificates are accepted, where clients have some."""
        self.admin = admin
        """This is the operator's port."""
        self.refused = refused
        """Told the code of what is refused here, before it is a request of anyone's."""
