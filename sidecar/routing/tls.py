"""The conditions `tls.NAME` of a route: which there are, and what can be wanted of each."""

from __future__ import annotations

import difflib
import re
from typing import Final

from ..config.schema import quoted
from .values import Wanted

#: Of the facts about a connection (net.tls_info) those that routes are chosen by.
NAMES: Final = (
    "version",
    "sni",
    "client_verify",
    "client_subject",
    "client_issuer",
    "client_serial",
    "client_fingerprint",
    "client_san",
    "client_dns",
    "client_uri",
    "client_spiffe",
)
#: Those for which a client must be asked for a certificate.
ABOUT_CLIENTS: Final = frozenset(name for name in NAMES if name.startswith("client_"))

_VERSIONS: Final = ("TLSv1.2", "TLSv1.3")
_VERDICTS: Final = ("none", "success")
_HEXADECIMAL: Final = re.compile(r"-?(?:[0-9A-Fa-f]{2})+")
_FINGERPRINT: Final = re.compile(r"[0-9A-Fa-f]{64}")


def normal(name: str, wanted: Wanted) -> Wanted:
    """`wanted` as connections have it: case and colons are those of the fact. A regex stays as it is."""
    if wanted.regex is not None:
        return wanted
    text = wanted.text
    if name == "client_serial":
        text = text.replace(":", "").upper()
    elif name == "client_fingerprint":
        text = text.replace(":", "").lower()
    elif name in ("sni", "client_dns"):
        text = text.lower()
    return Wanted(text)


def mistake(name: str, wanted: Wanted) -> str | None:
    """What is wrong with a condition `tls.NAME`; None when nothing is."""
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, 1, 0.0)
        return f"routes cannot be chosen by tls.{name}: did you mean tls.{near[0]}?"
    if wanted.regex is not None:
        return None
    text = normal(name, wanted).text
    if name == "version" and text not in _VERSIONS:
        return f"{quoted(text)} is no version that is spoken: write {' or '.join(_VERSIONS)}"
    if name == "client_verify" and text not in _VERDICTS:
        return f"{quoted(text)} is no verdict: write {', '.join(_VERDICTS)} or ~^failed"
    if name == "client_serial" and not _HEXADECIMAL.fullmatch(text):
        return f"{quoted(wanted.text)} is no serial number: write it in hexadecimal digits, two a byte"
    if name == "client_fingerprint" and not _FINGERPRINT.fullmatch(text):
        return f"{quoted(wanted.text)} is no SHA-256: write its 64 hexadecimal digits"
    return _name_mistake(name, text)


def _name_mistake(name: str, text: str) -> str | None:
    if name == "client_spiffe" and not text.startswith("spiffe://"):
        return f"{quoted(text)} is no SPIFFE ID: write spiffe://DOMAIN/PATH"
    if not text.isascii() or not text.isprintable():
        return f"{quoted(text)} has characters that certificates are not shown with: write \\XX for each byte"
    return None
