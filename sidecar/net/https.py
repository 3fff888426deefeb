"""How a listener leads its clients to HTTPS and keeps them there: redirects (plain), HSTS (TLS; RFC 6797)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ..config.schema import Kind, quoted
from ..errors import Malformed
from ..message import Request

#: Below it the authority that renews a certificate asks, in plain HTTP (RFC 8555 section 8.3).
ACME_PREFIX: Final = "/.well-known/acme-challenge/"

_HTTPS: Final = 443
_PORT: Final = re.compile(r"[0-9]{1,5}")
#: What a URI cannot hold (RFC 3986 section 2); `%` stays: escapes of the client pass through.
_NOT_IN_URI: Final = re.compile(rb"[^A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]")
_GET_OR_HEAD: Final = (b"GET", b"HEAD")


def _parse_redirect(text: str) -> int:
    if text in ("on", "off"):
        return _HTTPS if text == "on" else 0
    if not _PORT.fullmatch(text) or not 1 <= int(text) <= 65535:
        raise ValueError(f"{quoted(text)} is not a port: write on, off, or a port such as 8443")
    return int(text)


def _show_redirect(port: int) -> str:
    return {0: "off", _HTTPS: "on"}.get(port, str(port))


#: The port that clients are sent to; `on` is 443, `off` is 0.
HTTPS_REDIRECT: Final[Kind[int]] = Kind("off | on | port", _parse_redirect, _show_redirect)


def https_redirect(request: Request, port: int) -> tuple[int, bytes] | None:
    """(status, location) for a request that belongs on TLS; None when it is fine as it came.

    GET and HEAD get a 301, which everything understands; 308 keeps method and body of the others, where a 301
    would let clients turn a POST into a GET. Raises Malformed("missing_host"): HTTP/1.0 may name no host.
    """
    head = request.head
    if request.scheme == "https" or request.path.startswith(ACME_PREFIX) or head.origin == b"*":
        return None
    if not request.host:
        raise Malformed("missing_host")
    authority = request.host if port == _HTTPS else f"{request.host}:{port}"
    target = _NOT_IN_URI.sub(_escape, head.origin)
    status = 301 if head.method in _GET_OR_HEAD else 308
    return status, b"https://%b%b" % (authority.encode("ascii"), target)


def _escape(found: re.Match[bytes]) -> bytes:
    return b"%%%02X" % ord(found[0])


# HSTS -------------------------------------------------------------------------------------------------------

HSTS_FIELD: Final = "Strict-Transport-Security"

_SECONDS: Final = {"y": 31_536_000, "d": 86_400, "h": 3600, "m": 60, "s": 1}
_AGE: Final = re.compile(r"([0-9]{1,9})([ydhms])")
_LONGEST: Final = 10  # years
#: What the list of browsers demands of those who want to be on it.
_PRELOAD_AGE: Final = _SECONDS["y"]
_HSTS_ADVICE: Final = "write off, or an age such as 1y, then includeSubDomains, then preload"


@dataclass(frozen=True, slots=True)
class Hsts:
    """For how many seconds browsers must come by HTTPS alone, and for which hosts besides."""

    max_age: int
    subdomains: bool = False
    preload: bool = False

    @property
    def value(self) -> str:
        """Of the field."""
        words = [f"max-age={self.max_age}"]
        return "; ".join(words + ["includeSubDomains"] * self.subdomains + ["preload"] * self.preload)

    @property
    def line(self) -> bytes:
        """The complete field line."""
        return b"%b: %b\r\n" % (HSTS_FIELD.encode("ascii"), self.value.encode("ascii"))

    def __str__(self) -> str:
        """As it is written."""
        units = _SECONDS.items() if self.max_age else [("s", 1)]
        words = [next(f"{self.max_age // size}{unit}" for unit, size in units if self.max_age % size == 0)]
        return " ".join(words + ["includeSubDomains"] * self.subdomains + ["preload"] * self.preload)


def _parse_hsts(text: str) -> Hsts | None:
    if text == "off":
        return None
    age, *words = text.split()
    found = _AGE.fullmatch(age)
    if found is None:
        raise ValueError(f"{quoted(age)} is not an age: {_HSTS_ADVICE}")
    seconds = int(found[1]) * _SECONDS[found[2]]
    if seconds > _LONGEST * _SECONDS["y"]:
        raise ValueError(f"{quoted(age)} is too long: write at most {_LONGEST}y")
    flags = [word.lower() for word in words]
    for word, flag in zip(words, flags, strict=True):
        if flag not in ("includesubdomains", "preload") or flags.count(flag) > 1:
            raise ValueError(f"{quoted(word)} is unknown or written twice: {_HSTS_ADVICE}")
    hsts = Hsts(seconds, "includesubdomains" in flags, "preload" in flags)
    if hsts.preload and not (hsts.subdomains and seconds >= _PRELOAD_AGE):
        raise ValueError("preload demands includeSubDomains and 1y: write 1y includeSubDomains preload")
    return hsts


#: `off`, or an age and what else holds. An age of 0s makes browsers forget.
HSTS: Final[Kind[Hsts | None]] = Kind(
    "off | age [includeSubDomains] [preload]", _parse_hsts, lambda hsts: "off" if hsts is None else str(hsts)
)
