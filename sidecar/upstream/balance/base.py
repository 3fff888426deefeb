# cython: language_level=3, annotation_typing=False
"""What every algorithm promises, and the questions that several of them ask.

Law: `pick` names a server that is usable and was not tried, and whenever there is one it names one. It takes
nothing: the caller takes the server and gives it back, so load is counted in one place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from ...message import Request
from ..server import Server

#: Weights are counted in hundredths, so that a part of one is a whole number too.
FULL: Final = 100


class Balance(Protocol):
    """Chooses among servers that stand in for each other: the primaries of an upstream, or its backups."""

    def pick(self, request: Request, now: float, tried: Sequence[Server]) -> Server | None:
        """A usable server that is not in `tried`; None: there is none. `now` is monotonic, in seconds."""


def usable(servers: Sequence[Server], now: float, tried: Sequence[Server]) -> list[Server]:
    """Those that may be asked, in their order."""
    found = []
    for server in servers:
        if server.is_usable(now) and (not tried or server not in tried):
            found.append(server)
    return found


def ramp(server: Server, now: float) -> int:
    """The hundredths of its weight that a server has: 100, or fewer, at least 1, while it starts slowly."""
    recovered = server.state.recovered
    if not server.slow_start or not recovered:
        return FULL
    passed = now - recovered
    # It has never nothing: a server that is never asked has not recovered.
    return max(1, int(FULL * passed / server.slow_start)) if passed < server.slow_start else FULL


def weight(server: Server, now: float) -> int:
    """The weight in hundredths, which is less than configured while the server starts slowly."""
    return server.weight * ramp(server, now)


def is_busier(one: Server, other: Server, now: float) -> bool:
    """Whether `one` has more attempts in progress than `other`, each in relation to its weight."""
    return one.state.active * weight(other, now) > other.state.active * weight(one, now)
