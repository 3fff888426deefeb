"""From settings to the servers of a generation and to what chooses among them: to serve, or to explain it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from ..runtime import World
from ..wire.head import Limits
from .balance.base import Balance
from .balance.consistent_hash import ConsistentHash
from .balance.hash import Hash
from .balance.ip_hash import IpHash
from .balance.least_connections import LeastConnections
from .balance.least_time import LeastTime
from .balance.random_two import RandomTwo
from .balance.round_robin import RoundRobin
from .dialer import Dialer, Secure
from .pool import AnyPool, ServerPool
from .server import Server, State
from .servers import Spot
from .settings import Balancing, UpstreamSettings

#: Fields of a response head, and bytes of its first line.
_MOST_FIELDS: Final = 1000
_LONGEST_LINE: Final = 8192

#: Makes what chooses among servers that stand in for each other.
Balancer = Callable[[Sequence[Server]], Balance]

_MAKERS: Final[dict[str, Balancer]] = {
    "round_robin": RoundRobin,
    "least_connections": LeastConnections,
    "ip_hash": IpHash,
}


def make_server(spot: Spot, pool: AnyPool, state: State) -> Server:
    """The server of one generation at a place, as it is configured."""
    settings = spot.server
    server = Server(spot.name, pool, state, spot.weight)
    server.key = str(settings.address)
    server.max_fails = settings.max_fails
    server.fail_timeout = settings.fail_timeout
    server.limit = settings.max_connections
    server.slow_start = settings.slow_start
    server.backup = spot.backup
    server.down = settings.down
    return server


def make_pool(
    settings: UpstreamSettings, spot: Spot, keepalive: int, secure: Secure | None, world: World
) -> AnyPool:
    """The connections to the server at a place. `secure`: how TLS is spoken with it; None: it is not."""
    now = world.clock.monotonic
    if settings.is_multiplexed:
        from .multiplexed import MultiplexedPool  # who does not use it need not have it in memory

        dialer = Dialer(spot.addresses, secure, now)
        limits = response_limits(settings)
        return MultiplexedPool(dialer, limits, keepalive, settings.keepalive_timeout, world.tasks, now)
    first, *others = spot.addresses
    other = others[0] if others else None
    return ServerPool(first, keepalive, settings.keepalive_timeout, other, now, secure)


def response_limits(settings: UpstreamSettings) -> Limits:
    """What the head of a response may be."""
    return Limits(settings.max_header_size, _MOST_FIELDS, _LONGEST_LINE)


def balancer(balance: Balancing, chance: random.Random) -> Balancer:
    """The algorithm of an upstream. `chance` is for those that draw."""
    if balance.key is not None:
        return partial(ConsistentHash if balance.consistent else Hash, key=balance.key.render_bytes)
    if balance.name == "random_two":
        return partial(RandomTwo, chance=chance)
    if balance.name == "least_time":
        return partial(LeastTime, chance=chance)
    return _MAKERS[balance.name]
