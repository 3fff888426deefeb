"""Certificates: what OpenSSL and `cryptography` say of them, each way to break one, and any bytes."""

from __future__ import annotations

import contextlib
import datetime
import re
import string
import subprocess
from ipaddress import ip_address

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.wire.certificate import Certificate, parse, pem_blocks
from sidecar.wire.octets import Unreadable
from tests.support.signed import BEGIN, named, signed

PRINTABLE = re.compile("[ -~]*")
#: Types with a short name of their own in both libraries; of the others ours and OpenSSL's agree.
TYPES = [NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME, NameOID.LOCALITY_NAME, NameOID.USER_ID]
EXAMPLES = settings(max_examples=300)
TEXTS = st.text(st.characters(max_codepoint=127), min_size=1, max_size=20)


def openssl(der: bytes, *options: str) -> str:
    command = ["openssl", "x509", "-inform", "DER", "-noout", "-nameopt", "RFC2253", *options]
    return subprocess.run(command, input=der, capture_output=True, check=True).stdout.decode().rstrip("\n")


# What others say --------------------------------------------------------------------------------------------


def test_a_certificate_of_a_client_is_read_whole() -> None:
    ca = trustme.CA()
    pem = ca.issue_cert(
        "a.example", "*.b.example", "10.0.0.1", "2001:db8::1", "me@example.org", common_name="me"
    )
    (der,) = pem_blocks(pem.cert_chain_pems[0].bytes())
    theirs = x509.load_der_x509_certificate(der)

    found = parse(der)

    assert found.subject == theirs.subject.rfc4514_string()
    assert found.issuer == theirs.issuer.rfc4514_string()
    assert found.common_name == "me"
    assert found.dns == ("a.example", "*.b.example")
    assert found.ips == ("10.0.0.1", "2001:db8::1")
    assert found.emails == ("me@example.org",)
    assert found.uris == ()
    assert found.not_before == theirs.not_valid_before_utc.timestamp()
    assert found.not_after == theirs.not_valid_after_utc.timestamp()
    assert found.serial == openssl(der, "-serial").removeprefix("serial=")
    assert found.sha256 == theirs.fingerprint(hashes.SHA256()).hex()
    assert not found.is_ca


def test_a_certificate_of_an_authority_says_so() -> None:
    (der,) = pem_blocks(trustme.CA().cert_pem.bytes())
    assert parse(der).is_ca


NAMES = [
    named("plain"),
    named('Doe, "Jane" <j+d>; a\\b=c'),
    named(" #both edges "),
    named("#hash"),
    named("a b"),
    named("line\r\nX-Injected: yes\x7f"),
    named("nul\0nul"),
    named("Jürgen 日本 \U0001f600"),
    named("a", "b", "c"),
    named("serial", kind=NameOID.SERIAL_NUMBER),
    named("me@example.org", kind=NameOID.EMAIL_ADDRESS),
    named("hello", kind=x509.ObjectIdentifier("1.2.3.4.5")),
    named("x" * 200, kind=x509.ObjectIdentifier(f"2.25.{2**127}")),
    named("hello", kind=x509.ObjectIdentifier("2.999.1")),
    x509.Name([]),
    x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Jürgen", _type=_ASN1Type.BMPString)]),
    x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ascii", _type=_ASN1Type.PrintableString)]),
    x509.Name([x509.NameAttribute(NameOID.X500_UNIQUE_IDENTIFIER, b"\x00\x01", _type=_ASN1Type.BitString)]),
    x509.Name(
        [
            x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "o")]),
            x509.RelativeDistinguishedName(
                [x509.NameAttribute(NameOID.COMMON_NAME, "me"), x509.NameAttribute(NameOID.USER_ID, "7")]
            ),
        ]
    ),
]


@pytest.mark.parametrize("name", NAMES, ids=str)
def test_a_subject_reads_as_openssl_writes_it(name: x509.Name) -> None:
    der = signed(name)
    found = parse(der).subject
    assert found == openssl(der, "-subject").removeprefix("subject=")
    assert PRINTABLE.fullmatch(found)


