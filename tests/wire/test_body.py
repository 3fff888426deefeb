"""Chunked bodies: decoded the same in any pieces, refused at the first byte that breaks a rule.

Trailer fields that frame, route, authenticate or describe the content are dropped, as RFC 9110 section 6.5.1
asks of whoever does not know their definition; so are those that set state or forge the proxy's own word.
"""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.errors import Malformed
from sidecar.wire.body import ChunkedDecoder

EXAMPLES = settings(max_examples=150)
TAIL = b"GET /smuggled HTTP/1.1\r\nHost: evil.example\r\n\r\n"
EMPTY = b"0\r\n\r\n"

VALID = {
    "nothing": (EMPTY, b"", []),
    "one chunk": (b"5\r\nhello\r\n0\r\n\r\n", b"hello", []),
    "two chunks": (b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", b"hello world", []),
    "hexadecimal, both cases": (
        b"A\r\n0123456789\r\nb\r\n0123456789a\r\n0\r\n\r\n",
        b"01234567890123456789a",
        [],
    ),
    "leading zeros": (b"000005\r\nhello\r\n000\r\n\r\n", b"hello", []),
    "data that looks like framing": (b"7\r\n0\r\n\r\n\r\n\r\n0\r\n\r\n", b"0\r\n\r\n\r\n", []),
    "binary data": (b"4\r\n\x00\r\n\xff\r\n0\r\n\r\n", b"\x00\r\n\xff", []),
    "extension": (b"5;a\r\nhello\r\n0;b=c\r\n\r\n", b"hello", []),
    "extensions": (b"5;a=b;c=d;e\r\nhello\r\n0\r\n\r\n", b"hello", []),
    "quoted extension": (b'5;a="b;c, d"\r\nhello\r\n0\r\n\r\n', b"hello", []),
    "trailers": (b"0\r\nA: 1\r\nb:\t2 \r\nA:\r\n\r\n", b"", [(b"A", b"1"), (b"b", b"2"), (b"A", b"")]),
    "grpc": (
        b"1\r\nx\r\n0\r\ngrpc-status: 0\r\ngrpc-message: OK\r\n\r\n",
        b"x",
        [(b"grpc-status", b"0"), (b"grpc-message", b"OK")],
    ),
    "obs-text in a trailer": (b"0\r\nA: \xff\r\n\r\n", b"", [(b"A", b"\xff")]),
}

INVALID = {
    "empty size": (b"\r\nhello\r\n0\r\n\r\n", "bad_chunk_size"),
    "no digits before an extension": (b";a\r\nhello\r\n0\r\n\r\n", "bad_chunk_size"),
    "a letter beyond f": (b"g\r\n", "bad_chunk_size"),
    "0x": (b"0x5\r\nhello\r\n0\r\n\r\n", "bad_chunk_size"),
    "plus": (b"+5\r\nhello\r\n0\r\n\r\n", "bad_chunk_size"),
    "minus": (b"-5\r\nhello\r\n0\r\n\r\n", "bad_chunk_size"),
    "underscore": (b"1_0\r\n", "bad_chunk_size"),
    "space ahead": (b" 5\r\nhello\r\n0\r\n\r\n", "bad_chunk_size"),
    "space behind": (b"5 \r\nhello\r\n0\r\n\r\n", "bad_chunk_size"),
    "tab behind": (b"5\t\r\nhello\r\n0\r\n\r\n", "bad_chunk_size"),
    "comma": (b"5,5\r\nhello\r\n0\r\n\r\n", "bad_chunk_size"),
    "NUL": (b"5\x00\r\nhello\r\n0\r\n\r\n", "bad_chunk_size"),
    "bare LF behind the size": (b"5\nhello\r\n0\r\n\r\n", "bare_lf"),
    "bare LF behind an extension": (b"5;a\nhello\r\n0\r\n\r\n", "bare_lf"),
    "bare CR behind the size": (b"5\rhello\r\n0\r\n\r\n", "bare_cr"),
    "bare CR in an extension": (b"5;a\rb\r\nhello\r\n0\r\n\r\n", "bare_cr"),
    "two CR behind the size": (b"5\r\r\nhello\r\n0\r\n\r\n", "bare_cr"),
    "NUL in an extension": (b"5;a\x00\r\nhello\r\n0\r\n\r\n", "bad_chunk_size"),
    "DEL in an extension": (b"5;a\x7f\r\nhello\r\n0\r\n\r\n", "bad_chunk_size"),
    "16 digits": (b"1" + b"0" * 15 + b"\r\n", "chunk_size_overflow"),
    "5 modulo 2**64": (b"1" + b"0" * 15 + b"5\r\nhello\r\n0\r\n\r\n", "chunk_size_overflow"),
    "minus one": (b"f" * 16 + b"\r\n", "chunk_size_overflow"),
    "endless zeros": (b"0" * 100, "chunk_size_overflow"),
    "data too long": (b"5\r\nhello!\r\n0\r\n\r\n", "bad_chunk_end"),
    "data too short, so that its CR is data": (b"5\r\nhell\r\n0\r\n\r\n", "bare_lf"),
    "no CRLF behind data": (b"5\r\nhello0\r\n\r\n", "bad_chunk_end"),
    "bare LF behind data": (b"5\r\nhello\n0\r\n\r\n", "bare_lf"),
    "bare CR behind data": (b"5\r\nhello\r0\r\n\r\n", "bad_chunk_end"),
    "bare LF behind the last chunk": (b"0\n\r\n", "bare_lf"),
    "bare LF at the end": (b"0\r\n\n", "bare_lf"),
    "bare LF in a trailer": (b"0\r\nA: b\n\r\n", "bare_lf"),
    "bare CR in a trailer": (b"0\r\nA: b\rc\r\n\r\n", "bare_cr"),
    "two CR at the end": (b"0\r\n\r\r\n", "bare_cr"),
    "folded trailer": (b"0\r\nA: b\r\n c\r\n\r\n", "obs_fold"),
    "space before the colon": (b"0\r\nA : b\r\n\r\n", "space_before_colon"),
    "trailer without a colon": (b"0\r\nA\r\n\r\n", "missing_colon"),
    "trailer without a name": (b"0\r\n: b\r\n\r\n", "bad_field_name"),
    "NUL in a trailer's name": (b"0\r\nA\x00: b\r\n\r\n", "bad_field_name"),
    "NUL in a trailer's value": (b"0\r\nA: \x00\r\n\r\n", "bad_field_value"),
    "a request for a trailer": (b"0\r\nGET / HTTP/1.1\r\n\r\n", "bad_field_name"),
}

FORBIDDEN = [
    "Transfer-Encoding",
    "Content-Length",
    "Content-Encoding",
    "Content-Type",
    "Content-Range",
    "Trailer",
    "Host",
    "Connection",
    "Keep-Alive",
    "Proxy-Connection",
    "TE",
    "Upgrade",
    "Expect",
    "Max-Forwards",
    "Authorization",
    "Proxy-Authorization",
    "Proxy-Authenticate",
    "WWW-Authenticate",
    "Cookie",
    "Set-Cookie",
    "Cache-Control",
    "Age",
    "Expires",
    "Date",
    "Location",
    "Retry-After",
    "Vary",
    "Range",
    "If-Match",
    "If-None-Match",
    "If-Modified-Since",
    "If-Unmodified-Since",
    "If-Range",
    "Pragma",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Proto",
    "X-Real-IP",
    "Forwarded",
]


def decode(pieces: list[bytes], decoder: ChunkedDecoder | None = None) -> tuple[bytes, int, ChunkedDecoder]:
    """(data, bytes taken, decoder) of a body in pieces; what is behind its end is not taken."""
    decoder = decoder or ChunkedDecoder()
    data, taken = b"", 0
    for piece in pieces:
        some, size = decoder.feed(piece)
        data += some
        taken += size
        assert size == len(piece) or decoder.done
    return data, taken, decoder


def each(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def rule(pieces: list[bytes], decoder: ChunkedDecoder | None = None) -> str:
    with pytest.raises(Malformed) as caught:
        decode(pieces, decoder)
    return caught.value.rule


@pytest.mark.parametrize(("body", "data", "trailers"), VALID.values(), ids=VALID)
@pytest.mark.parametrize("split", [lambda body: [body], each, lambda body: [body[:3], b"", body[3:]]])
def test_a_valid_body(body: bytes, data: bytes, trailers: list[tuple[bytes, bytes]], split):
    """Whole, byte by byte, in two pieces; what follows is left."""
    for pieces in (split(body), [*split(body)[:-1], split(body)[-1] + TAIL]):
        decoded, taken, decoder = decode(pieces)
        assert (decoded, taken, decoder.done, decoder.trailers) == (data, len(body), True, trailers)


@pytest.mark.parametrize(("body", "_data", "_trailers"), VALID.values(), ids=VALID)
def test_a_body_is_not_done_before_its_end(body: bytes, _data: bytes, _trailers: object):
    _, taken, decoder = decode(each(body[:-1]))
    assert (taken, decoder.done) == (len(body) - 1, False)


@pytest.mark.parametrize(("body", "broken"), INVALID.values(), ids=INVALID)
def test_an_invalid_body(body: bytes, broken: str):
    """Refused whole, byte by byte and with something behind it, by the same rule."""
    assert rule([body]) == broken
    assert rule(each(body)) == broken
    assert rule([body + TAIL]) == broken
    assert rule([b"3\r\nabc\r\n" + body]) == broken


def test_nothing_is_taken_behind_the_end():
    decoder = ChunkedDecoder()
    assert decoder.feed(EMPTY + TAIL) == (b"", len(EMPTY))
    assert decoder.feed(TAIL) == (b"", 0)
    assert decoder.feed(b"") == (b"", 0)


def test_data_comes_out_as_soon_as_it_came_in():
    """A stream of events must not wait for the end of its chunk."""
    decoder = ChunkedDecoder()
    assert decoder.feed(b"ffff\r\nda") == (b"da", 8)
    assert decoder.feed(b"ta") == (b"ta", 2)


def test_the_largest_chunk_is_not_taken_for_a_small_one():
    decoder = ChunkedDecoder()
    assert decoder.feed(b"f" * 15 + b"\r\nx") == (b"x", 18)
    assert not decoder.done


def test_what_was_fed_is_left_as_it_was():
    """bytes do not change, though decoding is done in place."""
    body = b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n"
    copy = bytes(bytearray(body))
    assert decode([body])[0] == b"ab"
    assert body == copy


@pytest.mark.parametrize("name", FORBIDDEN)
def test_trailers_that_would_change_the_message_are_dropped(name: str):
    for spelled in (name, name.lower(), name.upper()):
        body = b"0\r\nA: 1\r\n%b: 5\r\nB: 2\r\n\r\n" % spelled.encode()
        assert decode([body])[2].trailers == [(b"A", b"1"), (b"B", b"2")]


def test_a_dropped_trailer_must_be_a_field_all_the_same():
    assert rule([b"0\r\nHost : a\r\n\r\n"]) == "space_before_colon"
    assert rule([b"0\r\nHost: \x00\r\n\r\n"]) == "bad_field_value"


def test_extensions_have_a_bound():
    """Per chunk, the semicolon included: bytes that carry nothing must not be endless."""
    longest = b"1;" + b"a" * 15
    assert (
        decode([longest + b"\r\nx\r\n" + longest + b"\r\ny\r\n" + EMPTY], ChunkedDecoder(16 + 1))[0] == b"xy"
    )
    assert rule(each(longest + b"aaa"), ChunkedDecoder(16)) == "chunk_extension_too_long"
    assert rule([b"1;" + b"a" * 2000]) == "chunk_extension_too_long"


def test_trailers_have_a_bound():
    section = b"A: 123\r\nB: 4\r\n\r\n"
    assert decode([b"0\r\n" + section], ChunkedDecoder(max_trailer=len(section)))[2].done
    for pieces in ([b"0\r\n" + section], each(b"0\r\n" + section), [b"0\r\nA: " + b"1" * 20]):
        assert rule(pieces, ChunkedDecoder(max_trailer=len(section) - 1)) == "trailer_too_large"


# Properties.

DATA = st.lists(st.binary(min_size=1, max_size=20), max_size=6)
EXTENSIONS = st.sampled_from([b"", b";a", b";a=b", b';a="b; c"', b";a=1;b"])
TRAILERS = st.lists(
    st.tuples(st.sampled_from([b"A", b"x-b", b"Grpc-Status"]), st.sampled_from([b"", b"1", b"a b"])),
    max_size=3,
)
CUTS = st.lists(st.integers(0, 200), max_size=6)


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, bytes, list[tuple[bytes, bytes]]]:
    """(encoding, data, trailers)."""
    chunks, trailers = draw(DATA), draw(TRAILERS)
    size = st.sampled_from([b"%x", b"%X", b"%04x"])
    parts = [draw(size) % len(chunk) + draw(EXTENSIONS) + b"\r\n" + chunk + b"\r\n" for chunk in chunks]
    last = b"0" + draw(EXTENSIONS) + b"\r\n" + b"".join(b"%b: %b\r\n" % pair for pair in trailers) + b"\r\n"
    return b"".join(parts) + last, b"".join(chunks), trailers


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(edge, len(data)) for edge in cuts), len(data)]
    return [data[start:stop] for start, stop in zip(edges, edges[1:], strict=False)]


