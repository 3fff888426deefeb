"""Certificates with any subject and any names, which sign themselves: for those who only read them."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_KEY: Final = ec.generate_private_key(ec.SECP256R1())
BEGIN: Final = datetime.datetime(2020, 2, 29, 12, 30, 59)
END: Final = datetime.datetime(2061, 1, 1)

Change = Callable[[x509.CertificateBuilder], x509.CertificateBuilder]


def named(*values: str, kind: x509.ObjectIdentifier = NameOID.COMMON_NAME) -> x509.Name:
    return x509.Name([x509.NameAttribute(kind, value) for value in values])


def signed(
    subject: x509.Name,
    names: Sequence[x509.GeneralName] = (),
    serial: int = 1,
    end: datetime.datetime = END,
    change: Change = lambda builder: builder,
) -> bytes:
    """As DER."""
    builder = x509.CertificateBuilder(subject, subject, _KEY.public_key(), serial, BEGIN, end)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return change(builder).sign(_KEY, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
