from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.net.client_address import (
    CLIENT_CERTIFICATE_FIELDS,
    UNIX_PEER,
    UNTRUSTED_DROP,
    ClientAddress,
    Forwarded,
    host_line,
    parse_address,
    peer_address,
)
from sidecar.wire.head import Limits, Names, RequestHead

PRIVATE = ClientAddress([ip_network("10.0.0.0/8"), ip_network("fd00::/8")])
NOBODY = ClientAddress([])


def head(*fields: tuple[str, str], host: str = "example.org") -> RequestHead:
    lines = [f"{name}: {value}\r\n" for name, value in fields]
    parsed = RequestHead(Limits())
    parsed.feed(f"GET / HTTP/1.1\r\nHost: {host}\r\n{''.join(lines)}\r\n".encode("latin-1"))
    return parsed


def lines(forwarded: Forwarded) -> dict[str, str]:
    found = [
        line.partition(": ") for line in forwarded.extra.decode("latin-1").removesuffix("\r\n").split("\r\n")
    ]
    assert len({name for name, _, _ in found}) == len(found)
    return {name: value for name, _, value in found}


def xff(*entries: str) -> tuple[str, str]:
    return ("X-Forwarded-For", ", ".join(entries))


SPOOFED = (
    xff("203.0.113.9"),
    ("X-Real-IP", "203.0.113.9"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "evil.example"),
    ("X-Forwarded-Port", "1"),
)


@pytest.mark.parametrize("addresses", [NOBODY, PRIVATE])
def test_what_an_untrusted_peer_says_is_replaced(addresses: ClientAddress) -> None:
    found = addresses.resolve(head(*SPOOFED), "192.0.2.1", "http", 8080)
    assert found[:2] == ("192.0.2.1", "http")
    assert lines(found) == {
        "X-Forwarded-For": "192.0.2.1",
        "X-Real-IP": "192.0.2.1",
        "X-Forwarded-Proto": "http",
        "X-Forwarded-Port": "8080",
        "X-Forwarded-Host": "example.org",
    }


def test_the_lines_of_a_connection_and_its_host_are_what_resolve_gives() -> None:
    asked = head(*SPOOFED, host="Example.org:8080")
    fixed = NOBODY.fixed("2001:db8::1", "https", 443)
    assert fixed + host_line(asked.authority) == NOBODY.resolve(asked, "2001:db8::1", "https", 443).extra
    assert b"X-Forwarded-Host: Example.org:8080\r\n" in fixed + host_line(asked.authority)


def test_a_request_without_host_names_none() -> None:
    old = RequestHead(Limits())
    old.feed(b"GET / HTTP/1.0\r\n\r\n")
    assert "X-Forwarded-Host" not in lines(NOBODY.resolve(old, "192.0.2.1", "http", 80))


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        ([], "10.0.0.1"),
        (["192.0.2.1"], "192.0.2.1"),
        (["203.0.113.9", "192.0.2.1"], "192.0.2.1"),
        (["203.0.113.9", "192.0.2.1", "10.0.0.2", "fd00::3"], "192.0.2.1"),
        (["10.0.0.3", "10.0.0.2"], "10.0.0.3"),
        (["203.0.113.9", "unknown"], "10.0.0.1"),
        (["203.0.113.9", "unknown", "10.0.0.2"], "10.0.0.2"),
        (["203.0.113.9", "10.0.0.256", "10.0.0.2"], "10.0.0.2"),
        (["192.0.2.1:4711", "10.0.0.2:99"], "192.0.2.1"),
        (["[2001:db8::1]:4711", "[fd00::2]"], "2001:db8::1"),
        (["2001:DB8:0::1"], "2001:db8::1"),
        (["203.0.113.9", "192.0.2.1", "::ffff:10.0.0.2"], "192.0.2.1"),
    ],
)
def test_the_chain_is_walked_from_the_right_past_trusted_proxies(chain: list[str], client: str) -> None:
    fields = [xff(*chain)] if chain else []
    found = PRIVATE.resolve(head(*fields), "10.0.0.1", "http", 80)
    assert found.client == client
    assert lines(found)["X-Real-IP"] == client
    assert lines(found)["X-Forwarded-For"] == ", ".join([*chain, "10.0.0.1"])


