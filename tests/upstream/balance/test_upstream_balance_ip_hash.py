"""ip_hash: the slots of nginx."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.upstream.balance.ip_hash import IpHash
from sidecar.upstream.server import Server
from tests.upstream.balance.fleet import ANY, NOBODY, NOW, fleet, name, names, request, turn_off

CLIENTS = [f"10.{high}.{low}.9" for high in range(5) for low in range(100)]

VECTORS = [
    ("10.0.0.1", 2565, "1"),
    ("10.0.0.254", 2565, "1"),
    ("10.0.1.1", 2566, "2"),
    ("192.168.1.10", 154, "2"),
    ("127.0.0.1", 4040, "3"),
    ("203.0.113.7", 2592, "1"),
]


def chosen(servers: list[Server], client: str, *tried: Server) -> str:
    """The name of the server for this client."""
    return name(IpHash(servers).pick(request(client=client), NOW, tried))


@pytest.mark.parametrize(("client", "_", "server"), VECTORS)
def test_three_equal_servers_as_in_nginx(client: str, _: int, server: str) -> None:
    assert chosen(fleet(1, 1, 1), client) == server


@pytest.mark.parametrize(("client", "place", "_"), VECTORS)
def test_the_number_of_a_client_is_that_of_nginx(client: str, place: int, _: str) -> None:
    """With 6271 slots in all the number is the slot."""
    assert chosen(fleet(place, 1, 6270 - place), client) == "2"


@given(st.ip_addresses(v=4), st.integers(0, 255))
def test_a_network_of_256_stays_together(address: object, last: int) -> None:
    servers = fleet(5, 3, 1)
    neighbour = ".".join([*str(address).split(".")[:3], str(last)])
    assert chosen(servers, str(address)) == chosen(servers, neighbour)


@given(st.ip_addresses(v=6))
def test_every_octet_of_an_ipv6_address_counts(address: object) -> None:
    place = 89
    for octet in ip_address(str(address)).packed:
        place = (place * 113 + octet) % 6271
    assert chosen(fleet(1, 1, 1, 1, 1, 1, 1), str(address)) == str(place % 7 + 1)


def test_clients_without_an_address_are_one_client() -> None:
    """Three octets of 0, as in nginx: 89 × 113³ mod 6271 = 295."""
    assert 89 * 113**3 % 6271 == 295
    assert chosen(fleet(295, 1, 5975), "unix:") == "2"
    assert chosen(fleet(295, 1, 5975), "no address") == "2"


def test_a_server_keeps_its_slots_while_it_is_down() -> None:
    before = {client: chosen(fleet(2, 1, 1), client) for client in CLIENTS}
    servers = fleet(2, 1, 1)
    servers[0].down = True
    after = {client: chosen(servers, client) for client in CLIENTS}
    assert set(after.values()) == {"2", "3"}
    assert all(after[client] == server for client, server in before.items() if server != "1")


def test_a_client_goes_on_to_the_same_other_server() -> None:
    servers = fleet(1, 1, 1)
    first = servers[0]
    assert chosen(servers, "10.0.0.1") == "1"
    then = {chosen(servers, "10.0.0.1", first) for _ in range(5)}
    assert len(then) == 1
    turn_off(first)
    assert {chosen(servers, "10.0.0.1")} == then


def test_after_twenty_misses_it_is_round_robin() -> None:
    """A client whose every place falls into the slots of a heavy server that is down."""
    servers = fleet(100_000, 1, 1)
    servers[0].down = True
    assert names(IpHash(servers), 4) == "2 3 2 3"


def test_a_single_server_needs_no_address() -> None:
    assert name(IpHash(fleet(1)).pick(ANY, NOW, NOBODY)) == "1"
