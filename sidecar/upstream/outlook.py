"""Which server of an upstream the next request would go to, and why the others would not: for `show`.

Law: the servers are looked at as if all were well and nobody had asked yet, and nothing is known of the
request: where the choice needs that, it is said what decides. What chooses when requests are served is not
loaded, for it brings all of the network with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import gcd
from typing import Final, NamedTuple

from ..config.addresses import Address
from .servers import Spot, is_watched, spots
from .settings import Balancing, UpstreamSettings

#: Servers that a text lists besides the one that is chosen.
LISTED: Final = 20


class Unresolved(NamedTuple):
    """A name in the place of what it leads to."""

    address: Address
    priority: int
    weight: int
    name: str


def unresolved(address: Address) -> Iterable[Unresolved]:
    """What a name leads to, when nobody asks where that is."""
    return (Unresolved(address, 0, 1, str(address)),)


def enumerated(names: Sequence[str]) -> str:
    """Servers in a sentence."""
    shown = [f"server.{name}" for name in names[:LISTED]]
    more = [f"{len(names) - LISTED} more"] if len(names) > LISTED else []
    return ", ".join(shown + more)


class _Manner(NamedTuple):
    """How an algorithm is told: what decides, and what a server has its share of."""

    how: Callable[[Balancing], str]
    shared: str
    about: str = ""  # in front of a share that is not exact
    takes_turns: bool = False


_MANNERS: Final[dict[str, _Manner]] = {
    "round_robin": _Manner(lambda _: "servers take turns by weight", "requests", takes_turns=True),
    "least_connections": _Manner(
        lambda _: "the server with the fewest requests for its weight is asked; when all are idle",
        "requests",
        takes_turns=True,
    ),
    "ip_hash": _Manner(
        lambda _: "the client's address decides, of IPv4 its first three octets",
        "addresses",
        "about ",
    ),
    "hash": _Manner(
        lambda balance: (
            f"the key {' '.join(str(balance.key).split())} decides"
            f"{', and few keys move when servers come or go' * balance.consistent}"
        ),
        "keys",
        "about ",
    ),
    "random_two": _Manner(lambda _: "of two that are drawn by weight the less busy one is asked", "draws"),
    "least_time": _Manner(lambda _: "of two that are drawn by weight the quicker one is asked", "draws"),
}


def outlook(settings: UpstreamSettings) -> Iterator[str]:
    """Sentences, a line each: how the next request is placed, then what is in store for every server."""
    look = _Outlook(settings)
    yield from look.beginning()
    yield from look.servers()
    yield from look.end()


class _Outlook:
    """The servers, and those of them among which one is chosen."""

    def __init__(self, settings: UpstreamSettings) -> None:
        self._settings = settings
        self._spots = spots(settings, unresolved)
        self._names = {server.address: name for name, server in settings.server.items()}
        fit = [spot for spot in self._spots if not spot.server.down]
        self._asked = [spot for spot in fit if not spot.backup] or fit
        self._part = gcd(*(spot.weight for spot in self._asked)) or 1
        self._parts = sum(spot.weight for spot in self._asked) // self._part
        self._manner = _MANNERS[settings.balance.name]
        self._first = self._choice()

    def _choice(self) -> Spot | None:
        """The server whose turn it is; None: there is none, or more than turns decides."""
        if not self._asked or not (self._manner.takes_turns or len(self._asked) == 1):
            return None
        # The first turn goes to the first of the heaviest, as nginx has it.
        return max(self._asked, key=lambda spot: spot.weight)

    def beginning(self) -> Iterator[str]:
        if not self._asked:
            yield "no server can be asked: 503, no_server"
            return
        if self._settings.sticky:
            yield f"a client whose cookie {self._settings.sticky} names a server goes there; else:"
        if len(self._asked) > 1:
            yield f"{self._manner.how(self._settings.balance)}:"

    def servers(self) -> Iterator[str]:
        listed = [spot for at, spot in enumerate(self._spots) if at < LISTED or spot is self._first]
        for spot in listed:
            most = 0 if spot.server.down else spot.server.max_connections
            limit = f"; at most {most} at one time" if most else ""
            yield f"server.{self._names[spot.server.address]}{self._told(spot)}{limit}"
        if len(listed) < len(self._spots):
            yield f"and {len(self._spots) - len(listed)} more"

    def _told(self, spot: Spot) -> str:
        if spot.server.down:
            return ": down, never asked"
        if spot not in self._asked:
            return ": backup, asked when no other can be"
        if len(self._asked) == 1:
            return f" is asked: {self._why_alone(spot)}"
        share = self._share(spot)
        if not self._manner.takes_turns:
            return f": {share}"
        return f" is asked first, {share}" if spot is self._first else f": its turn comes later, {share}"

    def _why_alone(self, spot: Spot) -> str:
        if spot.backup:
            return "a backup, but no other can be"
        return "the only server" if len(self._spots) == 1 else "no other can be while it is well"

    def _share(self, spot: Spot) -> str:
        manner = self._manner
        return f"{manner.about}{spot.weight // self._part} of {self._parts} {manner.shared}"

    def end(self) -> Iterator[str]:
        own = self._settings
        watched = [name for name, server in own.server.items() if is_watched(server)]
        if watched:
            counted = "it counts" if len(watched) == 1 else "each counts"
            yield f"{enumerated(watched)}: resolved when it runs, here {counted} as one address"
        if own.health_check is not None and own.health_start == "pending":
            yield "servers are asked only after their first good probe (health_start = pending)"