@given(st.lists(st.tuples(st.sampled_from(TYPES), TEXTS), max_size=4))
@EXAMPLES
def test_a_subject_can_be_read_back_by_cryptography(parts: list[tuple[x509.ObjectIdentifier, str]]) -> None:
    name = x509.Name([x509.NameAttribute(kind, text) for kind, text in parts])
    found = parse(signed(name)).subject
    assert PRINTABLE.fullmatch(found)
    assert x509.Name.from_rfc4514_string(found) == name


def test_the_common_name_is_the_most_specific_one() -> None:
    assert parse(signed(named("outer", "inner,one"))).common_name == "inner\\,one"
    assert parse(signed(named("o", kind=NameOID.ORGANIZATION_NAME))).common_name == ""


def test_alternative_names_are_read_and_the_other_kinds_are_skipped() -> None:
    names: list[x509.GeneralName] = [
        x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), b"\x0c\x02me"),
        x509.UniformResourceIdentifier("spiffe://example.org/ns/a,b"),
        x509.DirectoryName(named("dir")),
        x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
        x509.DNSName("a.example"),
        x509.RFC822Name("me@example.org"),
        x509.IPAddress(ip_address("::1")),
    ]
    found = parse(signed(named("x"), names))
    assert found.uris == ("spiffe://example.org/ns/a,b",)
    assert (found.dns, found.emails, found.ips) == (("a.example",), ("me@example.org",), ("::1",))


def test_an_alternative_name_cannot_end_early_or_break_a_line() -> None:
    # The library refuses to write such a name, so one of the same length is written over.
    der = signed(named("x"), [x509.DNSName("good.example-0-evil")]).replace(
        b"good.example-0-evil", b'good.ex\0mpl,\r"\\\xe9 il'
    )
    assert parse(der).dns == ("good.ex\\00mpl,\\0D\\22\\5C\\E9\\20il",)


@pytest.mark.parametrize("serial", [1, 0x7F, 0x80, 0xFFFF, 2**159 - 1])
def test_a_serial_reads_as_openssl_writes_it(serial: int) -> None:
    der = signed(named("x"), serial=serial)
    assert parse(der).serial == openssl(der, "-serial").removeprefix("serial=")


def test_both_forms_of_a_time_are_read() -> None:
    for end in (datetime.datetime(2049, 12, 31, 23, 59, 59), datetime.datetime(9999, 12, 31, 23, 59, 59)):
        assert parse(signed(named("x"), end=end)).not_after == end.replace(tzinfo=datetime.UTC).timestamp()
    assert parse(signed(named("x"))).not_before == BEGIN.replace(tzinfo=datetime.UTC).timestamp()


# PEM --------------------------------------------------------------------------------------------------------


def test_only_certificates_of_a_file_are_taken() -> None:
    ca = trustme.CA()
    pair = ca.issue_cert("a.example")
    text = b"a note\n" + pair.private_key_and_cert_chain_pem.bytes() + b"\r\n" + ca.cert_pem.bytes()
    blocks = pem_blocks(text.replace(b"\n", b"\r\n"))
    assert [parse(block).dns for block in blocks] == [("a.example",), ()]
    assert pem_blocks(b"nothing") == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n", "certificate 1 of the file has no END line"),
        (b"-----BEGIN CERTIFICATE-----\nA!AA\n-----END CERTIFICATE-----", "is not base64"),
        (b"-----BEGIN CERTIFICATE-----\nAAA\n-----END CERTIFICATE-----", "is not base64"),
    ],
)
def test_a_broken_block_is_told(text: bytes, sentence: str) -> None:
    with pytest.raises(Unreadable, match=sentence):
        pem_blocks(text)


# What is broken ---------------------------------------------------------------------------------------------

