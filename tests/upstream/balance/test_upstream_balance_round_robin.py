"""Smooth weighted round robin: orders, shares, what failures and a slow start take."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.upstream.balance.round_robin import RoundRobin, turn
from sidecar.upstream.server import Server
from tests.upstream.balance.fleet import ANY, NOBODY, NOW, fleet, name, names

WEIGHTS = st.lists(st.integers(1, 50), min_size=1, max_size=8)


def picks(weights: list[int], count: int) -> list[int]:
    """The numbers, from 1, of the servers that are chosen."""
    return [int(name) for name in names(RoundRobin(fleet(*weights)), count).split()]


@pytest.mark.parametrize(
    ("weights", "order"),
    [
        ([1], "1 1 1"),
        ([1, 1, 1], "1 2 3 1 2 3"),
        ([5, 3, 1], "1 2 1 3 1 2 1 2 1" + " 1 2 1 3 1 2 1 2 1"),
        ([3, 1], "1 1 2 1 1 1 2 1"),
        ([5, 1, 1], "1 1 2 1 3 1 1" + " 1 1 2 1 3 1 1"),
        ([2, 2], "1 2 1 2"),
    ],
)
def test_the_order_is_that_of_smooth_weighted_round_robin(weights: list[int], order: str) -> None:
    assert picks(weights, len(order.split())) == [int(number) for number in order.split()]


def test_ninety_requests_at_5_3_1_are_50_30_and_10() -> None:
    assert Counter(picks([5, 3, 1], 90)) == {1: 50, 2: 30, 3: 10}


@given(WEIGHTS, st.integers(1, 3))
def test_shares_are_exact_over_each_round(weights: list[int], rounds: int) -> None:
    total = sum(weights)
    chosen = picks(weights, total * rounds)
    for at in range(0, len(chosen), total):
        assert Counter(chosen[at : at + total]) == dict(enumerate(weights, 1))


@given(st.lists(st.integers(1, 20), min_size=2, max_size=6))
def test_at_every_moment_nobody_is_far_from_its_share(weights: list[int]) -> None:
    total = sum(weights)
    seen: Counter[int] = Counter()
    for count, number in enumerate(picks(weights, total), 1):
        seen[number] += 1
        for server, weight in enumerate(weights, 1):
            assert abs(seen[server] - count * weight / total) < len(weights)


def test_who_cannot_be_asked_leaves_the_others_in_their_order() -> None:
    servers = fleet(1, 1, 1)
    servers[1].down = True
    assert names(RoundRobin(servers), 4) == "1 3 1 3"


def test_who_was_tried_gains_no_credit() -> None:
    servers = fleet(1, 1)
    balance = RoundRobin(servers)
    first = balance.pick(ANY, NOW, NOBODY)
    assert first is servers[0]
    assert balance.pick(ANY, NOW, [first]) is servers[1]
    assert names(balance, 2) == "2 1"


class _Model:
    """The same written down once more, as a table: what nginx keeps for a server and does with it."""

    def __init__(self, weights: list[int], max_fails: int) -> None:
        self.weights = weights
        self.max_fails = max_fails
        self.effective = list(weights)
        self.current = [0] * len(weights)

    def pick(self, tried: set[int]) -> int:
        running = [at for at in range(len(self.weights)) if at not in tried]
        for at in running:
            self.current[at] += self.effective[at]
        total = sum(self.effective[at] for at in running)
        for at in running:
            self.effective[at] = min(self.weights[at], self.effective[at] + 1)
        best = max(running, key=lambda at: (self.current[at], -at))
        self.current[best] -= total
        return best

    def fail(self, at: int) -> None:
        self.effective[at] = max(0, self.effective[at] - self.weights[at] // self.max_fails)


@given(st.lists(st.integers(1, 12), min_size=2, max_size=6), st.integers(1, 4), st.lists(st.booleans()))
def test_what_failures_take_from_a_weight_comes_back_by_one_a_turn(
    weights: list[int], max_fails: int, failures: list[bool]
) -> None:
    servers, model = fleet(*weights), _Model(weights, max_fails)
    balance = RoundRobin(servers)
    now = NOW
    for is_failing in failures:
        now += 100.0  # every ban is over
        for server in servers:
            server.max_fails = max_fails
        picked = balance.pick(ANY, now, NOBODY)
        assert picked is not None
        at = model.pick(set())
        assert picked is servers[at]
        if is_failing:
            picked.failed(now)
            model.fail(at)
            again = balance.pick(ANY, now, [picked])
            assert again is servers[model.pick({at})]
        assert [server.effective for server in servers] == model.effective


def test_a_failure_moves_requests_to_the_others_for_a_while() -> None:
    servers = fleet(5, 5)
    balance = RoundRobin(servers)
    for server in servers:
        server.max_fails = 2
    servers[0].failed(NOW)
    servers[0].failed(NOW)
    assert servers[0].effective == 1
    shares = Counter(name(balance.pick(ANY, NOW + 20.0, NOBODY)) for _ in range(6))
    assert shares["2"] > shares["1"]
    assert servers[0].effective == 5


def shares(servers: list[Server], now: float, count: int) -> list[int]:
    """How often each is chosen at one moment."""
    balance = RoundRobin(servers)
    seen = Counter(name(balance.pick(ANY, now, NOBODY)) for _ in range(count))
    return [seen[server.name] for server in servers]


@pytest.mark.parametrize(
    ("passed", "share"), [(0.0, 1), (3.0, 10), (15.0, 50), (29.0, 96), (30.0, 100), (300.0, 100)]
)
def test_a_recovered_server_gets_its_share_little_by_little(passed: float, share: int) -> None:
    servers = fleet(1, 1, 1)
    servers[2].slow_start = 30.0
    servers[2].state.recovered = NOW
    assert shares(servers, NOW + passed, 200 + share) == [100, 100, share]


def test_servers_that_all_start_slowly_share_as_ever() -> None:
    servers = fleet(3, 1)
    for server in servers:
        server.slow_start = 30.0
        server.state.recovered = NOW
    assert shares(servers, NOW, 40) == [30, 10]


def test_a_slow_start_leaves_the_others_as_they_were_when_it_is_over() -> None:
    servers = fleet(5, 3, 1)
    servers[0].slow_start = 7.0
    servers[0].state.recovered = NOW
    balance = RoundRobin(servers)
    for step in range(70):
        balance.pick(ANY, NOW + step / 10, NOBODY)
    seen = Counter(name(balance.pick(ANY, NOW + 7.0, NOBODY)) for _ in range(900))
    assert all(abs(seen[name] - share) <= 2 for name, share in (("1", 500), ("2", 300), ("3", 100)))


def test_a_turn_is_among_the_servers_it_is_given() -> None:
    servers = fleet(1, 1, 1)
    assert [turn(servers[1:], NOW).name for _ in range(4)] == ["2", "3", "2", "3"]
    assert servers[0].credit == 0
