"""DER and PEM: one way to write everything, and what is written another way is refused in a sentence."""

from __future__ import annotations

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.wire.der import Der, Pem, elements, identifier, signed, time
from sidecar.wire.octets import Unreadable


@pytest.mark.parametrize("size", [0, 1, 0x7F])
def test_a_short_element(size: int) -> None:
    reader = Der(bytes([0x04, size]) + bytes(size))
    assert reader.next() == (0x04, bytes(size))
    reader.end()


@pytest.mark.parametrize(("size", "octets"), [(0x80, 1), (0xFF, 1), (0x100, 2), (0x10000, 3)])
def test_a_long_element(size: int, octets: int) -> None:
    data = bytes([0x04, 0x80 | octets]) + size.to_bytes(octets, "big") + bytes(size)
    assert list(elements(data)) == [(0x04, bytes(size))]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "ends in the middle"),
        (b"\x04", "ends in the middle"),
        (b"\x04\x02a", "ends in the middle"),
        (b"\x04\x82\x01", "ends in the middle"),
        (b"\x1f\x01\x00", "a tag of several bytes"),
        (b"\x04\x80\x00\x00", "a length is not written as DER demands"),
        (b"\x04\x81\x7f" + bytes(0x7F), "a length is not written as DER demands"),
        (b"\x04\x82\x00\x80" + bytes(0x80), "a length is not written as DER demands"),
        (b"\x04\x85\x00\x00\x00\x00\x80" + bytes(0x80), "a length is not written as DER demands"),
        (b"\x04\xff" + bytes(0x80), "a length is not written as DER demands"),
    ],
)
def test_a_broken_element_is_refused(data: bytes, sentence: str) -> None:
    with pytest.raises(Unreadable, match=sentence):
        Der(data).next()


def test_elements_are_taken_by_their_tags() -> None:
    reader = Der(b"\x02\x01a\x04\x01b\x05\x00")
    assert (reader.maybe(0x04), reader.leads(0x04, 0x02), reader.take(0x02)) == (None, True, b"a")
    with pytest.raises(Unreadable, match="tag 0x04 where 0x02 belongs"):
        reader.take(0x02)
    with pytest.raises(Unreadable, match="bytes behind the end"):
        reader.end()
    assert reader.maybe(0x05) == b""
    assert (reader.leads(0x05), reader.maybe(0x05)) == (False, None)
    reader.end()


def test_what_stands_before_a_signature() -> None:
    whole = bytes([0x30, 10]) + b"\x30\x03\x02\x01a" + b"\x30\x00" + b"\x03\x01\x00"
    assert signed(whole).take(0x02) == b"a"
    for broken in (whole + b"\0", whole[:-1], bytes([0x30, 7]) + whole[2:9]):
        with pytest.raises(Unreadable):
            signed(broken)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"\x55\x04\x03", "2.5.4.3"),
        (b"\x27\x01", "0.39.1"),
        (b"\x2a\x86\x48\x86\xf7\x0d", "1.2.840.113549"),
        (b"\x88\x37\x03", "2.999.3"),
    ],
)
def test_an_identifier(content: bytes, text: str) -> None:
    assert identifier(content) == text


@pytest.mark.parametrize("content", [b"", b"\x80\x01", b"\x55\x80\x01", b"\x55\x84", b"\x2a" * 65])
def test_a_broken_identifier_is_refused(content: bytes) -> None:
    with pytest.raises(Unreadable, match="an object identifier is"):
        identifier(content)


@pytest.mark.parametrize(
    ("tag", "content", "seconds"),
    [
        (0x17, b"700101000000Z", 0),
        (0x17, b"491231235959Z", 2_524_607_999),
        (0x17, b"500101000000Z", -631_152_000),
        (0x18, b"20500101000000Z", 2_524_608_000),
    ],
)
def test_a_time(tag: int, content: bytes, seconds: int) -> None:
    assert time(tag, content) == seconds


@pytest.mark.parametrize(
    ("tag", "content", "sentence"),
    [
        (0x17, b"20500101000000Z", "not written as RFC 5280 demands"),
        (0x18, b"700101000000Z", "not written as RFC 5280 demands"),
        (0x18, b"20500101000000+0100", "not written as RFC 5280 demands"),
        (0x04, b"700101000000Z", "not written as RFC 5280 demands"),
        (0x17, b"700230000000Z", "does not exist"),
    ],
)
def test_a_broken_time_is_refused(tag: int, content: bytes, sentence: str) -> None:
    with pytest.raises(Unreadable, match=sentence):
        time(tag, content)


THINGS = Pem(rb"(?:X509 )?THING", "thing")


def block(content: bytes, label: bytes = b"THING") -> bytes:
    return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (label, base64.encodebytes(content), label)


def test_only_blocks_of_the_kind_are_taken() -> None:
    text = b"note\n" + block(b"one") + block(b"no", b"OTHER") + block(b"two" * 50, b"X509 THING")
    assert THINGS.blocks(text) == THINGS.blocks(text.replace(b"\n", b"\r\n")) == [b"one", b"two" * 50]
    assert THINGS.blocks(b"") == []


def test_a_broken_block_is_refused_by_its_number() -> None:
    with pytest.raises(Unreadable, match="thing 2 of the file has no END line"):
        THINGS.blocks(block(b"one") + b"-----BEGIN THING-----\nAAAA\n")
    with pytest.raises(Unreadable, match="thing 1 of the file is not base64"):
        THINGS.blocks(b"-----BEGIN THING-----\nA!AA\n-----END THING-----")


@given(st.binary(max_size=40))
def test_whatever_is_read_was_there(data: bytes) -> None:
    with contextlib.suppress(Unreadable):
        assert sum(2 + len(content) for _, content in elements(data)) <= len(data)
