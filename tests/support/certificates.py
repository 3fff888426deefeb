"""Certificates made by the tests: an authority, what it issues, and the files of a `[certificate NAME]`."""

from __future__ import annotations

import datetime
import os
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_ONE_DAY: Final = datetime.timedelta(days=1)


def utc(seconds: float) -> datetime.datetime:
    """As `trustme` takes it."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


class Issued:
    """A certificate with its key, as PEM."""

    def __init__(self, certificate: bytes, key: bytes) -> None:
        self.certificate = certificate
        self.key = key

    @property
    def serial(self) -> str:
        """Of the leaf, as events have it."""
        digits = f"{x509.load_pem_x509_certificate(self.certificate).serial_number:X}"
        return digits.zfill(len(digits) + len(digits) % 2)


class Authority:
    """Issues certificates."""

    def __init__(self) -> None:
        self._ca = trustme.CA(key_type=trustme.KeyType.ECDSA)

    @property
    def pem(self) -> bytes:
        """Its own certificate."""
        return self._ca.cert_pem.bytes()

    def issue(self, *names: str, rsa: bool = False, **options: Any) -> Issued:
        """One for these names; `options`: those of `trustme.CA.issue_cert`, like `not_after`."""
        kind = trustme.KeyType.RSA if rsa else trustme.KeyType.ECDSA
        made = self._ca.issue_cert(*names, key_type=kind, **options)
        chain = b"".join(blob.bytes() for blob in made.cert_chain_pems)
        return Issued(chain, made.private_key_pem.bytes())

    def trust(self) -> ssl.SSLContext:
        """The context of a client that believes it."""
        return ssl.create_default_context(cadata=self.pem.decode())


def bare(common_name: str, days: int = 90) -> Issued:
    """One that signs itself, with a common name and no alternative name."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, common_name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - _ONE_DAY)
        .not_valid_after(now + days * _ONE_DAY)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Issued(made.public_bytes(serialization.Encoding.PEM), secret)


def revoking(issuer: str, begin: float, end: float) -> bytes:
    """A list of the revoked, good between these dates, by somebody of this common name. It revokes nobody."""
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, issuer)])
    key = ec.generate_private_key(ec.SECP256R1())
    made = x509.CertificateRevocationListBuilder(name, utc(begin), utc(end)).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM)


def encrypted(key: bytes) -> bytes:
    """The same key behind a password."""
    loaded = serialization.load_pem_private_key(key, None)
    return loaded.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )


class Files:
    """The files of a certificate in a directory: `cert.pem` and `key.pem`."""

    def __init__(self, directory: Path, issued: Issued, stem: str = "") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.certificate = directory / f"{stem}cert.pem"
        self.key = directory / f"{stem}key.pem"
        self.rename(issued)

    @property
    def options(self) -> str:
        """The lines of a `[certificate NAME]`."""
        return f"certificate = {self.certificate}\nkey = {self.key}\n"

    def rename(self, issued: Issued) -> None:
        """Replace both, each by a rename."""
        replace(self.certificate, issued.certificate)
        replace(self.key, issued.key)

    def write(self, issued: Issued) -> None:
        """Write both in place."""
        self.certificate.write_bytes(issued.certificate)
        self.key.write_bytes(issued.key)


class Secret:
    """A mounted Secret of Kubernetes: files are links into `..data`, which is a link to a directory."""

    def __init__(self, directory: Path, issued: Issued) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._version = 0
        self.swap(issued)
        for name in ("tls.crt", "tls.key"):
            (directory / name).symlink_to(f"..data/{name}")
        self.certificate, self.key = directory / "tls.crt", directory / "tls.key"

    @property
    def options(self) -> str:
        """The lines of a `[certificate NAME]`."""
        return f"certificate = {self.certificate}\nkey = {self.key}\n"

    def swap(self, issued: Issued) -> None:
        """Replace both in one step, and remove what was before."""
        before = self._directory / f"..{self._version}"
        self._version += 1
        after = self._directory / f"..{self._version}"
        after.mkdir()
        for name, data in (("tls.crt", issued.certificate), ("tls.key", issued.key)):
            (after / name).write_bytes(data)
            (after / name).chmod(0o600)
        link = self._directory / "..data_tmp"
        link.symlink_to(after.name)
        link.rename(self._directory / "..data")
        if before.is_dir():
            remove(before.iterdir())
            before.rmdir()


def replace(path: Path, data: bytes) -> None:
    """Put a file in the place of another in one step, readable by its owner alone."""
    temporary = path.with_name(f".{path.name}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    temporary.rename(path)


def remove(files: Iterable[Path]) -> None:
    """Remove them."""
    for file in list(files):
        file.unlink()
