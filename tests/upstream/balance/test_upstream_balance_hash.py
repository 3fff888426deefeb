"""Plain hash: the numbers of nginx."""

from __future__ import annotations

from collections import Counter
from zlib import crc32

import pytest

from sidecar.upstream.balance.hash import Hash
from sidecar.upstream.server import Server
from tests.upstream.balance.fleet import NOBODY, NOW, fleet, name, names, path_key, request

KEYS = [f"/item/{number}" for number in range(600)]


def chosen(servers: list[Server], key: str, *tried: Server) -> str:
    """The name of the server for this key."""
    return name(Hash(servers, path_key).pick(request(key), NOW, tried))


@pytest.mark.parametrize(
    ("key", "server"),
    [("/", "3"), ("/api/users", "1"), ("/static/app.js", "3"), ("/a", "2"), ("/b", "3"), ("/c", "2")],
)
def test_three_equal_servers_as_in_nginx(key: str, server: str) -> None:
    assert chosen(fleet(1, 1, 1), key) == server


def test_the_next_place_is_that_of_the_key_with_a_count_before_it_added() -> None:
    servers = fleet(*[1] * 7)
    number = (crc32(b"/a") >> 16 & 0x7FFF) + (crc32(b"1/a") >> 16 & 0x7FFF)
    first = servers[int(chosen(servers, "/a")) - 1]
    assert chosen(servers, "/a", first) == str(number % 7 + 1)


def test_shares_follow_the_weights() -> None:
    seen = Counter(chosen(fleet(3, 2, 1), key) for key in KEYS)
    assert all(abs(seen[server] - share) < 50 for server, share in (("1", 300), ("2", 200), ("3", 100)))


def test_keys_of_a_server_that_is_down_move_and_no_others() -> None:
    before = {key: chosen(fleet(1, 1, 1), key) for key in KEYS}
    servers = fleet(1, 1, 1)
    servers[1].down = True
    after = {key: chosen(servers, key) for key in KEYS}
    assert {key for key in KEYS if before[key] != after[key]} == {key for key in KEYS if before[key] == "2"}


def test_an_empty_key_goes_round_robin() -> None:
    assert names(Hash(fleet(1, 1, 1), lambda _: b""), 6) == "1 2 3 1 2 3"


def test_after_twenty_misses_it_is_round_robin() -> None:
    servers = fleet(100_000, 1, 1)
    servers[0].down = True
    assert names(Hash(servers, lambda _: b"/"), 4) == "2 3 2 3"


def test_a_single_server_needs_no_key() -> None:
    assert name(Hash(fleet(1), path_key).pick(request(), NOW, NOBODY)) == "1"
