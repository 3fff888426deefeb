"""From settings to servers and to what chooses among them."""

from __future__ import annotations

import random
from typing import Any

import pytest

from sidecar.config.addresses import Address
from sidecar.template import Template
from sidecar.upstream.balance.consistent_hash import ConsistentHash
from sidecar.upstream.balance.hash import Hash
from sidecar.upstream.balance.ip_hash import IpHash
from sidecar.upstream.balance.least_connections import LeastConnections
from sidecar.upstream.balance.least_time import LeastTime
from sidecar.upstream.balance.random_two import RandomTwo
from sidecar.upstream.balance.round_robin import RoundRobin
from sidecar.upstream.making import balancer, make_server
from sidecar.upstream.pool import ServerPool
from sidecar.upstream.server import State
from sidecar.upstream.servers import Spot
from sidecar.upstream.settings import BALANCING, Balancing, Server
from tests.support.upstreams import NOWHERE, request_of, server


def test_a_server_is_made_as_it_is_configured() -> None:
    """By the place for the log and the connections, by what is written for the hash."""
    written = Server(Address("app.test", 80), 5, 3, 7.0, 9, 4.0, down=True)
    pool, state = ServerPool(NOWHERE, 4, 60.0), State()
    made = make_server(Spot(written, (NOWHERE,), 10, True), pool, state)
    assert (made.name, made.key, made.weight) == ("127.0.0.1:1", "app.test:80", 10)
    assert (made.max_fails, made.fail_timeout, made.limit, made.slow_start) == (3, 7.0, 9, 4.0)
    assert (made.backup, made.down) == (True, True)
    assert (made.pool, made.state) == (pool, state)


@pytest.mark.parametrize(
    ("written", "kind"),
    [
        ("round_robin", RoundRobin),
        ("least_connections", LeastConnections),
        ("ip_hash", IpHash),
        ("random_two", RandomTwo),
        ("least_time", LeastTime),
        ("hash {path}", Hash),
        ("hash {path} consistent", ConsistentHash),
    ],
)
def test_every_way_to_choose_is_made(written: str, kind: type[Any]) -> None:
    servers = [server("a"), server("b")]
    made = balancer(BALANCING.parse(written), random.Random(1))(servers)
    assert isinstance(made, kind)
    assert made.pick(request_of(), 0.0, ()) in servers


def test_chance_is_given() -> None:
    servers = [server("a"), server("b")]

    def drawn(seed: int) -> list[str]:
        made = balancer(Balancing("random_two"), random.Random(seed))(servers)
        return [picked.name for _ in range(30) if (picked := made.pick(request_of(), 0.0, ()))]

    assert drawn(1) == drawn(1) != drawn(2)


def test_a_hash_is_of_its_key() -> None:
    servers = [server(name) for name in "abcd"]
    made = balancer(Balancing("hash", Template.parse("{header.x}")), random.Random(1))(servers)
    picked = {
        made.pick(request_of(b"GET / HTTP/1.1\r\nHost: a\r\nX: %d\r\n\r\n" % key), 0.0, ())
        for key in (7, 7, 7)
    }
    assert len(picked) == 1
