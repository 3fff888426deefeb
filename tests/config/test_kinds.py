"""Kinds read what people write, refuse the rest with advice, and show what they read."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.kinds import (
    CIDRS,
    CIDRS_OR_ALL,
    DURATION,
    DURATION_OR_OFF,
    ON_OFF,
    SIZE,
    SIZE_OR_OFF,
    TEXT,
    TIMEOUT,
    checked,
    choice,
    integer,
    list_of,
    optional,
    size,
)
from sidecar.config.schema import Kind

READ: list[tuple[Kind[Any], str, Any]] = [
    (DURATION, "250ms", 0.25),
    (DURATION, "3s", 3.0),
    (DURATION, "5m", 300.0),
    (DURATION, "1h", 3600.0),
    (DURATION, "1d", 86400.0),
    (DURATION, "1.5s", 1.5),
    (DURATION, "0s", 0.0),
    (DURATION_OR_OFF, "off", 0.0),
    (DURATION_OR_OFF, "5s", 5.0),
    (SIZE, "512", 512),
    (SIZE, "16k", 16384),
    (SIZE, "10M", 10 << 20),
    (SIZE, "1g", 1 << 30),
    (SIZE_OR_OFF, "off", 0),
    (ON_OFF, "on", True),
    (ON_OFF, "off", False),
    (integer(-3, 3), "-3", -3),
    (choice("a", "b"), "b", "b"),
    (TEXT, "one\ntwo", "one two"),
    (list_of(TEXT), "a, b", ("a", "b")),
    (list_of(TEXT), "a\nb,\nc, d", ("a", "b", "c", "d")),
    (list_of(TEXT), "a\n \nb", ("a", "b")),
    (optional(SIZE), "1k", 1024),
    (
        CIDRS,
        "10.0.0.0/8, 192.0.2.7, fd00::/8",
        tuple(map(ip_network, ("10.0.0.0/8", "192.0.2.7", "fd00::/8"))),
    ),
    (CIDRS_OR_ALL, "all", (ip_network("0.0.0.0/0"), ip_network("::/0"))),
    (CIDRS_OR_ALL, "::1", (ip_network("::1"),)),
]

REFUSED: list[tuple[Kind[Any], str, str]] = [
    (DURATION, "1 fortnight", "'1 fortnight' is not a duration: write 250ms, 3s, 5m or 1h"),
    (DURATION, "30", "'30' is not a duration: write 250ms, 3s, 5m or 1h"),
    (DURATION, "-1s", "'-1s' is not a duration: write 250ms, 3s, 5m or 1h"),
    (DURATION, "٣s", "'٣s' is not a duration: write 250ms, 3s, 5m or 1h"),
    (DURATION, "0.5ms", "'0.5ms' is finer than a millisecond: write whole milliseconds"),
    (DURATION, "366d", "'366d' is too long: write at most 365d"),
    (TIMEOUT, "0s", "'0s' leaves no time at all: write at least 1ms"),
    (DURATION_OR_OFF, "0s", "'0s' would switch it off: write off"),
    (DURATION_OR_OFF, "no", "'no' is not a duration: write 250ms, 3s, 5m or 1h, or off"),
    (SIZE, "10 m", "'10 m' is not a size: write bytes, or 16k, 10m, 1g"),
    (SIZE, "9" * 5000, f"'{'9' * 79}…' is not a size: write bytes, or 16k, 10m, 1g"),
    (SIZE_OR_OFF, "0", "'0' would switch it off: write off"),
    (size(1024, 1 << 20), "2m", "'2m' is not between 1k and 1m"),
    (ON_OFF, "yes", "'yes' is neither on nor off: write on or off"),
    (integer(1, 10), "99", "99 is not between 1 and 10"),
    (integer(1, 10), "ten", "'ten' is not a whole number: write one between 1 and 10"),
    (
        choice("off", "accept", "require"),
        "requre",
        "'requre' is not one of off, accept, require: did you mean require?",
    ),
    (choice("off", "accept"), "7", "'7' is not one of off, accept: write off or accept"),
    (choice("round_robin"), "hash", "'hash' is not round_robin: write round_robin"),
    (TEXT, "a\x00b", "'a\\x00b' holds the control character U+0000: remove it"),
    (list_of(TEXT), "a,,b", "'a,,b' has an empty item: remove the comma that has nothing beside it"),
    (list_of(ON_OFF), "on, of", "'of' is neither on nor off: write on or off"),
    (CIDRS, "10.0.0.1/8", "'10.0.0.1/8' has bits beyond its mask: write 10.0.0.0/8"),
    (CIDRS, "all", "'all' is not a network: write 10.0.0.0/8, 192.0.2.7 or fd00::/8"),
    (CIDRS, "fe80::1%eth0", "'fe80::1%eth0' names an interface: write the network without %…"),
    (
        checked(SIZE, lambda value: "is odd: write an even one" if value % 2 else None),
        "3",
        "is odd: write an even one",
    ),
]


@pytest.mark.parametrize(("kind", "text", "value"), READ)
def test_what_is_written_is_read(kind: Kind[Any], text: str, value: Any) -> None:
    assert kind.parse(text) == value
    assert kind.parse(kind.show(value)) == value


@pytest.mark.parametrize(("kind", "text", "message"), REFUSED)
def test_what_is_refused_comes_with_advice(kind: Kind[Any], text: str, message: str) -> None:
    with pytest.raises(ValueError) as refused:
        kind.parse(text)
    assert str(refused.value) == message


def test_values_are_shown_in_the_largest_whole_unit() -> None:
    assert [DURATION.show(value) for value in (0.0, 0.25, 90.0, 300.0, 7200.0, 86400.0)] == [
        "0s",
        "250ms",
        "90s",
        "5m",
        "2h",
        "1d",
    ]
    assert [SIZE.show(value) for value in (0, 1000, 1024, 3 << 20, 1 << 30)] == [
        "0",
        "1000",
        "1k",
        "3m",
        "1g",
    ]
    assert CIDRS_OR_ALL.show(CIDRS_OR_ALL.parse("all")) == "all"
    assert optional(SIZE).show(None) == ""


@given(st.integers(0, 365 * 86_400_000))
def test_durations_survive_being_shown(milliseconds: int) -> None:
    assert DURATION.parse(DURATION.show(milliseconds / 1000)) == milliseconds / 1000


@given(st.integers(0, 1 << 49))
def test_sizes_survive_being_shown(value: int) -> None:
    assert SIZE.parse(SIZE.show(value)) == value


@given(st.lists(st.ip_addresses(v=4).map(ip_network) | st.ip_addresses(v=6).map(ip_network), min_size=1))
def test_networks_survive_being_shown(networks: list[Any]) -> None:
    assert CIDRS.parse(CIDRS.show(tuple(networks))) == tuple(networks)


@given(st.sampled_from([kind for kind, _, _ in READ]), st.text(min_size=1))
def test_any_text_is_a_value_or_a_value_error(kind: Kind[Any], text: str) -> None:
    try:
        value = kind.parse(text.strip() or "x")
    except ValueError as error:
        assert str(error)
    else:
        assert not kind.show(value) or kind.parse(kind.show(value)) == value
