"""The choice of a server."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.upstream.balance import RoundRobin


def picks(weights: list[int], count: int) -> list[int]:
    """The numbers, from 1, of the servers that are chosen."""
    balance = RoundRobin([(number, weight) for number, weight in enumerate(weights, 1)])
    return [balance.pick() for _ in range(count)]


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([1], [1, 1, 1]),
        ([1, 1, 1], [1, 2, 3, 1, 2, 3]),
        ([5, 3, 1], [1, 2, 1, 3, 1, 2, 1, 2, 1] * 2),
        ([3, 1], [1, 1, 2, 1] * 2),
        ([5, 1, 1], [1, 1, 2, 1, 3, 1, 1] * 2),
        ([2, 2], [1, 2, 1, 2]),
    ],
)
def test_the_order_is_that_of_smooth_weighted_round_robin(weights: list[int], expected: list[int]) -> None:
    assert picks(weights, len(expected)) == expected


def test_ninety_requests_at_5_3_1_are_50_30_and_10() -> None:
    assert Counter(picks([5, 3, 1], 90)) == {1: 50, 2: 30, 3: 10}


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.integers(1, 3))
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
