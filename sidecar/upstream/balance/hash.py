# cython: language_level=3, annotation_typing=False
"""The same server for the same key: nginx's plain `hash`, whose numbers are those of Cache::Memcached.

When the number of servers changes most keys move; see `consistent_hash` for the other way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from zlib import crc32

from ...message import Request
from ..server import Server
from .round_robin import RoundRobin
from .slots import PLACES, Slots


class Hash:
    """nginx's `hash KEY`. `key` makes what is hashed; a request whose key is empty goes round robin."""

    __slots__ = ("_key", "_rest", "_slots")

    def __init__(self, servers: Sequence[Server], key: Callable[[Request], bytes]) -> None:
        self._rest = RoundRobin(servers)
        self._key = key
        self._slots = Slots(servers) if len(servers) > 1 else None

    def pick(self, request: Request, now: float, tried: Sequence[Server]) -> Server | None:
        """The key's server, or where rehashing leads next; after 20 misses whose turn it is."""
        slots = self._slots
        key = self._key(request) if slots is not None else b""
        if slots is not None and key:
            place = 0
            for count in range(PLACES + len(tried)):
                hashed = crc32(b"%d%b" % (count, key)) if count else crc32(key)
                place += hashed >> 16 & 0x7FFF
                server = slots.at(place)
                if server.is_usable(now) and server not in tried:
                    return server
        return self._rest.pick(request, now, tried)
