# cython: language_level=3, annotation_typing=False
"""Smooth weighted round robin, as nginx does it: 5:3:1 gives 1 2 1 3 1 2 1 2 1.

Each turn adds every server's weight to its credit, takes the first with most credit and charges it the sum of
the weights; so shares are exact over a round and no server is taken many times in a row.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...message import Request
from ..server import Server
from .base import FULL, ramp, usable


class RoundRobin:
    """One after the other, by weight."""

    __slots__ = ("_only", "_servers")

    def __init__(self, servers: Sequence[Server]) -> None:
        self._servers = list(servers)
        self._only = servers[0] if len(servers) == 1 else None

    def pick(self, request: Request, now: float, tried: Sequence[Server]) -> Server | None:
        """The server whose turn it is."""
        only = self._only
        if only is not None:
            return only if only.is_usable(now) and only not in tried else None
        servers = usable(self._servers, now, tried)
        return turn(servers, now) if servers else None


def turn(servers: list[Server], now: float) -> Server:
    """The one of these servers, at least one, whose turn it is. The credit of the others grows.

    What failures took from a weight comes back by one a turn (nginx); who is not asked gains nothing.
    """
    best = servers[0]
    total = most = 0
    for server in servers:
        effective = server.effective
        if effective < server.weight:
            server.effective = effective + 1
        gain = effective * (ramp(server, now) if server.slow_start else FULL)
        total += gain
        credit = server.credit = server.credit + gain
        if server is best or credit > most:
            best, most = server, credit
    best.credit = most - total
    return best