GOOD = signed(
    named("me"),
    [x509.DNSName("a.example"), x509.IPAddress(ip_address("10.0.0.1"))],
    change=lambda builder: builder.add_extension(x509.BasicConstraints(True, 1), critical=True),
)


def replaced(old: bytes, new: bytes) -> bytes:
    assert old in GOOD and len(old) == len(new)
    return GOOD.replace(old, new)


def element(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


@pytest.mark.parametrize(
    ("der", "sentence"),
    [
        (b"", "ends in the middle"),
        (b"\x30", "ends in the middle"),
        (GOOD[:-1], "ends in the middle"),
        (GOOD + b"\0", "bytes behind the end"),
        (b"\x31" + GOOD[1:], "an element of tag 0x31 where 0x30 belongs"),
        (b"\x3f" + GOOD[1:], "a tag of several bytes"),
        (b"\x30\x80" + GOOD, "a length is not written"),
        (b"\x30\x81\x05AAAAA", "a length is not written"),
        (b"\x30\x82\x00\x85" + bytes(0x85), "a length is not written"),
        (b"\x30\x85\x01\x00\x00\x00\x00", "a length is not written"),
        (b"\x30\x84\xff\xff\xff\xff", "ends in the middle"),
        (replaced(b"200229123059Z", b"200230123059Z"), "does not exist"),
        (replaced(b"200229123059Z", b"2002291230+1Z"), "not written as RFC 5280"),
        (replaced(b"\x06\x03\x55\x04\x03", b"\x06\x03\x80\x04\x03"), "identifier is not written"),
        (replaced(b"\x06\x03\x55\x04\x03", b"\x06\x03\x55\x04\x83"), "identifier is broken"),
        (replaced(b"\x87\x04\x0a\x00\x00\x01", b"\x82\x01\x0a\x87\x01\x01"), "neither 4 nor 16 bytes"),
        (replaced(b"\x06\x03\x55\x1d\x13", b"\x06\x03\x55\x1d\x11"), "the extension 2.5.29.17 twice"),
    ],
)
def test_a_broken_certificate_is_refused_in_a_sentence(der: bytes, sentence: str) -> None:
    with pytest.raises(Unreadable, match=sentence):
        parse(der)


def test_an_object_identifier_has_a_longest_length() -> None:
    def named_by(oid: bytes) -> bytes:
        pair = element(0x30, element(0x06, oid) + element(0x0C, b"x"))
        name = element(0x30, element(0x31, pair))
        empty, time = element(0x30, b""), element(0x17, b"200101000000Z")
        body = element(0x02, b"\1") + empty + name + element(0x30, time * 2) + name + empty
        return element(0x30, element(0x30, body) + empty + element(0x03, b"\0"))

    assert parse(named_by(b"\x2a" * 64)).subject.endswith("=#0C0178")
    with pytest.raises(Unreadable, match="too long"):
        parse(named_by(b"\x2a" * 65))


def test_many_names_are_refused() -> None:
    names: list[x509.GeneralName] = [x509.DNSName(f"a{n}.example") for n in range(1025)]
    with pytest.raises(Unreadable, match="too many alternative names"):
        parse(signed(named("x"), names))
    with pytest.raises(Unreadable, match="too many parts"):
        parse(signed(named(*string.ascii_letters * 20)))


def _is_safe(found: Certificate) -> bool:
    texts = (found.subject, found.issuer, found.common_name, found.serial, found.sha256)
    return all(map(PRINTABLE.fullmatch, texts + found.dns + found.uris + found.ips + found.emails))


@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=4))
@EXAMPLES
def test_a_changed_certificate_is_read_or_refused(at: int, bytes_: bytes) -> None:
    try:
        found = parse(GOOD[:at] + bytes_ + GOOD[at + len(bytes_) :])
    except Unreadable:
        return
    assert _is_safe(found)


@given(st.binary(max_size=200))
@EXAMPLES
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for read in (pem_blocks, parse):
        with contextlib.suppress(Unreadable):
            read(data)
