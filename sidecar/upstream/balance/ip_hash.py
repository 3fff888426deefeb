# cython: language_level=3, annotation_typing=False
"""The same server for the same client: placed by its address, in the slots of nginx's `ip_hash`.

Of an IPv4 address the first three octets count, so a network of 256 stays together. A server keeps its slots
while it is down: its clients move, all others stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, ip_address
from typing import Final

from ...message import Request
from ..server import Server
from .round_robin import RoundRobin
from .slots import PLACES, Slots

#: What nginx takes for a client without an address: one that came over a UNIX socket.
_NO_ADDRESS: Final = bytes(3)
_REMEMBERED: Final = 4096  # clients whose octets are known without reading the text again


class IpHash:
    """nginx's `ip_hash`."""

    __slots__ = ("_rest", "_slots")

    def __init__(self, servers: Sequence[Server]) -> None:
        self._rest = RoundRobin(servers)
        self._slots = Slots(servers) if len(servers) > 1 else None

    def pick(self, request: Request, now: float, tried: Sequence[Server]) -> Server | None:
        """The client's server, or where its address leads next; after 20 misses whose turn it is."""
        slots = self._slots
        if slots is not None:
            octets = _octets(request.client)
            place = 89
            for _ in range(PLACES + len(tried)):
                for octet in octets:
                    place = (place * 113 + octet) % 6271
                server = slots.at(place)
                if server.is_usable(now) and server not in tried:
                    return server
        return self._rest.pick(request, now, tried)


@lru_cache(_REMEMBERED)
def _octets(client: str) -> bytes:
    """What is hashed of a client: an IP address as text, or anything else for one without."""
    try:
        address = ip_address(client)
    except ValueError:
        return _NO_ADDRESS
    return address.packed[:3] if isinstance(address, IPv4Address) else address.packed
