"""The name in a ClientHello: what real clients send, each way to break it, and whatever else comes."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.wire.client_hello import MAX_HELLO, ClientHello, Verdict

MORE, NOT_TLS = Verdict.MORE, Verdict.NOT_TLS

# To write one by hand ---------------------------------------------------------------------------------------


def vector(size: int, data: bytes) -> bytes:
    return len(data).to_bytes(size, "big") + data


def extension(kind: int, data: bytes) -> bytes:
    return kind.to_bytes(2, "big") + vector(2, data)


def server_name(name: bytes, kind: int = 0) -> bytes:
    return extension(0, vector(2, bytes([kind]) + vector(2, name)))


NAME = server_name(b"app.example.org")
OTHER = extension(43, b"\x02\x03\x04")
GREASE = extension(0x3A3A, b"")


def message(
    extensions: bytes | None = NAME,
    *,
    version: bytes = b"\3\3",
    random: bytes = bytes(32),
    session: bytes = vector(1, bytes(32)),
    ciphers: bytes = vector(2, b"\x13\x01\x13\x02"),
    compression: bytes = vector(1, b"\0"),
    tail: bytes = b"",
) -> bytes:
    """The body of a ClientHello with its own header."""
    body = version + random + session + ciphers + compression
    if extensions is not None:
        body += vector(2, extensions)
    return b"\1" + vector(3, body + tail)


def records(data: bytes, *sizes: int, version: bytes = b"\3\1", kind: int = 22) -> bytes:
    """`data` in records: of `sizes`, the last one takes the rest."""
    pieces, at = [], 0
    for size in sizes:
        pieces.append(data[at : at + size])
        at += size
    pieces.append(data[at:])
    return b"".join(bytes([kind]) + version + vector(2, piece) for piece in pieces if piece)


def real(name: str | None, most: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> bytes:
    """What OpenSSL sends first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = most
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


def read(data: bytes) -> str | Verdict:
    return ClientHello().feed(data)


LONG = b".".join([b"a" * 63] * 3 + [b"b" * 61])
SOUND = {
    "openssl_1.3": (real("app.example.org"), "app.example.org"),
    "openssl_1.2": (real("App.Example.ORG", ssl.TLSVersion.TLSv1_2), "app.example.org"),
    "openssl_nameless": (real(None), ""),
    "name_alone": (records(message()), "app.example.org"),
    "name_last": (records(message(GREASE + OTHER + NAME)), "app.example.org"),
    "name_first": (records(message(NAME + OTHER + GREASE)), "app.example.org"),
    "no_name": (records(message(OTHER)), ""),
    "no_extensions": (records(message(None)), ""),
    "empty_extensions": (records(message(b"")), ""),
    "no_session": (records(message(session=b"\0")), "app.example.org"),
    "tls_1.0": (records(message(version=b"\3\1")), "app.example.org"),
    "record_3.3": (records(message(), version=b"\3\3"), "app.example.org"),
    "two_records": (records(message(), 10), "app.example.org"),
    "split_in_its_header": (records(message(), 1, 2, 1), "app.example.org"),
    "record_of_one_byte_each": (records(message(), *[1] * 60), "app.example.org"),
    "longest_name": (records(message(server_name(LONG))), LONG.decode()),
    "underscore_and_digits": (records(message(server_name(b"_x.192.0.2.7"))), "_x.192.0.2.7"),
    "large": (records(message(NAME + extension(21, bytes(9000)))), "app.example.org"),
    "as_large_as_may_be": (
        records(message(NAME + extension(21, bytes(MAX_HELLO - 5 - len(message()) - 4)))),
        "app.example.org",
    ),
}

