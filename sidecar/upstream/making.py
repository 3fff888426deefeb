"""From settings to the servers of a generation and to what chooses among them: to serve, or to explain it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from .balance.base import Balance
from .balance.consistent_hash import ConsistentHash
from .balance.hash import Hash
from .balance.ip_hash import IpHash
from .balance.least_connections import LeastConnections
from .balance.least_time import LeastTime
from .balance.random_two import RandomTwo
from .balance.round_robin import RoundRobin
from .pool import ServerPool
from .server import Server, State
from .servers import Spot
from .settings import Balancing

#: Makes what chooses among servers that stand in for each other.
Balancer = Callable[[Sequence[Server]], Balance]

_MAKERS: Final[dict[str, Balancer]] = {
    "round_robin": RoundRobin,
    "least_connections": LeastConnections,
    "ip_hash": IpHash,
}


def make_server(spot: Spot, pool: ServerPool, state: State) -> Server:
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


def balancer(balance: Balancing, chance: random.Random) -> Balancer:
    """The algorithm of an upstream. `chance` is for those that draw."""
    if balance.key is not None:
        return partial(ConsistentHash if balance.consistent else Hash, key=balance.key.render_bytes)
    if balance.name == "random_two":
        return partial(RandomTwo, chance=chance)
    if balance.name == "least_time":
        return partial(LeastTime, chance=chance)
    return _MAKERS[balance.name]
