# cython: language_level=3, annotation_typing=False
"""The server with the fewest attempts in progress for its weight; round robin among those that are equal."""

from __future__ import annotations

from collections.abc import Sequence

from ...message import Request
from ..server import Server
from .base import FULL, usable, weight
from .round_robin import turn


class LeastConnections:
    """Weighted least connections, as nginx does it."""

    __slots__ = ("_servers",)

    def __init__(self, servers: Sequence[Server]) -> None:
        self._servers = list(servers)

    def pick(self, request: Request, now: float, tried: Sequence[Server]) -> Server | None:
        """The server with least to do."""
        least: list[Server] = []
        active = share = 0
        for server in usable(self._servers, now, tried):
            its_active = server.state.active
            its_share = weight(server, now) if server.slow_start else server.weight * FULL
            # active / share, compared without the division.
            ours, its = active * its_share, its_active * share
            if its < ours or not least:
                least = [server]
                active, share = its_active, its_share
            elif its == ours:
                least.append(server)
        return turn(least, now) if least else None
