"""Random two: the less busy of two."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.upstream.balance.random_two import RandomTwo
from sidecar.upstream.server import Server
from tests.upstream.balance.fleet import ANY, NOBODY, NOW, fleet, name


def shares(servers: list[Server], count: int = 20_000) -> list[float]:
    """How often each is chosen, of 1."""
    balance = RandomTwo(servers, random.Random(5))
    seen = Counter(name(balance.pick(ANY, NOW, NOBODY)) for _ in range(count))
    return [seen[server.name] / count for server in servers]


def test_idle_servers_are_chosen_by_weight() -> None:
    assert shares(fleet(5, 3, 2)) == pytest.approx([0.5, 0.3, 0.2], abs=0.015)


@given(st.lists(st.integers(1, 9), min_size=2, max_size=6), st.data())
@settings(max_examples=30)
def test_the_busiest_is_never_chosen_while_there_is_another(weights: list[int], data: st.DataObject) -> None:
    servers = fleet(*weights)
    busiest = data.draw(st.sampled_from(servers))
    busiest.state.active = 1
    balance = RandomTwo(servers, random.Random(5))
    assert all(balance.pick(ANY, NOW, NOBODY) is not busiest for _ in range(20))


def test_busy_is_in_relation_to_the_weight() -> None:
    servers = fleet(1, 4)
    servers[0].state.active, servers[1].state.active = 2, 7
    assert shares(servers, 50) == [0.0, 1.0]
    servers[1].state.active = 9
    assert shares(servers, 50) == [1.0, 0.0]


def test_attempts_that_stay_are_nearly_even() -> None:
    """Chance alone would leave the fullest of ten with some 130 of 1,000; two choices leave it near 100."""
    servers = fleet(*[1] * 10)
    balance = RandomTwo(servers, random.Random(5))
    for _ in range(1000):
        picked = balance.pick(ANY, NOW, NOBODY)
        assert picked is not None
        picked.take(NOW)
    assert max(server.state.active for server in servers) <= 103


def test_two_proxies_do_not_choose_alike() -> None:
    one, other = (RandomTwo(fleet(1, 1, 1), random.Random(seed)) for seed in (1, 2))
    picks = [[name(balance.pick(ANY, NOW, NOBODY)) for _ in range(30)] for balance in (one, other)]
    assert picks[0] != picks[1]