@EXAMPLES
@given(bodies(), CUTS)
def test_any_split_of_an_encoding_decodes_to_the_same(
    case: tuple[bytes, bytes, list[tuple[bytes, bytes]]], cuts: list[int]
):
    encoding, data, trailers = case
    decoded, taken, decoder = decode(cut(encoding, cuts))
    assert (decoded, taken, decoder.done, decoder.trailers) == (data, len(encoding), True, trailers)


def verdict(pieces: list[bytes]) -> object:
    try:
        data, taken, decoder = decode(pieces)
    except Malformed as malformed:
        return malformed.rule
    return data, decoder.done and taken, decoder.trailers


@EXAMPLES
@given(
    bodies(), st.integers(0, 200), st.binary(max_size=3) | st.sampled_from([b"\r\n", b";", b"0", b"f"]), CUTS
)
def test_damaged_encodings_are_judged_alike_in_any_pieces(
    case: tuple[bytes, bytes, list[tuple[bytes, bytes]]], at: int, damage: bytes, cuts: list[int]
):
    encoding = case[0][:at] + damage + case[0][at + 1 :]
    whole = verdict([encoding])
    assert verdict(each(encoding)) == whole
    assert verdict(cut(encoding, cuts)) == whole


class Listener:
    """Collects what llhttp makes of a body."""

    def __init__(self) -> None:
        self.data = b""
        self.done = False

    def on_body(self, data: bytes) -> None:
        self.data += data

    def on_message_complete(self) -> None:
        self.done = True


@EXAMPLES
@given(
    bodies(), st.integers(0, 200), st.sampled_from([b"", b"\r", b"\n", b"\r\n", b" ", b"0", b"f", b"x", b":"])
)
def test_a_body_that_is_taken_is_what_llhttp_takes(
    case: tuple[bytes, bytes, list[tuple[bytes, bytes]]], at: int, damage: bytes
):
    """Not compared: damaged extensions. They end at the same CRLF for both, and we pass none of them on."""
    encoding = case[0][:at] + damage + case[0][at + 1 :]
    mine = verdict([encoding])
    if isinstance(mine, str) or mine[1] is False or b";" in encoding:
        return
    listener = Listener()
    parser = httptools.HttpRequestParser(listener)
    parser.feed_data(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + encoding[: mine[1]])
    assert (listener.data, listener.done) == (mine[0], True)
