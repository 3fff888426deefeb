"""Contexts: every mistake in certificates and keys is a sentence, and no error is left for others."""

from __future__ import annotations

import re
import ssl
from datetime import UTC, datetime, timedelta

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.errors import TlsError
from sidecar.net.tls_context import Context, Roots
from tests.support.tls import ECDSA, RSA, pair, roots


def encrypted(key: bytes, form: serialization.PrivateFormat) -> bytes:
    return load_pem_private_key(key, None).private_bytes(
        serialization.Encoding.PEM, form, serialization.BestAvailableEncryption(b"secret")
    )


def small_key() -> bytes:
    return rsa.generate_private_key(65537, 1024).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def refused(certificate: bytes, key: bytes) -> TlsError:
    with pytest.raises(TlsError) as caught:
        Context(True).add_pair(certificate, key, 1)
    # Nothing is left in the queue that another user of the library would take for its own.
    ssl.create_default_context().set_ciphers("ECDHE+AESGCM")
    assert caught.value.number == 1
    return caught.value


def test_a_pair_is_taken_with_its_chain() -> None:
    context = Context(True)
    one = pair("localhost")
    context.add_pair(one.certificate, one.key)
    context.add_pair(*pair("localhost", key_type=RSA))
    assert len(context.leaves) == 2
    assert context.leaves[0] == ssl.PEM_cert_to_DER_cert(one.certificate.decode())


def test_files_with_text_around_the_blocks_are_read() -> None:
    one = pair("localhost")
    Context(True).add_pair(b"Bag Attributes\n  x: y\n" + one.certificate + b"\n# end\n", b"\n\n" + one.key)


def test_a_key_in_the_file_of_the_certificate_does_not_disturb() -> None:
    one = pair("localhost")
    Context(True).add_pair(one.key + one.certificate, one.certificate + one.key)


@pytest.mark.parametrize("other", [ECDSA, RSA])
def test_a_key_of_another_certificate_is_refused(other: trustme.KeyType) -> None:
    error = refused(pair("localhost").certificate, pair("other.test", key_type=other).key)
    assert (str(error), error.option) == ("the key does not belong to the certificate", "key")


def test_a_chain_in_the_wrong_order_is_refused() -> None:
    one = pair("localhost")
    error = refused(roots() + one.certificate, one.key)
    assert (str(error), error.option) == (
        "the key belongs to certificate 2 of the file: that one must come first",
        "certificate",
    )


@pytest.mark.parametrize(
    "form", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL]
)
def test_a_key_with_a_passphrase_is_refused(form: serialization.PrivateFormat) -> None:
    one = pair("localhost")
    error = refused(one.certificate, encrypted(one.key, form))
    assert str(error) == "the key is encrypted: it must be stored without a passphrase"


@pytest.mark.parametrize(
    ("certificate", "key", "says", "option"),
    [
        (b"", None, "no certificate is in it: PEM with BEGIN CERTIFICATE is expected", "certificate"),
        (b"\x30\x82", None, "no certificate is in it: PEM with BEGIN CERTIFICATE is expected", "certificate"),
        (None, b"", "no key is in it: PEM with BEGIN PRIVATE KEY is expected", "key"),
        (None, roots(), "no key is in it: PEM with BEGIN PRIVATE KEY is expected", "key"),
    ],
    ids=["empty certificate", "DER", "empty key", "no key"],
)
def test_a_file_of_another_kind_is_refused(
    certificate: bytes | None, key: bytes | None, says: str, option: str
) -> None:
    one = pair("localhost")
    error = refused(one.certificate if certificate is None else certificate, one.key if key is None else key)
    assert (str(error), error.option) == (says, option)


def test_damaged_blocks_are_refused() -> None:
    one = pair("localhost")
    assert "certificate 1 of the file is damaged" in str(refused(_damaged(one.certificate), one.key))
    assert "certificate 2 of the file is damaged" in str(
        refused(one.certificate + _damaged(roots()), one.key)
    )
    assert "the key is damaged" in str(refused(one.certificate, _damaged(one.key)))


def _damaged(pem: bytes) -> bytes:
    return re.sub(rb"\n....", b"\n!!!!", pem, count=1)


def test_a_weak_key_is_refused() -> None:
    key = small_key()
    private = load_pem_private_key(key, None)
    assert isinstance(private, rsa.RSAPrivateKey)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "weak.test")])
    now = datetime.now(UTC)
    weak = (
        x509.CertificateBuilder(name, name, private.public_key(), 1, now, now + timedelta(days=1))
        .sign(private, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    error = refused(weak, key)
    text = "its key is too small: RSA takes 2048 bits at least, ECDSA 224"
    assert (str(error), error.option) == (f"OpenSSL refuses the certificate: {text}", "certificate")


@settings(max_examples=100)
@given(st.data())
def test_whatever_a_file_holds_is_taken_or_refused(data: st.DataObject) -> None:
    one = pair("localhost")
    whole = one.certificate + roots() if data.draw(st.booleans()) else one.key
    at = data.draw(st.integers(0, len(whole) - 1))
    spoiled = whole[:at] + data.draw(st.binary(max_size=3)) + whole[at + data.draw(st.integers(0, 50)) :]
    for certificate, key in ((spoiled, one.key), (one.certificate, spoiled)):
        try:
            Context(True).add_pair(certificate, key)
        except TlsError as error:
            assert str(error).isprintable()


def test_unknown_ciphers_are_refused() -> None:
    with pytest.raises(TlsError) as caught:
        Context(True).set_ciphers("NONSENSE")
    assert (str(caught.value), caught.value.option) == (
        "OpenSSL knows or allows no cipher suite of NONSENSE",
        "ciphers",
    )


def test_roots_are_counted_and_checked() -> None:
    one = Roots()
    assert one.add(roots() * 2, "client_ca") == 2
    for pem, says in (
        (b"", "no certificate is in it"),
        (roots() + _damaged(roots()), "certificate 2 of the file"),
    ):
        with pytest.raises(TlsError, match=says) as caught:
            one.add(pem, "client_ca")
        assert caught.value.option == "client_ca"
    with pytest.raises(TlsError, match="no revocation list is in it") as caught:
        one.add_revoked(roots())
    assert caught.value.option == "client_crl"
    with pytest.raises(TlsError, match="roots cannot be read"):
        one.add_system("/dev/null/none")
