"""Which server of an upstream a request would go to, and why the others would not: for `explain`.

Law: what chooses is what chooses when requests are served. The servers are looked at as if all were well and
nobody had asked yet, and a name, which is resolved when it is served, as if it were one address.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, cast

from ..config.schema import quoted
from ..message import Request
from .budget import Budget
from .group import Group, Queue
from .making import balancer, make_server
from .outlook import LISTED, enumerated, unresolved
from .pool import ServerPool
from .server import Server, State
from .servers import is_watched, spots
from .settings import UpstreamSettings
from .sticky import Sticky

#: What is spoken with servers, for people.
_SPOKEN: Final = {"https": "HTTP/1.1 over TLS", "h2c": "HTTP/2 without TLS", "h2": "HTTP/2 over TLS"}

#: They draw: nobody knows for whom.
_BY_CHANCE: Final = ("random_two", "least_time")


class Prospect(NamedTuple):
    """A server, and what is in store for it. `share` in percent of requests such as this; None: not known."""

    name: str  # `a` of server.a
    address: str  # as it is written
    is_chosen: bool
    share: float | None
    why: str


class Preview(NamedTuple):
    """An upstream's answer to one request. `share` in percent: its part of the requests of the route."""

    upstream: str
    share: int
    balance: str
    servers: list[Prospect]
    notes: list[str]  # sentences about all of it

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "upstream": self.upstream,
            "share": self.share,
            "balance": self.balance,
            "servers": [
                {
                    "server": one.name,
                    "address": one.address,
                    "chosen": one.is_chosen,
                    "share": None if one.share is None else round(one.share, 3),
                    "why": one.why,
                }
                for one in self.servers
            ],
            "notes": self.notes,
        }

    def lines(self) -> Iterator[str]:
        """The same for people. The server that is chosen has a mark in front."""
        part = "" if self.share == 100 else f", {self.share}% of the requests"
        yield f"upstream {self.upstream}, balance {self.balance}{part}:"
        listed = [one for at, one in enumerate(self.servers) if at < LISTED or one.is_chosen]
        for one in listed:
            yield f"  {'>' if one.is_chosen else ' '} server.{one.name} {one.address}: {one.why}"
        if len(listed) < len(self.servers):
            yield f"    and {len(self.servers) - len(listed)} more (--json lists them all)"
        for note in self.notes:
            yield f"    {note}"


def preview(name: str, share: int, settings: UpstreamSettings, request: Request) -> Preview:
    """What the upstream `name`, which has `share` percent of its route's requests, does with this one."""
    return _Look(name, settings, request).preview(share)


