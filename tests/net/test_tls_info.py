"""What is told of a TLS connection: of certificates only what is verified, and nothing that breaks a line."""

from __future__ import annotations

import re
import ssl
from base64 import b64decode
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.net.client_address import CLIENT_CERTIFICATE_FIELDS
from sidecar.net.tls_info import FACTS, Parameters, Shown, TlsInfo
from sidecar.wire.certificate import parse
from sidecar.wire.head import Limits, RequestHead
from tests.support.signed import named, signed

EXAMPLES = settings(max_examples=150)
PLAIN = Parameters("TLSv1.3", "TLS_AES_128_GCM_SHA256", "App.Example", b"h2")
SPIFFE = "spiffe://example.org/ns/shop/sa/cart"
CART = signed(
    named('cart, the "first" \\ one'),
    [
        x509.DNSName("Cart.example"),
        x509.DNSName("cart"),
        x509.UniformResourceIdentifier(SPIFFE),
        x509.IPAddress(ip_address("10.0.0.1")),
        x509.RFC822Name("me@example.org"),
    ],
    serial=0xAB,
)
ISSUER = signed(named("issuer"))


def info(certificate: bytes | None = None, verify_error: str = "", *chain: bytes) -> TlsInfo:
    return TlsInfo(PLAIN, Shown(certificate, chain, verify_error))


def with_uris(*uris: str, **more: Any) -> bytes:
    return signed(named("x"), [x509.UniformResourceIdentifier(uri) for uri in uris], **more)


def test_the_parameters_are_told() -> None:
    tls = info()
    assert [tls.text(name) for name in ("version", "cipher", "sni", "alpn", "resumed")] == [
        "TLSv1.3",
        "TLS_AES_128_GCM_SHA256",
        "app.example",
        "h2",
        "off",
    ]
    assert TlsInfo(PLAIN._replace(is_resumed=True), Shown()).text("resumed") == "on"


def test_a_channel_is_asked_for_all_of_it() -> None:
    channel: Any = SimpleNamespace(
        version="TLSv1.2",
        cipher="ECDHE-RSA-AES128-GCM-SHA256",
        sni="a.example",
        alpn=b"",
        is_resumed=True,
        peer_certificate=CART,
        peer_chain=(CART, ISSUER),
        verify_error="",
    )
    tls = TlsInfo.of(channel)
    assert (tls.version, tls.sni, tls.alpn, tls.is_resumed) == ("TLSv1.2", "a.example", "", True)
    assert (tls.verified, tls.der, tls.chain) == ("success", CART, (ISSUER,))


def test_without_a_certificate_nothing_is_known_of_the_client() -> None:
    tls = info()
    assert (tls.verified, tls.certificate, tls.der, tls.has_certificate) == ("none", None, None, False)
    assert tls.values("client_verify") == ("none",)
    assert not any(
        tls.values(name) for name in FACTS if name.startswith("client_") and name != "client_verify"
    )


def test_a_verified_certificate_is_told() -> None:
    tls, found = info(CART), parse(CART)
    assert tls.verified == tls.text("client_verify") == "success"
    assert tls.certificate == found
    assert tls.text("client_subject") == tls.text("client_issuer") == found.subject
    assert tls.text("client_serial") == "AB"
    assert tls.text("client_fingerprint") == found.sha256
    assert tls.values("client_dns") == ("cart.example", "cart")
    assert tls.text("client_dns") == "cart.example,cart"
    assert tls.values("client_san") == ("cart.example", "cart", SPIFFE, "10.0.0.1", "me@example.org")
    assert tls.text("client_uri") == tls.text("client_spiffe") == SPIFFE
    assert tls.text("client_not_after") == str(found.not_after)


def test_the_certificate_itself_is_told_as_nginx_does() -> None:
    escaped = info(CART).text("client_certificate")
    assert re.fullmatch(r"[A-Za-z0-9%.~_-]+", escaped)
    assert unquote(escaped) == ssl.DER_cert_to_PEM_cert(CART)


def test_a_certificate_that_is_not_verified_says_nothing_but_to_logs() -> None:
    tls = info(CART, "certificate has expired\r\n")
    assert tls.verified == "failed: certificate has expired "
    assert (tls.certificate, tls.der, tls.chain) == (None, None, ())
    assert (tls.has_certificate, tls.subject_seen) == (True, parse(CART).subject)
    assert not any(
        tls.values(name) for name in FACTS if name.startswith("client_") and name != "client_verify"
    )


def test_a_certificate_that_cannot_be_read_is_not_verified() -> None:
    tls = info(CART[:-1])
    assert tls.verified == "failed: the certificate cannot be read"
    assert (tls.certificate, tls.der, tls.subject_seen) == (None, None, "")
    assert tls.client_lines("client-cert") == b""


