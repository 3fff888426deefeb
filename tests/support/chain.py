"""An authority like the public ones: a root, an intermediate that signs, certificates for weeks, CRLs."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.support.certificates import Issued

_BEFORE: Final = datetime.timedelta(hours=1)
_USES: Final = ("content_commitment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only")


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _pem(made: x509.Certificate | x509.CertificateRevocationList) -> bytes:
    return made.public_bytes(serialization.Encoding.PEM)


class _Signer:
    """A certificate with its key that signs others."""

    def __init__(self, name: str, issuer: _Signer | None = None) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        constraints = x509.BasicConstraints(ca=True, path_length=0 if issuer else None)
        self.certificate = (issuer or self).sign(self.name, self.key.public_key(), 3650, [constraints])

    def sign(
        self, subject: x509.Name, key: Any, days: float, extensions: Sequence[x509.ExtensionType]
    ) -> x509.Certificate:
        is_authority = any(isinstance(one, x509.BasicConstraints) and one.ca for one in extensions)
        begin = _now() - _BEFORE
        end = begin + datetime.timedelta(days=days)
        if end < begin:
            begin = end - datetime.timedelta(days=1)
        usage = dict.fromkeys(_USES, False) | {
            "digital_signature": True,
            "key_cert_sign": is_authority,
            "crl_sign": is_authority,
            "key_encipherment": False,
        }
        builder = (
            x509.CertificateBuilder(self.name, subject, key, x509.random_serial_number(), begin, end)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
            .add_extension(x509.KeyUsage(**usage), critical=True)
        )
        for one in extensions:
            builder = builder.add_extension(one, critical=isinstance(one, x509.BasicConstraints))
        return builder.sign(self.key, hashes.SHA256())

    def revoke(self, certificates: Sequence[x509.Certificate], days: float) -> bytes:
        now = _now()
        end = now + datetime.timedelta(days=days)
        begin = min(now, end) - _BEFORE
        builder = x509.CertificateRevocationListBuilder(self.name, begin, end)
        for one in certificates:
            revoked = x509.RevokedCertificateBuilder(one.serial_number, begin)
            builder = builder.add_revoked_certificate(revoked.build())
        return _pem(builder.sign(self.key, hashes.SHA256()))


class PublicAuthority:
    """Issues for servers and for clients; what it hands out holds the intermediate."""

    def __init__(self, name: str = "Test") -> None:
        self._root = _Signer(f"{name} Root")
        self._intermediate = _Signer(f"{name} Intermediate", self._root)

    @property
    def pem(self) -> bytes:
        """The root."""
        return _pem(self._root.certificate)

    @property
    def intermediate(self) -> bytes:
        """The one that signs."""
        return _pem(self._intermediate.certificate)

    def issue(self, *names: str, rsa_bits: int = 0, days: float = 80) -> Issued:
        """One for these names, the first of them its common name; less than 0 days: it is over."""
        key: Any = ec.generate_private_key(ec.SECP256R1())
        if rsa_bits:
            key = rsa.generate_private_key(65537, rsa_bits)
        uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        made = self._intermediate.sign(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])]),
            key.public_key(),
            days,
            [
                x509.BasicConstraints(ca=False, path_length=None),
                x509.SubjectAlternativeName([_general(name) for name in names]),
                x509.ExtendedKeyUsage(uses),
            ],
        )
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Issued(_pem(made) + self.intermediate, secret)

    def revoke(self, *issued: Issued, days: float = 7) -> bytes:
        """The lists of the revoked: of the intermediate with these, good so long, of the root with none."""
        leaves = [x509.load_pem_x509_certificate(one.certificate) for one in issued]
        return self._intermediate.revoke(leaves, days) + self._root.revoke((), 7)


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