class _Look:
    """A group of servers without connections, and a request to ask it for."""

    def __init__(self, name: str, settings: UpstreamSettings, request: Request) -> None:
        self._name = name
        self._settings = settings
        self._request = request
        found = spots(settings, unresolved)
        # Nobody connects to them.
        self._servers = [make_server(spot, cast(ServerPool, None), State()) for spot in found]
        names = {server.address: key for key, server in settings.server.items()}
        self._names = {
            made: names[spot.server.address] for made, spot in zip(self._servers, found, strict=True)
        }
        self._watched = [key for key, server in settings.server.items() if is_watched(server)]
        self._sticky = self._stickiness()
        # Who draws is not asked to.
        chosen_by = balancer(settings.balance, random.Random(0))
        self._group = Group(settings, Queue(), Budget(settings.retry_budget), lambda: 0.0)
        self._group.replace(self._servers, chosen_by, self._sticky)
        self._asked = _askable(self._servers)
        self._first, self._next = self._choice()

    def _stickiness(self) -> Sticky | None:
        own = self._settings
        if not own.sticky or not own.sticky_key:
            return None
        return Sticky(own.sticky, own.sticky_key.encode(), self._name, self._servers)

    def _choice(self) -> tuple[Server | None, Server | None]:
        """The server of the request, and the one that is asked when that fails; None: not known."""
        if self._is_drawn and not self._is_known:
            return None, None
        first = self._pick(())
        return first, None if first is None or self._is_drawn else self._pick((first,))

    def _pick(self, tried: Sequence[Server]) -> Server | None:
        return self._group.pick(self._request, 0.0, tried)

    @property
    def _is_drawn(self) -> bool:
        return self._settings.balance.name in _BY_CHANCE and len(self._asked) > 1

    @property
    def _is_known(self) -> bool:
        """Whether the client's cookie names a server that can be asked; a backup is one."""
        return self._named_by_cookie is not None and self._named_by_cookie.is_fit(0.0)

    @property
    def _named_by_cookie(self) -> Server | None:
        return None if self._sticky is None else self._sticky.find(self._request)

    # -- what is said

    def preview(self, share: int) -> Preview:
        own = self._settings
        prospects = [
            Prospect(
                self._names[server],
                str(own.server[self._names[server]].address),
                server is self._first,
                self._share(server),
                self._why(server),
            )
            for server in self._servers
        ]
        return Preview(self._name, share, str(own.balance), prospects, list(self._notes()))

    @property
    def _key(self) -> str | None:
        """What this request is placed by, for people; None: servers take turns."""
        balance = self._settings.balance
        if len([server for server in self._servers if not server.backup]) < 2:
            return None
        if balance.name == "ip_hash":
            return f"the client {self._request.client}"
        key = b"" if balance.key is None else balance.key.render_bytes(self._request)
        return f"the key {quoted(key.decode('utf-8', 'backslashreplace'))}" if key else None

    def _share(self, server: Server) -> float | None:
        if self._is_known or self._key is not None:
            return 100.0 if server is self._first else 0.0
        if server not in self._asked:
            return 0.0
        if self._settings.balance.name == "least_time" and self._is_drawn:
            return None
        return self._part(server)

    def _part(self, server: Server) -> float:
        return 100.0 * server.weight / sum(one.weight for one in self._asked)

    def _why(self, server: Server) -> str:
        if server.down:
            return "down, never asked"
        limit = f"; at most {server.limit} requests at one time" if server.limit else ""
        return self._reason(server) + limit

    def _reason(self, server: Server) -> str:
        if self._is_known and server is self._first:
            return f"the cookie {self._settings.sticky} names it"
        if server not in self._asked:
            return "backup, asked when no other can be"
        if self._is_known:
            return f"the cookie {self._settings.sticky} names another{self._follows(server)}"
        if len(self._servers) == 1:
            return "the only server"
        if len(self._asked) == 1:
            return "a backup, but no other can be asked" if server.backup else "no other can be asked"
        key = self._key
        if key is None:
            return self._turn(server)
        if server is self._first:
            return f"{key} leads here"
        return f"{key} leads elsewhere{self._follows(server)}"

    def _follows(self, server: Server) -> str:
        return ", here when that one cannot be asked" if server is self._next else ""

    def _turn(self, server: Server) -> str:
        part = _percent(self._part(server))
        name = self._settings.balance.name
        if name == "least_time":
            return f"drawn in {part} of the cases, and taken when it is the quicker of two"
        if name == "random_two":
            return f"drawn for {part} of the requests, and taken when it is the less busy of two"
        condition = " while all are as busy for their weight" if name == "least_connections" else ""
        if server is self._first:
            return f"its turn is the first, it gets {part} of the requests{condition}"
        return f"gets {part} of the requests{condition}"

    def _notes(self) -> Iterator[str]:
        own = self._settings
        if not self._asked:
            yield "no server can be asked: 503, no_server"
        if own.balance.key is not None and self._key is None and len(self._asked) > 1:
            yield f"{own.balance.key} is empty for this request: servers take turns"
        yield from self._notes_of_cookie()
        if own.protocol != "http":
            yield f"protocol = {own.protocol}: {_SPOKEN[own.protocol]}{self._trusted}"
        if self._watched:
            counted = "it counts" if len(self._watched) == 1 else "each counts"
            yield f"{enumerated(self._watched)}: resolved when it runs, here {counted} as one address"
        if own.health_check is not None and own.health_start == "pending":
            yield "servers are asked only after their first good probe (health_start = pending)"

    @property
    def _trusted(self) -> str:
        """Whether servers have to prove who they are, for people."""
        if not self._settings.is_secure:
            return ""
        return (
            ", certificates are verified" if self._settings.tls_verify else ", nobody looks at certificates"
        )

    def _notes_of_cookie(self) -> Iterator[str]:
        own = self._settings
        if not own.sticky or self._is_known:
            return
        if not _has_cookie(self._request, own.sticky):
            yield f"the answer sets the cookie {own.sticky}: the client comes back to the same server"
        elif not own.sticky_key:
            yield f"the cookie {own.sticky} may name a server: its key is known where it runs (no sticky_key)"
        elif self._named_by_cookie is None:
            known = " whose addresses are written" if self._watched else ""
            yield f"the cookie {own.sticky} names none of the servers{known}"
        else:
            yield f"the cookie {own.sticky} names server.{self._names[self._named_by_cookie]}, which is down"


def _askable(servers: Sequence[Server]) -> list[Server]:
    """Those among whom one is chosen: the primaries, or backups when there is no other."""
    fit = [server for server in servers if server.is_fit(0.0)]
    return [server for server in fit if not server.backup] or fit


def _has_cookie(request: Request, name: str) -> bool:
    pairs = (pair for line in request.head.get_all(b"cookie") for pair in line.split(b";"))
    return any(pair.partition(b"=")[0].strip(b" \t") == name.encode() for pair in pairs)


def _percent(part: float) -> str:
    if part < 0.1:
        return "less than 0.1%"
    return f"{part:.0f}%" if part >= 1.0 else f"{part:.1f}%"
