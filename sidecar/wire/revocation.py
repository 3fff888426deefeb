"""What stands in a list of revoked certificates (CRL): whose it is, and from when to when it is good.

Law: every text is printable ASCII. Nothing here judges trust, and what is revoked is not read: OpenSSL does.
"""

from __future__ import annotations

from hashlib import sha256
from math import inf
from typing import Final, NamedTuple

from .certificate import distinguished_name
from .der import GENERALIZED_TIME, INTEGER, SEQUENCE, UTC_TIME, Pem, signed, time

#: The blocks of a file with lists.
PEM: Final = Pem(rb"X509 CRL", "list")


class RevocationList(NamedTuple):
    """What is read of one. Times are seconds since 1970."""

    issuer: str  # as that of a `Certificate`
    this_update: int
    next_update: float  # from then on OpenSSL refuses whom the issuer vouches for; inf: never
    sha256: str  # of the whole list, hexadecimal, lower case


def parse(der: bytes) -> RevocationList:
    """The list that is written in these bytes. Raises Unreadable."""
    body = signed(der)
    body.maybe(INTEGER)  # the version
    body.take(SEQUENCE)  # the algorithm again
    issuer = distinguished_name(body.take(SEQUENCE))
    this_update = time(*body.next())
    next_update = time(*body.next()) if body.leads(UTC_TIME, GENERALIZED_TIME) else inf
    return RevocationList(issuer, this_update, next_update, sha256(der).hexdigest())