BROKEN = {
    "http": b"GET / HTTP/1.1\r\nHost: app.example.org\r\n\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
    "sslv2": b"\x80\x2e\x01\x03\x01\x00\x15",
    "other_record": records(message(), kind=23),
    "other_major": records(message(), version=b"\2\0"),
    "empty_record": b"\x16\3\1\0\0" + records(message()),
    "record_too_long": b"\x16\3\1\x40\x01",
    "server_hello": records(b"\2" + message()[1:]),
    "second_record_of_another_type": records(message(), 50)[:55] + records(message()[50:], kind=21),
    "message_too_long": records(message(NAME + extension(21, bytes(MAX_HELLO - 4 - len(message()) - 4)))),
    "says_16_mb": records(b"\1\xff\xff\xff"),
    "empty_message": records(b"\1\0\0\0"),
    "version_2": records(message(version=b"\2\0")),
    "session_too_long": records(message(session=vector(1, bytes(33)))),
    "no_ciphers": records(message(ciphers=vector(2, b""))),
    "odd_ciphers": records(message(ciphers=vector(2, b"\x13\x01\x13"))),
    "ciphers_too_long": records(message(None, ciphers=b"\xff\xfe\x13\x01")),
    "no_compression": records(message(compression=b"\0")),
    "extensions_too_long": records(message(None, tail=vector(2, NAME)[:-1])),
    "extensions_too_short": records(message(tail=b"\0")),
    "extension_too_long": records(message(NAME + b"\0\x2b\0\4\2\3\4")),
    "extension_header_cut": records(message(NAME + b"\0\x2b\0")),
    "name_twice": records(message(NAME + NAME)),
    "name_twice_apart": records(message(NAME + OTHER + server_name(b"other.example.org"))),
    "other_twice": records(message(OTHER + NAME + OTHER)),
    "empty_name_extension": records(message(extension(0, b""))),
    "empty_list": records(message(extension(0, b"\0\0"))),
    "empty_name": records(message(server_name(b""))),
    "list_too_long": records(message(extension(0, b"\0\x09\0\0\3abc"))),
    "list_too_short": records(message(extension(0, b"\0\6\0\0\3abc!"))),
    "name_too_long_for_list": records(message(extension(0, b"\0\6\0\0\4abc"))),
    "two_names": records(message(extension(0, vector(2, b"\0\0\1a\0\0\1b")))),
    "other_name_type": records(message(server_name(b"a", 1))),
    "final_dot": records(message(server_name(b"app.example.org."))),
    "empty_label": records(message(server_name(b"app..example.org"))),
    "nul": records(message(server_name(b"app.example.org\0.evil.example"))),
    "space": records(message(server_name(b"app example"))),
    "not_ascii": records(message(server_name("münchen.example".encode()))),
    "ipv6": records(message(server_name(b"2001:db8::1"))),
    "line_break": records(message(server_name(b"app.example.org\n"))),
    "name_254": records(message(server_name(LONG + b"c"))),
    "label_64": records(message(server_name(b"a" * 64))),
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_hello(name: str):
    data, expected = SOUND[name]
    assert read(data) == expected


@pytest.mark.parametrize("name", SOUND)
def test_byte_by_byte_it_is_known_with_the_last_one(name: str):
    data, expected = SOUND[name]
    hello = ClientHello()
    told = [hello.feed(data[at : at + 1]) for at in range(len(data))]
    assert set(told[:-1]) == {MORE}
    assert told[-1] == expected


@pytest.mark.parametrize("name", SOUND)
def test_what_follows_is_not_looked_at(name: str):
    data, expected = SOUND[name]
    assert read(data + b"\x17\3\3\0\2early") == expected
    assert read(data + b"anything") == expected


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_no_tls(name: str):
    assert read(BROKEN[name]) is NOT_TLS


@pytest.mark.parametrize("name", BROKEN)
def test_it_is_found_byte_by_byte_too_and_never_a_name(name: str):
    hello = ClientHello()
    for at in range(len(BROKEN[name])):
        told = hello.feed(BROKEN[name][at : at + 1])
        if told is not MORE:
            break
    assert told is NOT_TLS


def test_nothing_is_decided_from_nothing():
    assert read(b"") is MORE


@pytest.mark.parametrize("first", range(256))
def test_one_byte_is_enough_to_know_other_protocols(first: int):
    assert read(bytes([first])) is (MORE if first == 22 else NOT_TLS)


def test_headers_of_records_count_too():
    """Records of one byte each cost six on the wire: their number has an end."""
    data = records(b"\1" + vector(3, bytes(4000)), *[1] * 4003)
    assert len(data) > MAX_HELLO
    assert read(data[:MAX_HELLO]) is NOT_TLS


def test_the_most_records_that_fit_are_read():
    """Records of one byte: all but the last byte leaves the question open."""
    whole = message(NAME + extension(21, bytes(2500)))
    data = records(whole, *[1] * len(whole))
    assert len(data) <= MAX_HELLO
    hello = ClientHello()
    assert {hello.feed(data[at : at + 1]) for at in range(len(data) - 1)} == {MORE}
    assert hello.feed(data[-1:]) == "app.example.org"


@given(st.binary(max_size=200), st.integers(0, 600), st.integers(0, 3))
def test_whatever_is_changed_in_a_real_one_it_never_raises(noise: bytes, at: int, drop: int):
    data = SOUND["openssl_1.3"][0]
    mixed = data[:at] + noise + data[at + drop * len(noise) :]
    assert isinstance(read(mixed), str | Verdict)


@given(st.binary(max_size=400))
def test_random_bytes_never_raise(data: bytes):
    assert isinstance(read(data), str | Verdict)
    assert isinstance(read(records(b"\1" + vector(3, data))), str | Verdict)
    assert isinstance(read(records(message(data))), str | Verdict)
    assert isinstance(read(records(message(extension(0, data)))), str | Verdict)


@given(st.data())
def test_any_split_says_the_same(data: st.DataObject):
    whole, expected = SOUND[data.draw(st.sampled_from(sorted(SOUND)))]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    hello = ClientHello()
    told: str | Verdict = MORE
    for start, stop in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        if told is MORE:
            told = hello.feed(whole[start:stop])
    assert told == expected


@given(st.lists(st.integers(1, 40), max_size=30))
def test_any_records_say_the_same(sizes: list[int]):
    assert read(records(message(), *sizes)) == "app.example.org"


@given(st.binary(min_size=1, max_size=300))
def test_a_name_is_always_one_that_a_route_can_have(name: bytes):
    told = read(records(message(server_name(name))))
    assert told is NOT_TLS or told == name.decode("ascii").lower()
