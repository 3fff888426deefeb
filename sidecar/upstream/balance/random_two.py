# cython: language_level=3, annotation_typing=False
"""The less busy of two servers that are drawn by weight: the power of two choices.

Nearly as even as least connections, and many proxies in front of the same servers do not all run to the same
one, because each draws for itself.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from ...message import Request
from ..server import Server
from .base import is_busier
from .draw import Draw


class RandomTwo:
    """nginx's `random two least_conn`."""

    __slots__ = ("_draw",)

    def __init__(self, servers: Sequence[Server], chance: random.Random) -> None:
        self._draw = Draw(servers, chance)

    def pick(self, request: Request, now: float, tried: Sequence[Server]) -> Server | None:
        """The one of two with fewer attempts in progress for its weight."""
        two = self._draw.two(now, tried)
        if two is None:
            return None
        first, second = two
        # Equal, as when all are idle: the first, because that one was drawn exactly by weight.
        return second if is_busier(first, second, now) else first
