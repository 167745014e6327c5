"""Every message that crosses a process boundary of the service.

Two conversations exist. On the *control* channel the supervisor starts, attaches and drains a child. On the *data*
channels whoever dispatches (the gateway, or the dispatcher where there are several) sends work to decoders and workers,
and several gateways hand in requests to the dispatcher. Each channel has a file here; processes import these and never
one another. All are tagged msgspec structs in MessagePack; images never travel here, only the number of the slot that
holds them.
"""

from __future__ import annotations

import msgspec


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of all messages: immutable, and encoded as an array with its type in front."""
