"""What `[certificate NAME]` says: its files, and what is asked of clients that get it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Final

from ..config.kinds import TEXT, choice, list_of
from ..config.schema import Kind, Section, option, quoted, required

_OLD: Final = frozenset(("1.0", "1.1", "TLSv1", "TLSv1.0", "TLSv1.1", "SSLv3"))
_VERSIONS: Final = choice("1.2", "1.3")


def _parse_version(text: str) -> str:
    if text in _OLD:
        raise ValueError(f"{quoted(text)} is broken and retired (RFC 8996): write 1.2 or 1.3")
    return _VERSIONS.parse(text)


@dataclass(frozen=True, slots=True)
class CertificateSettings(Section):
    """One `[certificate NAME]`."""

    KIND: ClassVar[str] = "certificate"
    DOC: ClassVar[str] = (
        "A certificate for `tls` of listeners, and what is asked of the clients that get it. Its files are "
        "watched: what is renewed is in use within a second."
    )

    certificate: tuple[str, ...] = required(
        list_of(TEXT),
        "Files (PEM) with a certificate and its chain, the server's own first; several for keys of several "
        "kinds, such as ECDSA and RSA.",
    )
    key: tuple[str, ...] = required(
        list_of(TEXT),
        "Files (PEM) with the private keys: the first is that of the first certificate, and so on.",
    )
    client_ca: str = option(
        "", TEXT, "File (PEM) with the authorities whose certificates clients may show; needs verify_client."
    )
    client_crl: str = option(
        "",
        TEXT,
        "File (PEM) with a list of revoked certificates (CRL) of each authority that clients' chains hold. "
        "Whom an authority vouches for is refused from the moment when its list expires.",
    )
    verify_client: str = option(
        "off",
        choice("off", "optional", "require"),
        "Whether clients are asked for a certificate of their own (optional: those without one are served, "
        "too) or must show one (require).",
    )
    min_version: str = option("1.2", Kind(_VERSIONS.name, _parse_version), "Oldest version of TLS.")
    ciphers: str = option(
        "",
        TEXT,
        "Ciphers for TLS 1.2 as a list of OpenSSL, names between colons; empty: Mozilla's intermediate list. "
        "Those of TLS 1.3 are fixed.",
    )

    @property
    def files(self) -> tuple[str, ...]:
        """All files that it names."""
        return (*self.certificate, *self.key, *filter(None, (self.client_ca, self.client_crl)))

    @property
    def has_revocation(self) -> bool:
        """Whether clients are verified by lists of revoked certificates."""
        return self.verify_client != "off" and bool(self.client_crl)

    def check(self) -> Iterable[tuple[str, str]]:
        """Each certificate has a key, and what is asked of clients can be checked."""
        certificates, keys = len(self.certificate), len(self.key)
        if certificates != keys:
            text = f"{_counted(keys, 'file')} for {_counted(certificates, 'certificate')}: write one for each"
            yield "key", text
        if len(set(self.certificate)) < certificates:
            yield "certificate", "a file is listed twice: keep one"
        if self.verify_client != "off" and not self.client_ca:
            yield (
                "verify_client",
                f"{self.verify_client} needs authorities to verify by: add client_ca = FILE",
            )

    def idle(self) -> Iterable[tuple[str, str]]:
        """Options that do nothing beside the others, each with why."""
        if self.verify_client == "off":
            for key in ("client_ca", "client_crl"):
                if getattr(self, key):
                    yield key, "does nothing with verify_client = off: remove it, or ask for certificates"
        if self.min_version == "1.3" and self.ciphers:
            yield "ciphers", "does nothing with min_version = 1.3, whose ciphers are fixed: remove it"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
