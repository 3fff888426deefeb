# cython: language_level=3, annotation_typing=False
"""A route whose requests are shared out among several upstreams, exactly: 90% are nine of every ten."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from ..message import Request

T = TypeVar("T")


class Split(Generic[T]):
    """Smooth weighted round robin over ends of routes, each with its part of a hundred."""

    __slots__ = ("_credits", "_ends", "_parts")

    def __init__(self, ends: Sequence[tuple[Callable[[Request], T], int]]) -> None:
        self._ends = [end for end, _ in ends]
        self._parts = [part for _, part in ends]
        self._credits = [0] * len(ends)

    def __call__(self, request: Request) -> T:
        """Answer from the upstream whose turn it is. Raises Failure."""
        credits = self._credits
        best = 0
        for at, part in enumerate(self._parts):
            credits[at] += part
            if credits[at] > credits[best]:
                best = at
        credits[best] -= 100
        return self._ends[best](request)
