"""What an upstream is told: its servers, how one is chosen, and how long they may take.

The options of what it does when servers fail stand beside the code that does it, and are gathered here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import ceil
from typing import ClassVar, Final

from ..config.addresses import FLAG, Address, with_parameters
from ..config.kinds import DURATION, DURATION_OR_OFF, TEXT, TIMEOUT, choice, integer, size
from ..config.schema import Kind, Section, family, option, quoted
from ..template import Template
from .breaker import BreakerOptions
from .budget import BudgetOptions
from .concurrency import ConcurrencyOptions
from .health_check import HealthOptions
from .outlier import OutlierOptions
from .retry import RetryOptions
from .trust_settings import TrustOptions

_FAIL_TIMEOUT: Final = 10.0


@dataclass(frozen=True, slots=True)
class Server:
    """One server of an upstream: where it is, and its share of the requests beside the others."""

    address: Address
    weight: int = 1
    max_fails: int = 1
    fail_timeout: float = _FAIL_TIMEOUT
    max_connections: int = 0
    slow_start: float = 0.0
    backup: bool = False
    down: bool = False

    def __str__(self) -> str:
        """As it is written in the configuration."""
        return SERVER.show(self)


SERVER = with_parameters(
    Server,
    {
        "weight": integer(1, 1000),
        "max_fails": integer(0, 1000),
        "fail_timeout": DURATION,
        "max_connections": integer(1, 1_000_000),
        "slow_start": DURATION,
        "backup": FLAG,
        "down": FLAG,
    },
)


# How one is chosen -----------------------------------------------------------------------------------------

_PLAIN: Final = ("round_robin", "least_connections", "ip_hash", "random_two", "least_time")
#: These know beforehand which server is whose: a second set of servers has no meaning for them (nginx).
_WITHOUT_BACKUP: Final = ("ip_hash", "hash", "random_two")
#: These have a place for each unit of a weight, which does not grow after a recovery.
_BY_PLACE: Final = ("ip_hash", "hash")
_COOKIE_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")


@dataclass(frozen=True, slots=True)
class Balancing:
    """How the server of a request is chosen; `key` and `consistent` belong to `hash`."""

    name: str = "round_robin"
    key: Template | None = None
    consistent: bool = False

    def __str__(self) -> str:
        """As it is written in the configuration."""
        return f"hash {self.key}{' consistent' * self.consistent}" if self.key else self.name


def _parse_balancing(text: str) -> Balancing:
    words = text.split()
    if words[0] != "hash":
        if text not in _PLAIN:
            raise ValueError(
                f"{quoted(text)} is not a way to choose: write {', '.join(_PLAIN)} or hash {{key}}"
            )
        return Balancing(text)
    is_consistent = words[-1] == "consistent" and len(words) > 2
    key = " ".join(words[1 : len(words) - is_consistent])
    if not key:
        raise ValueError("hash needs a key: write hash {client_ip} or hash {request_uri} consistent")
    template = Template.parse(key)
    if template.constant is not None:
        raise ValueError(
            f"{quoted(key)} is the same for every request: write a variable, hash {{request_uri}}"
        )
    return Balancing("hash", template, is_consistent)


BALANCING: Final[Kind[Balancing]] = Kind(
    f"{' | '.join(_PLAIN)} | hash {{key}} [consistent]", _parse_balancing
)


def _parse_sticky(text: str) -> str:
    if text == "off":
        return ""
    kind, _, name = text.partition(" ")
    if kind != "cookie" or not _COOKIE_NAME.fullmatch(name.strip()):
        raise ValueError(f"{quoted(text)} is no way to stay with a server: write off or cookie NAME")
    return name.strip()


STICKY: Final[Kind[str]] = Kind(
    "off | cookie NAME", _parse_sticky, lambda value: f"cookie {value}" if value else "off"
)


@dataclass(frozen=True)
class ServerOptions:
    """Which servers there are, and how one is chosen."""

    server: dict[str, Server] = family(
        SERVER,
        "A server: host:port, [v6]:port, unix:/path or srv:NAME for SRV records; a name is all its "
        "addresses. Behind it weight= (its share, 1 to 1000), max_fails= and fail_timeout= (after so many "
        "failures in that time it is left alone as long; 1 and 10s), max_connections= (requests at one "
        "time), slow_start= (until it has its whole share again after a ban, an ejection or failed health "
        "checks), backup (asked when no other can be), down (never).",
    )
    balance: Balancing = option(Balancing(), BALANCING, "How the server of a request is chosen.")
    sticky: str = option(
        "", STICKY, "Whether a client stays with its server: by a signed cookie that the proxy sets."
    )
    sticky_key: str = option(
        "",
        TEXT,
        "By what sticky cookies are signed; empty: a random one until the process ends. Give it to all that "
        "serve the same clients.",
        secret=True,
    )


@dataclass(frozen=True)
class ConnectionOptions:
    """What connections to servers are granted. Times in seconds, sizes in bytes."""

    connect_timeout: float = option(5.0, TIMEOUT, "Longest time until a connection to a server stands.")
    send_timeout: float = option(
        60.0, TIMEOUT, "Longest wait until a server takes the next bytes of a request."
    )
    read_timeout: float = option(
        60.0,
        TIMEOUT,
        "Longest wait for the next bytes of a response; the silence of a gRPC call over HTTP/2 is bounded by "
        "tunnel_timeout alone.",
    )
    request_timeout: float = option(
        0.0,
        DURATION_OR_OFF,
        "Longest time for a whole exchange, from the wait for a server to the last byte; a gRPC call over "
        "HTTP/2 has its own in grpc-timeout, and the shorter one holds.",
    )
    tunnel_timeout: float = option(
        3600.0,
        TIMEOUT,
        "How long an upgraded connection (WebSocket), or a gRPC call over HTTP/2, may be silent in both "
        "directions.",
    )
    keepalive: int = option(64, integer(0, 10_000), "Idle connections kept for each server; 0: none.")
    keepalive_timeout: float = option(60.0, TIMEOUT, "How long an idle connection to a server is kept.")
    max_header_size: int = option(
        64 << 10, size(1 << 10, 1 << 20), "Largest response head in bytes; a larger one gets 502."
    )
    send_proxy: str = option(
        "off",
        choice("off", "v1", "v2"),
        "Whether connections to its servers begin with a PROXY header (v1 text, v2 binary) that names the "
        "client; each then serves one request or one TCP connection, none is kept.",
    )


@dataclass(frozen=True)
class QueueOptions:
    """Who waits when every server is at its limit. Times in seconds."""

    queue: int = option(
        100, integer(0, 100_000), "How many requests may wait when all servers are at their max_connections."
    )
    queue_timeout: float = option(5.0, DURATION, "How long a request may wait for a server.")


@dataclass(frozen=True, slots=True)
class UpstreamSettings(
    # The manual has the options in the order of the bases from the last to the first, as dataclasses do.
    ConcurrencyOptions,
    BreakerOptions,
    QueueOptions,
    OutlierOptions,
    HealthOptions,
    BudgetOptions,
    RetryOptions,
    TrustOptions,
    ConnectionOptions,
    ServerOptions,
    Section,
):
    """One `[upstream NAME]`. Times in seconds, sizes in bytes."""

    KIND: ClassVar[str] = "upstream"
    DOC: ClassVar[str] = "A group of servers that answer the same requests."

    def check(self) -> Iterable[tuple[str, str]]:
        """An upstream has a server that may be asked, and each server once."""
        yield from self._server_mistakes()
        yield from self.trust_mistakes(self.server)
        yield from self.health_mistakes()
        if self.health_check is not None and self.health_check.is_grpc and not self.is_multiplexed:
            yield "health_check", "grpc needs HTTP/2: write protocol = h2c, or h2 with TLS"
        yield from self.concurrency_mistakes()

    def _server_mistakes(self) -> Iterator[tuple[str, str]]:
        if not self.server:
            yield "server", "has no server: write at least one, server.a = 127.0.0.1:8000"
            return
        seen: dict[Address, str] = {}
        for name, server in self.server.items():
            first = seen.setdefault(server.address, name)
            if first != name:
                yield (
                    f"server.{name}",
                    f"{server.address} is server.{first} already: give one of them more weight",
                )
            if server.backup and self.balance.name in _WITHOUT_BACKUP:
                yield (
                    f"server.{name}",
                    f"balance = {self.balance.name} has no use for a backup: drop the word",
                )
        if all(server.backup for server in self.server.values()):
            yield "server", "has backups only: let one be no backup"

    def idle(self) -> Iterator[tuple[str, str]]:
        """Options that do nothing beside the others, each the key and why; `[defaults upstream]` may."""
        if self.sticky_key and not self.sticky:
            yield "sticky_key", "signs nothing without sticky: write sticky = cookie NAME, or drop it"
        yield from self._idle_parameters()
        yield from self._idle_keepalive()
        yield from self.trust_idle()
        yield from self.retry_idle()
        if self.why_once and self.retry_budget != BudgetOptions.retry_budget:
            yield "retry_budget", f"has no use with {self.why_once}: drop it, or allow more attempts"
        yield from self.health_idle()
        yield from self.eject_idle()
        yield from self._idle_share()
        yield from self._idle_queue()
        yield from self.breaker_idle()
        yield from self.concurrency_idle()

    def _idle_parameters(self) -> Iterator[tuple[str, str]]:
        for name, server in self.server.items():
            key = f"server.{name}"
            if not server.max_fails and server.fail_timeout != _FAIL_TIMEOUT:
                yield key, "fail_timeout= has no use with max_fails=0: drop it"
            if server.slow_start and self.balance.name in _BY_PLACE:
                yield key, f"slow_start= has no use with balance = {self.balance.name}: drop it"
            elif server.slow_start and not (server.max_fails or self.health_check or self.ejects):
                yield key, "slow_start= has no use with max_fails=0: add health_check or eject_…, or drop it"

    def _idle_keepalive(self) -> Iterator[tuple[str, str]]:
        if self.send_proxy != "off":
            for key in ("keepalive", "keepalive_timeout"):
                yield key, "no connection is kept with send_proxy: remove it"
        elif not self.keepalive:
            yield "keepalive_timeout", "no connection is kept with keepalive = 0: remove it"

    def _idle_share(self) -> Iterator[tuple[str, str]]:
        """A share of the servers that is not one of them; of names nobody knows how many they are."""
        count = sum(not server.down for server in self.server.values())
        is_known = not any(one.address.is_name or one.address.service for one in self.server.values())
        if self.ejects and is_known and count > 1 and self.eject_max * count < 100:
            yield "eject_max", f"is less than one of {count} servers: write at least {ceil(100 / count)}%"

    def _idle_queue(self) -> Iterator[tuple[str, str]]:
        if not any(server.max_connections for server in self.server.values()):
            for key in ("queue", "queue_timeout"):
                if getattr(self, key) != getattr(QueueOptions, key):
                    yield key, "nobody waits for servers without max_connections=: write that, or drop this"
        elif not self.queue and self.queue_timeout != QueueOptions.queue_timeout:
            yield "queue_timeout", "nobody waits with queue = 0: drop it"
