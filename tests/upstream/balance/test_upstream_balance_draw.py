"""The lottery: exact in its weights, whoever can be asked."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from sidecar.upstream.balance.draw import Draw
from sidecar.upstream.server import Server
from tests.upstream.balance.fleet import NOBODY, NOW, fleet

DRAWS = 20_000


def first_shares(servers: list[Server], *tried: Server, now: float = NOW) -> list[float]:
    """How often each server is drawn first, of 1."""
    draw = Draw(servers, random.Random(3))
    seen: Counter[str] = Counter()
    for _ in range(DRAWS):
        two = draw.two(now, tried)
        assert two is not None
        seen[two[0].name] += 1
    return [seen[server.name] / DRAWS for server in servers]


def test_each_is_drawn_by_its_weight() -> None:
    assert first_shares(fleet(5, 3, 2)) == pytest.approx([0.5, 0.3, 0.2], abs=0.015)


def test_who_cannot_be_asked_leaves_its_share_to_the_others() -> None:
    servers = fleet(5, 3, 2)
    servers[0].down = True
    assert first_shares(servers) == pytest.approx([0.0, 0.6, 0.4], abs=0.015)
    assert first_shares(servers, servers[1]) == [0.0, 0.0, 1.0]


def test_who_starts_slowly_is_drawn_by_what_it_has_of_its_weight() -> None:
    servers = fleet(2, 2)
    servers[0].slow_start = 10.0
    servers[0].state.recovered = NOW
    assert first_shares(servers, now=NOW + 5.0) == pytest.approx([1 / 3, 2 / 3], abs=0.015)


def test_the_second_is_another_drawn_by_weight() -> None:
    draw = Draw(fleet(5, 3, 2), random.Random(3))
    seen: Counter[str] = Counter()
    for _ in range(DRAWS):
        two = draw.two(NOW, NOBODY)
        assert two is not None
        assert two[0] is not two[1]
        if two[0].name == "1":
            seen[two[1].name] += 1
    assert seen["2"] / seen.total() == pytest.approx(0.6, abs=0.02)


def test_the_only_one_is_drawn_twice() -> None:
    servers = fleet(1, 1)
    servers[0].down = True
    assert Draw(servers, random.Random(3)).two(NOW, NOBODY) == (servers[1], servers[1])


def test_nobody_is_drawn_when_nobody_can_be_asked() -> None:
    servers = fleet(1, 1)
    assert Draw(servers, random.Random(3)).two(NOW, servers) is None


def test_the_same_chance_gives_the_same_servers() -> None:
    one, other = Draw(fleet(1, 2, 3), random.Random(9)), Draw(fleet(1, 2, 3), random.Random(9))
    for _ in range(50):
        first, second = one.two(NOW, NOBODY), other.two(NOW, NOBODY)
        assert first is not None and second is not None
        assert [server.name for server in first] == [server.name for server in second]
