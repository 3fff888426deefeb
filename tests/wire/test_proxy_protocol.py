from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import Malformed
from sidecar.wire.proxy_protocol import MAX_HEADER, MAX_LINE, Result, parse, render

SIGNATURE = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a"
V4 = bytes([192, 0, 2, 1, 198, 51, 100, 2]) + struct.pack("!HH", 56324, 443)
V6 = (
    ipaddress.ip_address("2001:db8::1").packed
    + ipaddress.ip_address("::1").packed
    + struct.pack("!HH", 1, 65535)
)
TLV = b"\x01\x00\x02h2" + b"\x04\x00\x00"

V4_RESULT = (("192.0.2.1", 56324), ("198.51.100.2", 443), False)
V6_RESULT = (("2001:db8::1", 1), ("::1", 65535), False)
NOTHING = (None, None, False)
LOCAL = (None, None, True)


def v2(command: int, family: int, block: bytes) -> bytes:
    return SIGNATURE + bytes([command, family]) + struct.pack("!H", len(block)) + block


VALID = [
    (b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n", V4_RESULT),
    (b"PROXY TCP6 2001:DB8::1 ::1 1 65535\r\n", V6_RESULT),
    (
        b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
        (("255.255.255.255", 65535),) * 2 + (False,),
    ),
    (b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", (("0.0.0.0", 0),) * 2 + (False,)),
    (b"PROXY UNKNOWN\r\n", NOTHING),
    # the longest line of the specification
    (b"PROXY UNKNOWN " + b" ".join([b"ffff:f...f:ffff".ljust(39, b"f")] * 2) + b" 65535 65535\r\n", NOTHING),
    (v2(0x21, 0x11, V4), V4_RESULT),
    (v2(0x21, 0x11, V4 + TLV), V4_RESULT),
    (v2(0x21, 0x21, V6), V6_RESULT),
    (v2(0x21, 0x21, V6 + TLV), V6_RESULT),
    (v2(0x21, 0x12, V4), NOTHING),
    (v2(0x21, 0x22, V6), NOTHING),
    (v2(0x21, 0x31, b"/a".ljust(216, b"\0")), NOTHING),
    (v2(0x21, 0x32, b"\0" * 216 + TLV), NOTHING),
    (v2(0x21, 0x00, b""), NOTHING),
    (v2(0x21, 0x00, b"anything"), NOTHING),
    (v2(0x20, 0x00, b""), LOCAL),
    (v2(0x20, 0x11, V4), LOCAL),
    (v2(0x20, 0xFF, b"\xff"), LOCAL),
    (
        v2(0x21, 0x11, V4 + b"\x04" + struct.pack("!H", MAX_HEADER - 31) + b"\0" * (MAX_HEADER - 31)),
        V4_RESULT,
    ),
]

INVALID = [
    (b"GET / HTTP/1.1\r\n", "proxy_missing"),
    (b"PUT / HTTP/1.1\r\n", "proxy_missing"),
    (b"PROXYTCP4", "proxy_missing"),
    (b"proxy TCP4", "proxy_missing"),
    (b"\r\nGET / HTTP/1.1\r\n", "proxy_missing"),
    (b"\x16\x03\x01", "proxy_missing"),
    (SIGNATURE[:-1] + b"\x0b", "proxy_missing"),
    (b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\n", "proxy_bad_line"),
    (b"PROXY \n", "proxy_bad_line"),
    (b"PROXY \r\n", "proxy_bad_line"),
    (b"PROXY TCP5 192.0.2.1 198.51.100.2 56324 443\r\n", "proxy_bad_line"),
    (b"PROXY UDP4 192.0.2.1 198.51.100.2 56324 443\r\n", "proxy_bad_line"),
    (b"PROXY  TCP4 192.0.2.1 198.51.100.2 56324 443\r\n", "proxy_bad_line"),
    (b"PROXY TCP4 192.0.2.1 198.51.100.2 56324\r\n", "proxy_bad_line"),
    (b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443 \r\n", "proxy_bad_line"),
    (b"PROXY TCP4 192.0.2.1\t198.51.100.2 56324 443\r\n", "proxy_bad_line"),
    (b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\r\n", "proxy_bad_line"),
    (b"PROXY UNKNOWN \0\r\n", "proxy_bad_line"),
    (b"PROXY UNKNOWN \xff\r\n", "proxy_bad_line"),
    (b"PROXY TCP4 192.0.2.01 198.51.100.2 56324 443\r\n", "proxy_bad_address"),
    (b"PROXY TCP4 192.0.2.256 198.51.100.2 56324 443\r\n", "proxy_bad_address"),
    (b"PROXY TCP4 ::1 ::1 56324 443\r\n", "proxy_bad_address"),
    (b"PROXY TCP6 192.0.2.1 ::1 56324 443\r\n", "proxy_bad_address"),
    (b"PROXY TCP6 fe80::1%eth0 ::1 56324 443\r\n", "proxy_bad_address"),
    (b"PROXY TCP6 [::1] ::1 56324 443\r\n", "proxy_bad_address"),
    (b"PROXY TCP4  198.51.100.2 56324 443\r\n", "proxy_bad_address"),
    (b"PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n", "proxy_bad_port"),
    (b"PROXY TCP4 192.0.2.1 198.51.100.2 056 443\r\n", "proxy_bad_port"),
    (b"PROXY TCP4 192.0.2.1 198.51.100.2 -1 443\r\n", "proxy_bad_port"),
    (b"PROXY TCP4 192.0.2.1 198.51.100.2 1 100000\r\n", "proxy_bad_port"),
    (b"PROXY TCP4 192.0.2.1 198.51.100.2  443\r\n", "proxy_bad_port"),
    (b"PROXY UNKNOWN " + b"a" * MAX_LINE, "proxy_too_long"),
    (b"PROXY UNKNOWN " + b"a" * (MAX_LINE - 15) + b"\r\n", "proxy_too_long"),
    (v2(0x11, 0x11, V4), "proxy_bad_version"),
    (v2(0x31, 0x11, V4), "proxy_bad_version"),
    (v2(0x22, 0x11, V4), "proxy_bad_version"),
    (v2(0x21, 0x13, V4), "proxy_bad_family"),
    (v2(0x21, 0x41, V4), "proxy_bad_family"),
    (v2(0x21, 0x01, V4), "proxy_bad_family"),
    (v2(0x21, 0x11, V4[:-1]), "proxy_bad_length"),
    (v2(0x21, 0x21, V4), "proxy_bad_length"),
    (v2(0x21, 0x31, V6), "proxy_bad_length"),
    (v2(0x21, 0x11, V4 + b"\x01"), "proxy_bad_length"),
    (v2(0x21, 0x11, V4 + b"\x01\x00"), "proxy_bad_length"),
    (v2(0x21, 0x11, V4 + b"\x01\x00\x02h"), "proxy_bad_length"),
    (v2(0x21, 0x11, V4 + b"\x01\xff\xff"), "proxy_bad_length"),
    (v2(0x20, 0x00, b"\0" * (MAX_HEADER - 15)), "proxy_too_long"),
]


@pytest.mark.parametrize(("data", "expected"), VALID)
def test_a_header_is_taken_whole_byte_by_byte_and_with_a_tail(
    data: bytes, expected: tuple[object, ...]
) -> None:
    result = Result(len(data), *expected)  # type: ignore[arg-type]
    assert parse(data) == result
    assert parse(data + b"GET / HTTP/1.1\r\n\r\n") == result
    for size in range(len(data)):
        assert parse(data[:size]) is None


@pytest.mark.parametrize(("data", "rule"), INVALID)
def test_a_broken_header_is_refused_however_it_arrives(data: bytes, rule: str) -> None:
    with pytest.raises(Malformed) as whole:
        parse(data)
    assert (whole.value.rule, whole.value.status) == (rule, 400)
    with pytest.raises(Malformed) as pieces:
        for size in range(len(data) + 1):
            assert parse(data[:size]) is None
    assert pieces.value.rule == rule


ADDRESSES = st.one_of(
    st.tuples(st.just(b"TCP4"), st.ip_addresses(v=4), st.ip_addresses(v=4)),
    st.tuples(st.just(b"TCP6"), st.ip_addresses(v=6), st.ip_addresses(v=6)),
)
PORTS = st.integers(0, 65535)


@given(ADDRESSES, PORTS, PORTS)
def test_both_versions_say_the_same(
    ends: tuple[bytes, ipaddress.IPv4Address, ipaddress.IPv4Address], source_port: int, destination_port: int
) -> None:
    name, source, destination = ends
    line = b"PROXY %b %b %b %d %d\r\n" % (
        name,
        str(source).encode(),
        str(destination).encode(),
        source_port,
        destination_port,
    )
    block = source.packed + destination.packed + struct.pack("!HH", source_port, destination_port)
    binary = v2(0x21, 0x11 if name == b"TCP4" else 0x21, block)
    first, second = parse(line), parse(binary)
    assert first is not None
    assert second is not None
    assert (
        first[1:] == second[1:] == ((str(source), source_port), (str(destination), destination_port), False)
    )


@given(
    st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11"]),
    st.binary(max_size=300),
)
def test_any_bytes_end_in_a_bounded_decision(start: bytes, rest: bytes) -> None:
    data = start + rest
    try:
        result = parse(data)
    except Malformed:
        return
    if result is None:
        assert len(data) < MAX_HEADER
    else:
        assert 0 < result.size <= min(len(data), MAX_HEADER)


# Written ----------------------------------------------------------------------------------------------------

SOCKETS = st.tuples(st.ip_addresses().map(str), st.integers(0, 65535))


@pytest.mark.parametrize(
    ("version", "source", "destination", "expected"),
    [
        (
            1,
            ("192.0.2.1", 56324),
            ("198.51.100.2", 443),
            b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n",
        ),
        (1, ("2001:db8::1", 1), ("::1", 65535), b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n"),
        (2, ("192.0.2.1", 56324), ("198.51.100.2", 443), v2(0x21, 0x11, V4)),
        (2, ("2001:db8::1", 1), ("::1", 65535), v2(0x21, 0x21, V6)),
        (1, None, ("192.0.2.1", 1), b"PROXY UNKNOWN\r\n"),
        (1, ("192.0.2.1", 1), None, b"PROXY UNKNOWN\r\n"),
        (2, None, None, v2(0x20, 0, b"")),
    ],
)
def test_written(version, source, destination, expected):
    assert render(version, source, destination) == expected


@pytest.mark.parametrize("version", [1, 2])
def test_one_header_has_one_family(version):
    found = parse(render(version, ("192.0.2.1", 1), ("2001:db8::1", 2)))
    assert found.source == (str(ipaddress.ip_address("::ffff:192.0.2.1")), 1)
    assert found.destination == ("2001:db8::1", 2)
    assert parse(render(version, ("2001:db8::1", 2), ("192.0.2.1", 1))).source == ("2001:db8::1", 2)


@given(st.sampled_from([1, 2]), SOCKETS, SOCKETS)
def test_what_is_written_can_be_read(version, source, destination):
    # An interface is known on one machine only; addresses of sockets come without it.
    source, destination = ((host.partition("%")[0], port) for host, port in (source, destination))
    data = render(version, source, destination)
    assert len(data) <= (MAX_LINE if version == 1 else 52)
    found = parse(data)
    assert found.size == len(data)
    one, other = (ipaddress.ip_address(socket[0]) for socket in (source, destination))
    if one.version == other.version:
        assert (found.source, found.destination) == (source, destination)


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_no_address_is_not_written(version):
    with pytest.raises(ValueError):
        render(version, ("unix:", 1), ("192.0.2.1", 1))