@pytest.mark.parametrize(
    "certificate",
    [
        with_uris(SPIFFE, "spiffe://example.org/other"),
        with_uris(SPIFFE, "https://example.org"),
        with_uris("https://example.org"),
        with_uris("spiffe://"),
        with_uris("spiffe://Example.org/a"),
        with_uris("spiffe://example.org/"),
        with_uris("spiffe://example.org/a//b"),
        with_uris("spiffe://example.org/a/../b"),
        with_uris("spiffe://example.org/a?b"),
        with_uris("spiffe://example.org:1/a"),
        with_uris("spiffe://example.org/" + "a" * 2048),
        with_uris(SPIFFE, change=lambda b: b.add_extension(x509.BasicConstraints(True, None), critical=True)),
    ],
)
def test_what_is_no_spiffe_id_is_none(certificate: bytes) -> None:
    assert info(certificate).values("client_spiffe") == ()


@pytest.mark.parametrize("uri", ["spiffe://example.org", "spiffe://a_b.c-d/.../..a/b.c"])
def test_a_spiffe_id_is_one(uri: str) -> None:
    assert info(with_uris(uri)).values("client_spiffe") == (uri,)


def test_a_comma_within_a_value_does_not_make_two() -> None:
    names = [x509.UniformResourceIdentifier("urn:a,urn:b"), x509.UniformResourceIdentifier("urn:c")]
    tls = info(signed(named("x"), names))
    assert tls.values("client_uri") == ("urn:a,urn:b", "urn:c")
    assert tls.text("client_uri") == "urn:a\\2Curn:b,urn:c"


# Fields -----------------------------------------------------------------------------------------------------


def test_a_client_without_a_verified_certificate_has_no_fields() -> None:
    for form in ("x-forwarded-client-cert", "client-cert"):
        assert info().client_lines(form) == info(CART, "expired").client_lines(form) == b""


def test_the_fields_are_written_once_for_a_connection() -> None:
    tls = info(CART)
    lines = tls.client_lines("client-cert")
    assert tls.client_lines("client-cert") is lines
    assert tls.client_lines("x-forwarded-client-cert") != lines


def test_envoys_field_has_its_form() -> None:
    digest = parse(CART).sha256
    assert info(CART).client_lines("x-forwarded-client-cert").decode() == (
        f'X-Forwarded-Client-Cert: Hash={digest};Subject="CN=cart\\, the \\22first\\22 \\5C one";'
        f"URI={SPIFFE};DNS=Cart.example;DNS=cart\r\n"
    )


def test_a_value_of_envoys_field_cannot_add_another() -> None:
    names = [x509.UniformResourceIdentifier('urn:a;Hash=0,URI=b"'), x509.DNSName("plain")]
    tls = info(signed(named('";URI=evil,\\"'), names))
    (line,) = tls.client_lines("x-forwarded-client-cert").splitlines()
    assert line.endswith(b'Subject="CN=\\22\\;URI=evil\\,\\5C\\22";URI="urn:a;Hash=0,URI=b\\22";DNS=plain')


def test_the_fields_of_rfc_9440_hold_the_bytes() -> None:
    lines = info(CART, "", ISSUER, CART).client_lines("client-cert").decode().splitlines()
    name, _, value = lines[0].partition(": ")
    assert (name, value[0], value[-1], b64decode(value[1:-1])) == ("Client-Cert", ":", ":", CART)
    name, _, value = lines[1].partition(": ")
    assert (name, b64decode(value[1:-1])) == ("Client-Cert-Chain", ISSUER)
    assert len(lines) == 2
    assert len(info(CART).client_lines("client-cert").splitlines()) == 1


@given(st.text(min_size=1, max_size=16))
@EXAMPLES
def test_no_subject_breaks_a_line(text: str) -> None:
    tls = info(signed(named(text)))
    lines = tls.client_lines("x-forwarded-client-cert") + tls.client_lines("client-cert")
    head = RequestHead(Limits())
    assert head.feed(b"GET / HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n")
    assert [name for name, _ in head.fields()] == [b"Host", b"X-Forwarded-Client-Cert", b"Client-Cert"]
    for name in FACTS:
        assert re.fullmatch("[ -~]*", tls.text(name))


def test_the_fields_are_those_that_are_dropped() -> None:
    tls = info(CART, "", ISSUER)
    written = tls.client_lines("x-forwarded-client-cert") + tls.client_lines("client-cert")
    names = {line.partition(b":")[0] for line in written.splitlines()}
    assert names == set(CLIENT_CERTIFICATE_FIELDS)
