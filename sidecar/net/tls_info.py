"""What is known of a client's TLS connection: its parameters, and who the client's certificate says it is.

Law: what the certificate says is told only when OpenSSL has verified it and it could be read whole; else all
of it is empty. Every text is printable ASCII without line breaks. Nothing of this is believed from outside.
"""

from __future__ import annotations

import re
from base64 import b64encode
from binascii import b2a_base64
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol
from urllib.parse import quote

from ..wire.certificate import Certificate, parse
from ..wire.octets import Unreadable

NO_CERTIFICATE: Final = "none"
VERIFIED: Final = "success"
_FAILED: Final = "failed: "

#: A SPIFFE ID: a trust domain and a path whose segments are neither empty nor dots.
_SPIFFE: Final = re.compile(r"spiffe://[a-z0-9._-]{1,255}(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]+)*")
_LONGEST_SPIFFE: Final = 2048
_UNSAFE: Final = re.compile(r"[^ -~]+")
_TO_QUOTE: Final = re.compile(r"[,;=]")
_PEM: Final = "-----BEGIN CERTIFICATE-----\n{}-----END CERTIFICATE-----\n"
_PEM_LINE: Final = 48  # bytes of 64 characters


class Parameters(NamedTuple):
    """What was agreed upon."""

    version: str  # TLSv1.2 or TLSv1.3
    cipher: str
    sni: str = ""  # the name that the client asked for
    alpn: bytes = b""
    is_resumed: bool = False


class Shown(NamedTuple):
    """What the client showed."""

    certificate: bytes | None = None  # DER
    chain: tuple[bytes, ...] = ()  # those behind it, its issuer's first
    verify_error: str = ""  # why OpenSSL does not believe it


class Handshaken(Protocol):
    """A channel after its handshake, as far as it tells of it: a net.tls_channel.TlsChannel."""

    sni: str

    @property
    def version(self) -> str:
        """As in Parameters, like the next three."""

    @property
    def cipher(self) -> str: ...  # noqa: D102

    @property
    def alpn(self) -> bytes: ...  # noqa: D102

    @property
    def is_resumed(self) -> bool: ...  # noqa: D102

    @property
    def peer_certificate(self) -> bytes | None:
        """As in Shown, like the next two."""

    @property
    def peer_chain(self) -> tuple[bytes, ...]: ...  # noqa: D102

    @property
    def verify_error(self) -> str: ...  # noqa: D102


class TlsInfo:
    """One for each connection, shared by its requests."""

    __slots__ = (
        "_is_read",
        "_known",
        "_lines",
        "_read",
        "_shown",
        "alpn",
        "cipher",
        "has_certificate",
        "is_resumed",
        "sni",
        "version",
    )

    def __init__(self, parameters: Parameters, shown: Shown) -> None:
        self.version = parameters.version
        self.cipher = parameters.cipher
        self.sni = _UNSAFE.sub("", parameters.sni).lower()
        self.alpn = _UNSAFE.sub("", parameters.alpn.decode("latin-1"))
        self.is_resumed = parameters.is_resumed
        self.has_certificate = shown.certificate is not None  # verified or not
        self._shown = shown
        self._read: Certificate | None = None
        self._is_read = not self.has_certificate
        self._known: dict[str, tuple[str, ...]] = {}
        self._lines: dict[str, bytes] = {}

    @classmethod
    def of(cls, channel: Handshaken) -> TlsInfo:
        """What a channel tells."""
        parameters = Parameters(
            channel.version, channel.cipher, channel.sni, channel.alpn, channel.is_resumed
        )
        return cls(parameters, Shown(channel.peer_certificate, channel.peer_chain, channel.verify_error))

    @property
    def verified(self) -> str:
        """`none` (no certificate), `success`, or `failed: ` and why."""
        if self._shown.certificate is None:
            return NO_CERTIFICATE
        if self._shown.verify_error:
            return _FAILED + _UNSAFE.sub(" ", self._shown.verify_error)
        return VERIFIED if self.certificate is not None else f"{_FAILED}the certificate cannot be read"

    @property
    def subject_seen(self) -> str:
        """The subject of what the client showed, verified or not: for logs alone."""
        return "" if self.seen is None else self.seen.subject

    @property
    def seen(self) -> Certificate | None:
        """What the client showed, verified or not: for logs alone. None: nothing, or nothing readable."""
        if not self._is_read:
            self._is_read = True
            try:
                self._read = parse(self._shown.certificate or b"")
            except Unreadable:
                self._read = None
        return self._read

    @property
    def certificate(self) -> Certificate | None:
        """The client's certificate if it is verified, else None."""
        return None if self._shown.verify_error else self.seen

    @property
    def der(self) -> bytes | None:
        """The bytes of the client's certificate if it is verified, else None."""
        return None if self.certificate is None else self._shown.certificate

    @property
    def chain(self) -> tuple[bytes, ...]:
        """The certificates behind it, as DER, its issuer's first."""
        return tuple(one for one in self._shown.chain if one != self._shown.certificate)

    def values(self, name: str) -> tuple[str, ...]:
        """What stands behind `tls.NAME`: none, one, or all the alternative names of a kind."""
        found = self._known.get(name)
        if found is None:
            found = self._known[name] = tuple(text for text in FACTS[name](self) if text)
        return found

    def text(self, name: str) -> str:
        """The same as one text, joined with commas; a comma within a value is written `\\2C`."""
        found = self.values(name)
        if len(found) == 1:
            return found[0]
        return ",".join([text.replace(",", "\\2C") for text in found])

    def client_lines(self, form: str) -> bytes:
        """The complete lines of CLIENT_CERTIFICATE_FIELDS; empty when no certificate is verified.

        `form`: `x-forwarded-client-cert` (Envoy's), or `client-cert` (RFC 9440).
        """
        lines = self._lines.get(form)
        if lines is None:
            lines = self._lines[form] = _client_lines(self, form)
        return lines


