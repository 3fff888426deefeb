"""Least connections: by weight, ties by round robin."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.upstream.balance.least_connections import LeastConnections
from sidecar.upstream.balance.round_robin import RoundRobin
from tests.upstream.balance.fleet import ANY, NOBODY, NOW, fleet, name, names

LOADS = st.lists(st.tuples(st.integers(1, 12), st.integers(0, 40)), min_size=1, max_size=10)


@given(LOADS)
def test_nobody_has_less_to_do_for_its_weight_than_the_chosen(loads: list[tuple[int, int]]) -> None:
    servers = fleet(*[weight for weight, _ in loads])
    for server, (_, active) in zip(servers, loads, strict=True):
        server.state.active = active
    picked = LeastConnections(servers).pick(ANY, NOW, NOBODY)
    assert picked is not None
    least = min(Fraction(active, weight) for weight, active in loads)
    assert Fraction(picked.state.active, picked.weight) == least


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_idle_servers_are_asked_as_in_round_robin(weights: list[int]) -> None:
    count = 2 * sum(weights)
    assert names(LeastConnections(fleet(*weights)), count) == names(RoundRobin(fleet(*weights)), count)


def test_round_robin_is_among_the_equal_only() -> None:
    servers = fleet(1, 1, 1)
    servers[1].state.active = 1
    assert names(LeastConnections(servers), 4) == "1 3 1 3"
    assert servers[1].credit == 0


@pytest.mark.parametrize("weights", [(1, 1, 1), (5, 3, 1), (4, 1)])
def test_attempts_that_stay_are_spread_exactly_by_weight(weights: tuple[int, ...]) -> None:
    servers = fleet(*weights)
    balance = LeastConnections(servers)
    for _ in range(10 * sum(weights)):
        picked = balance.pick(ANY, NOW, NOBODY)
        assert picked is not None
        picked.take(NOW)
    assert [server.state.active for server in servers] == [10 * weight for weight in weights]


def test_a_server_that_is_slow_gets_less() -> None:
    servers = fleet(1, 1)
    balance = LeastConnections(servers)
    seen: Counter[str] = Counter()
    for step in range(30):
        picked = balance.pick(ANY, NOW, NOBODY)
        assert picked is not None
        seen[picked.name] += 1
        picked.take(NOW)
        if picked is servers[1] or step % 10 == 9:
            servers[picked is servers[1]].give_back()
    assert seen["2"] > 3 * seen["1"]


def test_a_recovered_server_is_not_run_over() -> None:
    servers = fleet(1, 1)
    servers[0].state.active = 10
    servers[1].slow_start = 30.0
    servers[1].state.recovered = NOW
    balance = LeastConnections(servers)
    chosen = []
    for _ in range(4):
        picked = balance.pick(ANY, NOW + 3.0, NOBODY)  # a tenth of its weight by now
        assert picked is not None
        picked.take(NOW)
        chosen.append(name(picked))
    # One attempt at a tenth of a weight is as much as ten at a whole one; then credit decides.
    assert chosen == ["2", "1", "2", "1"]
    assert servers[1].state.active == 2
