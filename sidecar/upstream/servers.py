"""From servers as they are written to servers that are asked: a name is as many as it has addresses.

The two families of a name are one: its first IPv4 address and its first IPv6 address make a server whose
connections take whichever answers first (RFC 8305), and so on. A service (RFC 2782) gives weight and
priority: targets of the lowest priority are asked, the others are backups, as with nginx.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import zip_longest
from typing import NamedTuple, Protocol

from ..config.addresses import Address
from .settings import Server, UpstreamSettings


class Found(Protocol):
    """One address behind a name."""

    @property
    def address(self) -> Address:
        """Numeric."""

    @property
    def priority(self) -> int:
        """Of its target, the lowest first."""

    @property
    def weight(self) -> int:
        """Of its target."""

    @property
    def name(self) -> str:
        """The host whose address it is."""


class Spot(NamedTuple):
    """A server that can be asked. `addresses` are numeric, or one UNIX socket: one, or one of each family."""

    server: Server
    addresses: tuple[Address, ...]
    weight: int
    backup: bool

    @property
    def name(self) -> str:
        """As the log names it."""
        return str(self.addresses[0])


def is_watched(server: Server) -> bool:
    """Whether a resolver has to say where it is."""
    return bool(server.address.service) or server.address.is_name


def spots(settings: UpstreamSettings, look: Callable[[Address], Iterable[Found]]) -> list[Spot]:
    """All servers of an upstream in the order they are written; `look` tells what is known of a name."""
    found: list[Spot] = []
    known: set[tuple[Address, ...]] = set()
    for server in settings.server.values():
        for spot in spots_of(server, look):
            # Two names may lead to one place; it has its share once.
            if spot.addresses not in known:
                known.add(spot.addresses)
                found.append(spot)
    return found


def spots_of(server: Server, look: Callable[[Address], Iterable[Found]]) -> Iterator[Spot]:
    """Those of one server: itself, or what its name leads to."""
    if not is_watched(server):
        yield Spot(server, (server.address,), server.weight, server.backup)
        return
    targets: dict[tuple[int, str, int], list[Found]] = {}
    for one in look(server.address):
        targets.setdefault((one.priority, one.name, one.address.port), []).append(one)
    first = min((priority for priority, _, _ in targets), default=0)
    for (priority, _, _), addresses in targets.items():
        is_backup = server.backup or priority > first
        weight = server.weight * max(1, addresses[0].weight)
        for pair in _paired([one.address for one in addresses]):
            yield Spot(server, pair, weight, is_backup)


def _paired(addresses: list[Address]) -> Iterator[tuple[Address, ...]]:
    six = [address for address in addresses if ":" in address.host]
    four = [address for address in addresses if ":" not in address.host]
    first, second = (six, four) if addresses and addresses[0] in six else (four, six)
    for one, other in zip_longest(first, second):
        yield tuple(address for address in (one, other) if address is not None)
