"""From servers as they are written to servers that are asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pytest

from sidecar.config.addresses import Address
from sidecar.upstream.servers import Spot, is_watched, spots
from sidecar.upstream.settings import SERVER, UpstreamSettings


class Found(NamedTuple):
    """As a name has it."""

    address: Address
    priority: int = 0
    weight: int = 1
    name: str = "app.example"


def found(*texts: str, port: int = 80) -> list[Found]:
    return [Found(Address(text, port)) for text in texts]


def made(known: Sequence[Found] = (), **servers: str) -> list[Spot]:
    settings = UpstreamSettings(server={name: SERVER.parse(text) for name, text in servers.items()})
    return spots(settings, lambda _: known)


def names(spots: Sequence[Spot]) -> list[list[str]]:
    return [[str(address) for address in spot.addresses] for spot in spots]


@pytest.mark.parametrize(
    ("text", "watched"),
    [
        ("127.0.0.1:80", False),
        ("[::1]:80", False),
        ("unix:/run/app.sock", False),
        ("app.example:80", True),
        ("localhost:80", True),
        ("srv:_http._tcp.app.example", True),
    ],
)
def test_only_names_are_watched(text: str, watched: bool):
    assert is_watched(SERVER.parse(text)) is watched


def test_an_address_is_a_server_with_what_is_written_behind_it():
    (spot,) = made(a="192.0.2.1:80 weight=3 backup")
    assert (spot.name, spot.weight, spot.backup) == ("192.0.2.1:80", 3, True)


def test_a_name_is_as_many_servers_as_it_has_addresses_each_with_its_weight():
    made_of = made(found("192.0.2.1", "192.0.2.2"), a="app.example:80 weight=3")
    assert names(made_of) == [["192.0.2.1:80"], ["192.0.2.2:80"]]
    assert [spot.weight for spot in made_of] == [3, 3]


def test_a_name_without_addresses_is_no_server():
    assert made((), a="app.example:80") == []


def test_the_families_of_a_name_are_one_server_the_first_family_first():
    made_of = made(found("2001:db8::1", "192.0.2.1", "192.0.2.2"), a="app.example:80")
    assert names(made_of) == [["[2001:db8::1]:80", "192.0.2.1:80"], ["192.0.2.2:80"]]


def test_two_names_of_one_place_have_its_share_once():
    made_of = made(found("192.0.2.1"), a="app.example:80", b="also.example:80")
    assert names(made_of) == [["192.0.2.1:80"]]


def test_a_service_gives_ports_weights_and_backups():
    targets = [
        Found(Address("192.0.2.1", 8001), 10, 60, "one.example"),
        Found(Address("192.0.2.2", 8002), 10, 0, "two.example"),
        Found(Address("192.0.2.3", 8003), 20, 5, "three.example"),
    ]
    made_of = made(targets, a="srv:_http._tcp.app.example")
    assert [(spot.name, spot.weight, spot.backup) for spot in made_of] == [
        ("192.0.2.1:8001", 60, False),
        ("192.0.2.2:8002", 1, False),
        ("192.0.2.3:8003", 5, True),
    ]


def test_a_target_with_two_families_counts_once():
    targets = [
        Found(Address("2001:db8::1", 8001), 0, 7, "one.example"),
        Found(Address("192.0.2.1", 8001), 0, 7, "one.example"),
    ]
    (spot,) = made(targets, a="srv:_http._tcp.app.example")
    assert (len(spot.addresses), spot.weight) == (2, 7)