def test_several_lines_are_one_chain() -> None:
    found = PRIVATE.resolve(
        head(xff("203.0.113.9"), xff("192.0.2.1", "", "10.0.0.2")), "10.0.0.1", "http", 80
    )
    assert found.client == "192.0.2.1"
    assert lines(found)["X-Forwarded-For"] == "203.0.113.9, 192.0.2.1, 10.0.0.2, 10.0.0.1"


def told(
    *fields: tuple[str, str], host: str = "app:8080", chain: tuple[str, ...] = ("192.0.2.1",)
) -> list[str]:
    found = PRIVATE.resolve(head(xff(*chain), *fields, host=host), "10.0.0.1", "http", 8080)
    sent = lines(found)
    assert found.scheme == sent["X-Forwarded-Proto"]
    assert str(found.port) == sent["X-Forwarded-Port"]
    return [sent["X-Forwarded-Proto"], sent["X-Forwarded-Host"], sent["X-Forwarded-Port"]]


def test_a_trusted_peer_is_believed_about_scheme_host_and_port() -> None:
    everything = [
        ("X-Forwarded-Proto", "HTTPS"),
        ("X-Forwarded-Host", "a.example"),
        ("X-Forwarded-Port", "8443"),
    ]
    assert told(*everything) == ["https", "a.example", "8443"]
    assert told() == ["http", "app:8080", "8080"]


def test_the_port_follows_from_what_was_told() -> None:
    https = ("X-Forwarded-Proto", "https")
    assert told(https, host="app") == ["https", "app", "443"]
    assert told(https, host="app:8443") == ["https", "app:8443", "8443"]
    assert told(https, ("X-Forwarded-Host", "a.example:444")) == ["https", "a.example:444", "444"]
    assert told(("X-Forwarded-Host", "[::1]:444")) == ["http", "[::1]:444", "444"]


@pytest.mark.parametrize(
    "field",
    [
        ("X-Forwarded-Proto", "gopher"),
        ("X-Forwarded-Proto", ""),
        ("X-Forwarded-Host", "a b"),
        ("X-Forwarded-Host", "user@a"),
        ("X-Forwarded-Host", "a/b"),
        ("X-Forwarded-Host", ","),
        ("X-Forwarded-Port", "0"),
        ("X-Forwarded-Port", "65536"),
        ("X-Forwarded-Port", "-1"),
        ("X-Forwarded-Port", "\xb2"),
        ("X-Forwarded-Port", "123456"),
    ],
)
def test_nonsense_of_a_trusted_peer_is_ignored(field: tuple[str, str]) -> None:
    assert told(field) == ["http", "app:8080", "8080"]


def test_in_lists_the_entry_of_the_proxy_that_met_the_client_counts() -> None:
    spoofed = ("X-Forwarded-Proto", "https, http")
    assert told(spoofed, chain=("203.0.113.9", "192.0.2.1"))[0] == "http"
    assert told(("X-Forwarded-Proto", "https, http"), chain=("192.0.2.1", "10.0.0.2"))[0] == "https"
    assert told(("X-Forwarded-Proto", "https"), chain=("192.0.2.1", "10.0.0.2"))[0] == "https"


def test_a_unix_peer_has_no_address_and_is_not_believed_unless_told_so() -> None:
    found = PRIVATE.resolve(head(*SPOOFED), "", "http", 0)
    assert found.client == UNIX_PEER
    assert lines(found) == {"X-Forwarded-Proto": "http", "X-Forwarded-Host": "example.org"}
    assert not PRIVATE.trusts(UNIX_PEER)


def test_a_trusted_unix_peer_appends_nothing() -> None:
    trusting = ClientAddress([], trust_unix=True)
    found = trusting.resolve(head(*SPOOFED), UNIX_PEER, "http", 0)
    assert found[:2] == ("203.0.113.9", "https")
    assert lines(found)["X-Forwarded-For"] == "203.0.113.9"
    alone = trusting.resolve(head(), UNIX_PEER, "http", 0)
    assert lines(alone) == {"X-Forwarded-Proto": "http", "X-Forwarded-Host": "example.org"}


def test_an_ipv4_peer_of_a_dual_stack_socket_is_an_ipv4_peer() -> None:
    assert PRIVATE.trusts("::ffff:10.0.0.1")
    assert PRIVATE.resolve(head(), "::ffff:10.0.0.1", "http", 80).client == "10.0.0.1"
    assert NOBODY.fixed("::ffff:192.0.2.1", "http", 80).startswith(b"X-Forwarded-For: 192.0.2.1\r\n")


