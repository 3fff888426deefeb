"""What every algorithm promises, for all of them; and what several of them ask."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.message import Request
from sidecar.upstream.balance.base import Balance, is_busier, ramp, usable, weight
from sidecar.upstream.balance.consistent_hash import ConsistentHash
from sidecar.upstream.balance.hash import Hash
from sidecar.upstream.balance.ip_hash import IpHash
from sidecar.upstream.balance.least_connections import LeastConnections
from sidecar.upstream.balance.least_time import LeastTime, observe
from sidecar.upstream.balance.random_two import RandomTwo
from sidecar.upstream.balance.round_robin import RoundRobin
from sidecar.upstream.server import Server
from tests.upstream.balance.fleet import ANY, NOBODY, NOW, REASONS, fleet, name, path_key, request

Make = Callable[[Sequence[Server]], Balance]
ALL: dict[str, Make] = {
    "round_robin": RoundRobin,
    "least_connections": LeastConnections,
    "ip_hash": IpHash,
    "hash": lambda servers: Hash(servers, path_key),
    "consistent_hash": lambda servers: ConsistentHash(servers, path_key),
    "random_two": lambda servers: RandomTwo(servers, random.Random(7)),
    "least_time": lambda servers: LeastTime(servers, random.Random(7)),
}
every = pytest.mark.parametrize("make", ALL.values(), ids=ALL)

#: (weight, why it cannot be asked or None, whether it was tried) of each server
FLEETS = st.lists(
    st.tuples(st.integers(1, 20), st.sampled_from([None, None, *REASONS]), st.booleans()),
    min_size=1,
    max_size=12,
)
REQUESTS = st.builds(
    request, st.sampled_from(["/", "/a", "/b/c"]), st.sampled_from(["192.0.2.7", "2001:db8::7", "unix:"])
)


@every
@given(kinds=FLEETS, asked=REQUESTS)
@settings(max_examples=60)
def test_who_can_be_asked_is_found_and_nobody_else(
    make: Make, kinds: list[tuple[int, Callable[[Server], None] | None, bool]], asked: Request
) -> None:
    servers = fleet(*[kind[0] for kind in kinds])
    balance = make(servers)
    for server, (_, spoil, _) in zip(servers, kinds, strict=True):
        if spoil is not None:
            spoil(server)
    tried = [server for server, kind in zip(servers, kinds, strict=True) if kind[2]]
    fit = [server for server in servers if server.is_usable(NOW) and server not in tried]
    for _ in range(4):
        picked = balance.pick(asked, NOW, tried)
        assert picked in fit if fit else picked is None


@every
@pytest.mark.parametrize("count", [1, 2, 5])
def test_one_request_can_try_all_servers_and_then_there_is_none(make: Make, count: int) -> None:
    servers = fleet(*range(1, count + 1))
    balance = make(servers)
    tried: list[Server] = []
    for _ in servers:
        picked = balance.pick(ANY, NOW, tried)
        assert picked is not None
        tried.append(picked)
    assert set(tried) == set(servers)
    assert balance.pick(ANY, NOW, tried) is None


@every
def test_a_choice_takes_nothing(make: Make) -> None:
    servers = fleet(1, 2, 3)
    balance = make(servers)
    for _ in range(20):
        balance.pick(ANY, NOW, NOBODY)
    assert [server.state.active for server in servers] == [0, 0, 0]


@every
@given(st.lists(st.sampled_from("tgf"), max_size=60), st.lists(st.integers(1, 9), min_size=1, max_size=5))
@settings(max_examples=40)
def test_no_count_is_ever_negative(make: Make, steps: list[str], weights: list[int]) -> None:
    """Attempts begin (t), end (g) and fail (f) in any order."""
    servers = fleet(*weights)
    balance = make(servers)
    running: list[Server] = []
    now = NOW
    for step in steps:
        now += 1.0
        if step == "t":
            picked = balance.pick(ANY, now, NOBODY)
            if picked is not None:
                picked.take(now)
                running.append(picked)
        elif running:
            ended = running.pop(0)
            if step == "f":
                ended.failed(now)
            else:
                observe(ended, 0.5, now)
            ended.give_back()
        assert all(server.state.active == running.count(server) for server in servers)
        assert all(0 <= server.effective <= server.weight and server.state.time >= 0.0 for server in servers)


@every
def test_a_thousand_servers_are_no_problem(make: Make) -> None:
    servers = fleet(*[1] * 1000)
    balance = make(servers)
    for server in servers[:-1]:
        server.down = True
    assert name(balance.pick(ANY, NOW, NOBODY)) == "1000"


def test_usable_keeps_the_order_and_leaves_out_what_was_tried() -> None:
    servers = fleet(1, 1, 1, 1)
    servers[0].down = True
    assert [server.name for server in usable(servers, NOW, NOBODY)] == ["2", "3", "4"]
    assert [server.name for server in usable(servers, NOW, [servers[2]])] == ["2", "4"]


@pytest.mark.parametrize(
    ("passed", "hundredths"), [(0.0, 1), (0.1, 1), (15.0, 50), (29.9, 99), (30.0, 100), (31.0, 100)]
)
def test_a_slow_start_gives_the_weight_back_linearly(passed: float, hundredths: int) -> None:
    (server,) = fleet(3)
    server.slow_start = 30.0
    server.state.recovered = NOW
    assert ramp(server, NOW + passed) == hundredths
    assert weight(server, NOW + passed) == 3 * hundredths


def test_who_never_recovered_or_has_no_slow_start_has_its_whole_weight() -> None:
    never, plain = fleet(1, 1)
    never.slow_start = 30.0
    plain.state.recovered = 1.0
    # Soon after the machine began the clock shows less than the slow start takes.
    assert ramp(never, 1.0) == ramp(plain, 1.0) == 100


@pytest.mark.parametrize(
    ("active", "busier"),
    [((1, 1), True), ((1, 2), False), ((1, 3), False), ((2, 3), True), ((0, 0), False), ((1, 0), True)],
)
def test_busier_is_in_relation_to_the_weight(active: tuple[int, int], busier: bool) -> None:
    one, other = fleet(1, 2)
    one.state.active, other.state.active = active
    assert is_busier(one, other, NOW) is busier
