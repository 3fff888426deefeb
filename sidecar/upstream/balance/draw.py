# cython: language_level=3, annotation_typing=False
"""A lottery among servers: each is drawn as often as its weight says, whoever cannot be asked never."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from ..server import Server
from .base import FULL, ramp, usable, weight


class Draw:
    """Draws with `chance`. Costs no more with a thousand servers than with two while most are usable."""

    __slots__ = ("_chance", "_ends", "_servers", "_total")

    def __init__(self, servers: Sequence[Server], chance: random.Random) -> None:
        self._servers = tuple(servers)
        self._ends = list(accumulate(server.weight for server in servers))
        self._total = self._ends[-1]
        self._chance = chance.random

    def two(self, now: float, tried: Sequence[Server]) -> tuple[Server, Server] | None:
        """Two usable servers that were not tried, the same one twice when there is no other; None: no one."""
        first = self._lucky(now, tried)
        second = self._lucky(now, tried)
        if first is None or second is None or first is second:
            return self._two_of(usable(self._servers, now, tried), first, now)
        return first, second

    def _lucky(self, now: float, tried: Sequence[Server]) -> Server | None:
        """Who is drawn from all; None when that one does not count."""
        server = self._servers[bisect_right(self._ends, self._chance() * self._total)]
        if not server.is_usable(now) or server in tried:
            return None
        # A drawn server that starts slowly is put back as often as its weight is smaller than configured.
        if server.slow_start and self._chance() * FULL >= ramp(server, now):
            return None
        return server

    def _two_of(
        self, servers: list[Server], first: Server | None, now: float
    ) -> tuple[Server, Server] | None:
        """The same, drawn from the servers that count."""
        if not servers:
            return None
        if first is None:
            first = self._of(servers, now)
        if len(servers) == 1:
            return first, first
        servers.remove(first)
        return first, self._of(servers, now)

    def _of(self, servers: list[Server], now: float) -> Server:
        ends = list(accumulate(weight(server, now) for server in servers))
        return servers[bisect_right(ends, self._chance() * ends[-1])]
