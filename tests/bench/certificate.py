"""The certificate that all proxies and the upstream of the benchmark show: ECDSA P-256, own authority."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trustme

#: The name in the certificate, by which clients and proxies ask for it.
NAME = "localhost"


@dataclass(frozen=True, slots=True)
class Certificate:
    """The PEM files: the authority, the certificate with its chain, its key, and the last two in one file."""

    authority: Path
    chain: Path
    key: Path
    bundle: Path


def make_certificate(folder: Path) -> Certificate:
    """Make an authority and a certificate of it in `folder`, which is made too."""
    folder.mkdir()
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    leaf = authority.issue_cert(NAME, "127.0.0.1", key_type=trustme.KeyType.ECDSA)
    made = Certificate(folder / "ca.pem", folder / "site.pem", folder / "site.key", folder / "site.both")
    made.authority.write_bytes(authority.cert_pem.bytes())
    made.chain.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    made.key.write_bytes(leaf.private_key_pem.bytes())
    made.bundle.write_bytes(made.chain.read_bytes() + made.key.read_bytes())
    return made