@pytest.mark.parametrize(
    ("peer", "expected"),
    [("192.0.2.1", "192.0.2.1"), ("fe80::1%eth0", "fe80::1"), ("", UNIX_PEER), (UNIX_PEER, UNIX_PEER)],
)
def test_a_peer_is_shown_by_its_address(peer: str, expected: str) -> None:
    assert peer_address(peer) == expected


@pytest.mark.parametrize(
    "text",
    ["", "unknown", "_hidden", "192.0.2", "192.0.2.1:", "192.0.2.1:x", "192.0.2.1:123456", "192.0.2.01", "1"]
    + [
        "[::1",
        "[::1]x",
        "[::1]:",
        "[192.0.2.1]",
        "::1%eth0",
        "[::1%eth0]",
        "1:2",
        "192.0.2.1 ",
        '"192.0.2.1"',
    ],
)
def test_what_is_not_an_address_is_none(text: str) -> None:
    assert parse_address(text) is None


def test_addresses_are_forgotten_before_they_are_too_many() -> None:
    addresses = ClientAddress([ip_network("10.0.0.0/8")])
    for number in range(5000):
        peer = f"10.0.{number // 250}.{number % 250}"
        assert addresses.trusts(peer)
        assert addresses.resolve(head(xff(peer)), "10.0.0.1", "http", 80).client == peer
    assert len(addresses._peers) <= 4096
    assert len(addresses._entries) <= 4096


def test_what_is_too_long_for_an_address_is_not_remembered() -> None:
    addresses = ClientAddress([ip_network("10.0.0.0/8")])
    assert addresses.resolve(head(xff("1" * 4000)), "10.0.0.1", "http", 80).client == "10.0.0.1"
    assert not addresses._entries


def test_the_fields_to_drop_are_names() -> None:
    assert b"Forwarded" in UNTRUSTED_DROP
    assert len({name.lower() for name in UNTRUSTED_DROP}) == len(UNTRUSTED_DROP)
    assert set(CLIENT_CERTIFICATE_FIELDS) <= set(UNTRUSTED_DROP)


@pytest.mark.parametrize(
    "name",
    ["X-Forwarded-Client-Cert", "client-cert", "Client_Cert_Chain", "SSL-CLIENT-VERIFY", "X-SSL-Client-S-DN"],
)
def test_what_a_stranger_says_of_its_certificate_goes_no_further(name: str) -> None:
    head = RequestHead(Limits())
    assert head.feed(f"GET / HTTP/1.1\r\nHost: a\r\n{name}: x\r\nX-Mine: y\r\n\r\n".encode())
    sent = head.render(drop=Names(UNTRUSTED_DROP))
    assert b"X-Mine: y\r\n" in sent
    assert name.encode() not in sent


ENTRIES = st.one_of(
    st.sampled_from(
        ["10.0.0.7", "fd00::7", "192.0.2.7", "2001:db8::7", "unknown", "[fd00::8]:1", "10.0.0.8:1"]
    ),
    st.ip_addresses().map(str),
    st.text(
        st.characters(min_codepoint=33, max_codepoint=255, exclude_characters=",\x7f"), min_size=1, max_size=9
    ),
)


@given(st.lists(ENTRIES, max_size=8))
def test_the_client_never_stands_left_of_an_address_that_is_not_trusted(chain: list[str]) -> None:
    found = PRIVATE.resolve(head(xff(*chain)), "10.0.0.1", "http", 80)
    believed = {"10.0.0.1"}
    for entry in reversed(chain):
        parsed = parse_address(entry)
        if parsed is None:
            break
        believed.add(str(parsed))
        if not PRIVATE.trusts(str(parsed)):
            assert found.client == str(parsed)
            break
    assert found.client in believed
    ip_address(found.client)


@given(st.lists(ENTRIES, max_size=4), ENTRIES, ENTRIES, ENTRIES)
def test_the_lines_are_always_whole_lines(chain: list[str], proto: str, host: str, port: str) -> None:
    fields = [("X-Forwarded-Proto", proto), ("X-Forwarded-Host", host), ("X-Forwarded-Port", port)]
    found = PRIVATE.resolve(head(xff(*chain), *fields), "10.0.0.1", "http", 80)
    assert found.extra.endswith(b"\r\n")
    assert found.extra.count(b"\r") == found.extra.count(b"\n") == len(lines(found)) == 5
