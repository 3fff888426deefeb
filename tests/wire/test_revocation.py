"""Lists of revoked certificates: whose they are, and how long they are good, as others write them."""

from __future__ import annotations

import math

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from sidecar.wire.octets import Unreadable
from sidecar.wire.revocation import PEM, RevocationList, parse
from tests.support.certificates import revoking
from tests.support.chain import PublicAuthority

BEGIN, END = 1_700_000_000, 1_700_604_800
(DER,) = PEM.blocks(revoking("Clients", BEGIN, END))


def test_a_list_is_read_as_cryptography_reads_it() -> None:
    authority = PublicAuthority()
    text = authority.revoke(authority.issue("one"), authority.issue("two"))
    found = [parse(block) for block in PEM.blocks(text)]
    assert [one.issuer for one in found] == ["CN=Test Intermediate", "CN=Test Root"]
    for one, block in zip(found, PEM.blocks(text), strict=True):
        theirs = x509.load_der_x509_crl(block)
        assert theirs.next_update_utc is not None
        assert one.this_update == theirs.last_update_utc.timestamp()
        assert one.next_update == theirs.next_update_utc.timestamp()
    assert found[0].sha256 != found[1].sha256


def test_times_are_read() -> None:
    assert parse(DER)[:3] == RevocationList("CN=Clients", BEGIN, END, "")[:3]


def element(tag: int, content: bytes) -> bytes:
    assert len(content) < 0x80
    return bytes([tag, len(content)]) + content


def made(*parts: bytes) -> bytes:
    """A list with these parts behind the algorithm."""
    algorithm = element(0x30, b"")
    return element(0x30, element(0x30, algorithm + b"".join(parts)) + algorithm + element(0x03, b"\0"))


NAME, TIME = element(0x30, b""), element(0x17, b"231114221320Z")


@pytest.mark.parametrize("rest", [b"", element(0x30, b""), element(0xA0, b"")])
def test_one_that_names_no_end_has_none(rest: bytes) -> None:
    assert parse(made(NAME, TIME, rest))[:3] == ("", BEGIN, math.inf)


@pytest.mark.parametrize(
    ("der", "sentence"),
    [
        (b"", "ends in the middle"),
        (DER[:-1], "ends in the middle"),
        (DER + b"\0", "bytes behind the end"),
        (made(NAME), "ends in the middle"),
        (made(TIME), "tag 0x17 where 0x30 belongs"),
        (made(NAME, element(0x17, b"never")), "a time is not written"),
        (made(NAME, TIME, element(0x18, b"never")), "a time is not written"),
    ],
)
def test_a_broken_list_is_refused_in_a_sentence(der: bytes, sentence: str) -> None:
    with pytest.raises(Unreadable, match=sentence):
        parse(der)


@given(st.integers(0, len(DER) - 1), st.binary(min_size=1, max_size=4))
def test_a_changed_list_is_read_or_refused(at: int, bytes_: bytes) -> None:
    try:
        found = parse(DER[:at] + bytes_ + DER[at + len(bytes_) :])
    except Unreadable:
        return
    assert found.issuer.isprintable() and found.issuer.isascii()
