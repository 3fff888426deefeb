# cython: language_level=3, annotation_typing=False
"""Servers as rows of slots, one for each unit of weight: where a number leads, whoever is usable."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

from ..server import Server

#: Places that are looked at before hashing gives up (nginx: one, then 20 more). A server that was tried was
#: the answer once, which is no miss: its place comes on top.
PLACES: Final = 21


class Slots:
    """The sum of the weights as slots, in the order of the servers."""

    __slots__ = ("_ends", "_servers", "total")

    def __init__(self, servers: Sequence[Server]) -> None:
        self._servers = tuple(servers)
        self._ends = list(accumulate(server.weight for server in servers))
        self.total = self._ends[-1]

    def at(self, number: int) -> Server:
        """The server in whose slots `number`, not negative, falls; it wraps around."""
        return self._servers[bisect_right(self._ends, number % self.total)]