Values = tuple[str, ...]


def _certified(get: Callable[[Certificate], Values]) -> Callable[[TlsInfo], Values]:
    """What `get` finds in a verified certificate, else nothing."""

    def values(tls: TlsInfo) -> Values:
        certificate = tls.certificate
        return () if certificate is None else get(certificate)

    return values


def _names(certificate: Certificate) -> Values:
    return tuple(name.lower() for name in certificate.dns)


def _alternatives(certificate: Certificate) -> Values:
    return (*_names(certificate), *certificate.uris, *certificate.ips, *certificate.emails)


def _spiffe(certificate: Certificate) -> Values:
    """The identity of an X.509-SVID: one URI and no other, of a certificate that cannot sign others."""
    if len(certificate.uris) != 1 or certificate.is_ca:
        return ()
    uri = certificate.uris[0]
    return (uri,) if len(uri) <= _LONGEST_SPIFFE and _SPIFFE.fullmatch(uri) else ()


def _escaped_pem(tls: TlsInfo) -> Values:
    """As nginx writes it into a field: PEM, percent-encoded."""
    der = tls.der
    if der is None:
        return ()
    lines = [b2a_base64(der[at : at + _PEM_LINE]).decode("ascii") for at in range(0, len(der), _PEM_LINE)]
    return (quote(_PEM.format("".join(lines)), safe=""),)


#: What `values` knows: the names of the variables `{tls.…}` and of the conditions `tls.…`.
FACTS: Final[dict[str, Callable[[TlsInfo], Values]]] = {
    "version": lambda tls: (tls.version,),
    "cipher": lambda tls: (tls.cipher,),
    "sni": lambda tls: (tls.sni,),
    "alpn": lambda tls: (tls.alpn,),
    "resumed": lambda tls: ("on" if tls.is_resumed else "off",),
    "client_verify": lambda tls: (tls.verified,),
    "client_subject": _certified(lambda found: (found.subject,)),
    "client_issuer": _certified(lambda found: (found.issuer,)),
    "client_serial": _certified(lambda found: (found.serial,)),
    "client_fingerprint": _certified(lambda found: (found.sha256,)),
    "client_san": _certified(_alternatives),
    "client_dns": _certified(_names),
    "client_uri": _certified(lambda found: found.uris),
    "client_spiffe": _certified(_spiffe),
    "client_not_after": _certified(lambda found: (str(found.not_after),)),
    "client_certificate": _escaped_pem,
}


# What the upstream is told ----------------------------------------------------------------------------------


def _client_lines(tls: TlsInfo, form: str) -> bytes:
    certificate, der = tls.certificate, tls.der
    if certificate is None or der is None:
        return b""
    if form == "x-forwarded-client-cert":
        return b"X-Forwarded-Client-Cert: " + _envoy(certificate).encode("ascii") + b"\r\n"
    lines = b"Client-Cert: " + _byte_sequence(der) + b"\r\n"
    if tls.chain:
        lines += b"Client-Cert-Chain: " + b", ".join(map(_byte_sequence, tls.chain)) + b"\r\n"
    return lines


def _envoy(certificate: Certificate) -> str:
    # A quote or a backslash of the subject stands as its number: readers differ in how they undo `\"`.
    subject = certificate.subject.replace("\\\\", "\\5C").replace('\\"', "\\22")
    words = [f"Hash={certificate.sha256}", f'Subject="{subject}"']
    words += [f"URI={_quoted(uri)}" for uri in certificate.uris]
    words += [f"DNS={_quoted(name)}" for name in certificate.dns]
    return ";".join(words)


def _quoted(value: str) -> str:
    return f'"{value}"' if _TO_QUOTE.search(value) else value


def _byte_sequence(data: bytes) -> bytes:
    """Of RFC 8941 section 3.3.5."""
    return b":" + b64encode(data) + b":"
