# cython: language_level=3, annotation_typing=False
"""The choice of a server: smooth weighted round robin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class _Turn(Generic[T]):
    __slots__ = ("current", "item", "weight")

    def __init__(self, item: T, weight: int) -> None:
        self.item = item
        self.weight = weight
        self.current = 0


class RoundRobin(Generic[T]):
    """Smooth weighted round robin, as nginx does it: 5:3:1 gives 1 2 1 3 1 2 1 2 1.

    Each pick adds every server's weight to its credit, takes the first with most credit and charges it the
    sum of the weights; so shares are exact over a round and no server is taken many times in a row.
    """

    def __init__(self, servers: Sequence[tuple[T, int]]) -> None:
        self._turns = [_Turn(item, weight) for item, weight in servers]
        self._total = sum(weight for _, weight in servers)
        self._only = servers[0][0] if len(servers) == 1 else None

    def pick(self) -> T:
        """The server whose turn it is."""
        if self._only is not None:
            return self._only
        best = self._turns[0]
        for turn in self._turns:
            turn.current += turn.weight
            if turn.current > best.current:
                best = turn
        best.current -= self._total
        return best.item
