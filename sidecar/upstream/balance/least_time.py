# cython: language_level=3, annotation_typing=False
"""The server that will probably answer first: by the time it took of late and by what it has to do.

The time is a peak EWMA: a slower answer counts at once and in full, faster ones win it back with a time
constant of ten seconds. While nothing is heard of a server its time falls in the same way, so that one that
was slow is asked again. Of two servers drawn by weight the better is taken, not the best of all: that costs
the same with a thousand servers, and many proxies do not all run to the same server before its time tells of
the crowd.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from math import exp
from typing import Final

from ...message import Request
from ..server import Server
from .base import is_busier, weight
from .draw import Draw

_DECAY: Final = 10.0  # seconds in which what was learned falls to 1/e
#: Seconds; a server is never thought faster, so that what it has to do counts always.
_FASTEST: Final = 1e-6


class LeastTime:
    """Peak EWMA of the time to the first byte × (attempts in progress + 1) / weight, the least of two."""

    __slots__ = ("_draw",)

    def __init__(self, servers: Sequence[Server], chance: random.Random) -> None:
        self._draw = Draw(servers, chance)

    def pick(self, request: Request, now: float, tried: Sequence[Server]) -> Server | None:
        """The one of two that will probably be faster."""
        two = self._draw.two(now, tried)
        if two is None:
            return None
        first, second = two
        return second if _is_slower(first, second, now) else first


def observe(server: Server, seconds: float, now: float) -> None:
    """An answer of this server began `seconds` after its attempt.

    A failure that came quickly says nothing about speed and must not be told; a timeout may be.
    """
    state = server.state
    if seconds >= state.time or not state.timed:
        state.time = seconds
    else:
        state.time = seconds + (state.time - seconds) * exp((state.timed - now) / _DECAY)
    state.timed = now


def _is_slower(one: Server, other: Server, now: float) -> bool:
    """Whether `one` costs more. One whose time is not known is asked once, then waited for."""
    if one.state.timed and other.state.timed:
        return _cost(one, now) > _cost(other, now)
    if one.state.timed:
        return not other.state.active
    if other.state.timed:
        return one.state.active > 0
    return is_busier(one, other, now)


def _cost(server: Server, now: float) -> float:
    state = server.state
    time = state.time * exp((state.timed - now) / _DECAY)
    return max(time, _FASTEST) * (state.active + 1) / weight(server, now)
