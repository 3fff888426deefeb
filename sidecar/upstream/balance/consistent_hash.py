# cython: language_level=3, annotation_typing=False
"""The same server for the same key, and when a server comes or goes only its keys move: ketama, as in nginx.

Each server has points on a ring, 160 for each unit of its weight, the numbers of Cache::Memcached::Fast. A
key belongs to the first point at or behind its own number. When that server cannot be asked, it goes on from
point to point.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Final
from zlib import crc32

from ...message import Request
from ..server import Server
from .base import usable
from .round_robin import RoundRobin, turn

_POINTS: Final = 160  # for each unit of weight
#: Points of a whole ring. Where the weights ask for more all servers have fewer, in proportion.
_MOST_POINTS: Final = 1 << 18
#: Points that are looked at before it pays to find out first who can be asked at all.
_CLOSE: Final = 8


class ConsistentHash:
    """nginx's `hash KEY consistent`. `key` makes what is hashed; one that is empty goes round robin.

    Servers whose `key` is the same (the addresses of one name) share its points and take turns.
    """

    __slots__ = ("_groups", "_key", "_numbers", "_owners", "_rest")

    def __init__(self, servers: Sequence[Server], key: Callable[[Request], bytes]) -> None:
        self._rest = RoundRobin(servers)
        self._key = key
        named: dict[str, list[Server]] = {}
        for server in servers:
            named.setdefault(server.key, []).append(server)
        self._groups = tuple(named.values())
        self._numbers, self._owners = _ring(named)

    def pick(self, request: Request, now: float, tried: Sequence[Server]) -> Server | None:
        """The key's server, or the next on the ring that can be asked."""
        key = self._key(request) if len(self._groups) > 1 else b""
        if not key:
            return self._rest.pick(request, now, tried)
        owners = self._owners
        at = bisect_left(self._numbers, crc32(key))
        for _ in range(_CLOSE):
            if at == len(owners):
                at = 0
            server = _one_of(self._groups[owners[at]], now, tried)
            if server is not None:
                return server
            at += 1
        return self._walk(at, now, tried)

    def _walk(self, at: int, now: float, tried: Sequence[Server]) -> Server | None:
        """The next from the point `at` on, by way of all points if need be."""
        groups = [usable(group, now, tried) for group in self._groups]
        if not any(groups):
            return None
        owners = self._owners
        while not groups[owners[at % len(owners)]]:
            at += 1
        return turn(groups[owners[at % len(owners)]], now)


def _one_of(group: list[Server], now: float, tried: Sequence[Server]) -> Server | None:
    if len(group) == 1:
        server = group[0]
        return server if server.is_usable(now) and server not in tried else None
    servers = usable(group, now, tried)
    return turn(servers, now) if servers else None


def _ring(named: dict[str, list[Server]]) -> tuple[array[int], array[int]]:
    """The numbers of the points, rising, and for each the index of the name it belongs to."""
    weights = [max(server.weight for server in group) for group in named.values()]
    each = min(_POINTS, _MOST_POINTS / sum(weights))
    points = sorted(
        number << 16 | owner
        for owner, (name, weight) in enumerate(zip(named, weights, strict=True))
        for number in _chain(name, max(1, round(each * weight)))
    )
    numbers, owners = array("I"), array("H")
    last = -1
    for point in points:
        number = point >> 16
        if number != last:
            numbers.append(number)
            owners.append(point & 0xFFFF)
            last = number
    return numbers, owners


def _chain(name: str, count: int) -> list[int]:
    """So many points of a server; fewer are the beginning of more."""
    base = crc32(_named(name))
    number, chain = 0, []
    for _ in range(count):
        number = crc32(number.to_bytes(4, "little"), base)
        chain.append(number)
    return chain


def _named(name: str) -> bytes:
    """HOST NUL PORT of an address as it is written; a UNIX socket is its path and has no port."""
    if name.startswith("unix:"):
        return name.removeprefix("unix:").encode() + b"\0"
    host, _, port = name.rpartition(":")
    return f"{host}\0{port}".encode()
