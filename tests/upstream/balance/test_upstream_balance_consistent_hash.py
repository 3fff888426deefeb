"""Consistent hash: nginx's ring, and how little moves."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.upstream.balance import consistent_hash
from sidecar.upstream.balance.consistent_hash import ConsistentHash
from sidecar.upstream.server import Server
from tests.upstream.balance.fleet import ANY, NOBODY, NOW, fleet, name, names, path_key, request

REQUESTS = [request(f"/item/{number}") for number in range(2000)]


def placed(*keys: str, weights: tuple[int, ...] = ()) -> list[Server]:
    """Servers at these addresses."""
    servers = fleet(*(weights or [1] * len(keys)))
    for server, key in zip(servers, keys, strict=True):
        server.key = key
    return servers


def placements(servers: list[Server]) -> list[Server | None]:
    """The server of each of 2,000 keys."""
    balance = ConsistentHash(servers, path_key)
    return [balance.pick(asked, NOW, NOBODY) for asked in REQUESTS]


def chosen(servers: list[Server], key: str, *tried: Server) -> str:
    """The name of the server for this key."""
    return name(ConsistentHash(servers, path_key).pick(request(key), NOW, tried))


LOOPBACK = ("127.0.0.1:28101", "127.0.0.1:28102", "127.0.0.1:28103")
PRIVATE = ("10.0.1.10:8001", "10.0.1.11:8001", "10.0.1.12:8001")


@pytest.mark.parametrize(
    ("key", "loopback", "private"),
    [
        ("/", "3", "3"),
        ("/api/users", "3", "2"),
        ("/static/app.js", "3", "1"),
        ("/a", "3", "2"),
        ("/b", "1", "3"),
        ("/c", "3", "2"),
    ],
)
def test_keys_are_where_nginx_has_them(key: str, loopback: str, private: str) -> None:
    assert chosen(placed(*LOOPBACK), key) == loopback
    assert chosen(placed(*PRIVATE), key) == private


def test_the_place_does_not_depend_on_the_order_of_the_servers() -> None:
    forward = [server and server.key for server in placements(placed(*LOOPBACK))]
    assert [server and server.key for server in placements(placed(*reversed(LOOPBACK)))] == forward


ADDRESSES = st.lists(
    st.builds("10.0.{}.{}:{}".format, st.integers(0, 255), st.integers(1, 254), st.sampled_from([80, 8080])),
    min_size=2,
    max_size=8,
    unique=True,
)


@given(ADDRESSES, st.data())
@settings(max_examples=15)
def test_a_server_that_leaves_takes_only_its_own_keys_along(
    addresses: list[str], data: st.DataObject
) -> None:
    gone = data.draw(st.integers(0, len(addresses) - 1))
    before = placements(placed(*addresses))
    after = placements(placed(*addresses[:gone], *addresses[gone + 1 :]))
    for one, other in zip(before, after, strict=True):
        assert one is not None and other is not None
        assert one.key in (addresses[gone], other.key)


@given(ADDRESSES, st.data())
@settings(max_examples=15)
def test_a_server_that_is_down_is_as_one_that_left(addresses: list[str], data: st.DataObject) -> None:
    gone = data.draw(st.integers(0, len(addresses) - 1))
    servers = placed(*addresses)
    servers[gone].down = True
    left = placements(placed(*addresses[:gone], *addresses[gone + 1 :]))
    assert [server and server.key for server in placements(servers)] == [
        server and server.key for server in left
    ]


@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 1, 1, 1, 1, 1, 1, 1), (5, 3, 1), (10, 1)])
def test_shares_are_near_the_weights(weights: tuple[int, ...]) -> None:
    """160 points a unit: a share is within a third of what it should be, a small one within 1 % of all."""
    seen = Counter(server.name for server in placements(fleet(*weights)) if server)
    for number, weight in enumerate(weights, 1):
        share = len(REQUESTS) * weight / sum(weights)
        assert abs(seen[str(number)] - share) < max(share / 3, len(REQUESTS) / 100)


def test_with_most_servers_down_a_key_still_has_one_server() -> None:
    servers = placed(*[f"10.0.0.{number}:80" for number in range(1, 201)])
    for server in servers[5:]:
        server.down = True
    alone = placements(placed(*[str(server.key) for server in servers[:5]]))
    assert placements(servers) == [
        None if server is None else servers[int(server.name) - 1] for server in alone
    ]


def test_addresses_of_one_name_share_its_points_and_take_turns() -> None:
    servers = placed("app:80", "app:80", "other:80")
    balance = ConsistentHash(servers, path_key)
    single = placements(placed("app:80", "other:80"))
    for asked, server in zip(REQUESTS[:50], single, strict=False):
        picked = balance.pick(asked, NOW, NOBODY)
        assert server is not None and picked is not None and picked.key == server.key
    asked = next(
        asked for asked, server in zip(REQUESTS, single, strict=True) if server and server.key == "app:80"
    )
    assert sorted(names(balance, 4, asked).split()) == ["1", "1", "2", "2"]
    assert name(balance.pick(asked, NOW, [servers[0]])) == "2"
    servers[1].down = True
    assert names(balance, 2, asked) == "1 1"


def test_all_addresses_under_one_name_go_round_robin() -> None:
    assert names(ConsistentHash(placed("app:80", "app:80"), path_key), 4) == "1 2 1 2"


def test_an_empty_key_goes_round_robin() -> None:
    assert names(ConsistentHash(fleet(1, 1, 1), lambda _: b""), 6) == "1 2 3 1 2 3"


def test_a_single_server_needs_no_key() -> None:
    assert name(ConsistentHash(fleet(1), path_key).pick(ANY, NOW, NOBODY)) == "1"


def test_a_ring_is_bounded_and_keeps_its_proportions(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = placements(fleet(300, 200, 100))
    monkeypatch.setattr(consistent_hash, "_MOST_POINTS", 6000)
    balance = ConsistentHash(fleet(300, 200, 100), path_key)
    bounded = [balance.pick(asked, NOW, NOBODY) for asked in REQUESTS]
    for places in (whole, bounded):
        seen = Counter(name(server) for server in places)
        assert [round(seen[number] / 200) for number in "123"] == [5, 3, 2]
