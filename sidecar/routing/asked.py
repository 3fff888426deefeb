"""A question about a request, made into the bytes a client would send and read as those are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlsplit

from ..config.schema import quoted
from ..errors import ConfigurationError, Malformed
from ..message import Request, connection
from ..net.client_address import parse_address
from ..net.settings import ListenerSettings
from ..wire.head import Limits, RequestHead
from ..wire.target import normal_path

_PORTS: Final = {"http": 80, "https": 443, "tcp": 0}
#: What asks for a TCP connection: a name that a TLS client asks for, a port of the listener, both or none.
_TCP: Final = re.compile(r"tcp://(?P<name>[A-Za-z0-9._-]*)(?::(?P<port>[0-9]{1,5}))?", re.IGNORECASE)
_NOWHERE: Final = "localhost"  # the host of a question that names none
#: Clients escape the rest before they send a target; what is escaped already stays.
_SENT_AS_IT_IS: Final = "/?#[]@!$&'()*+,;=:%~"


@dataclass(frozen=True, slots=True)
class Question:
    """A request as the command line tells it: a URL or a path, fields, and the client's address.

    `sni` and `certificate` (DER) are what the client says and shows in the handshake; left empty, the host of
    the URL and no certificate. The certificate counts as verified.
    """

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    client: str
    sni: str = ""
    certificate: bytes = b""

    def __post_init__(self) -> None:
        """Raises ConfigurationError when there can be no such request."""
        if self._scheme not in _PORTS:
            raise ConfigurationError(
                [f"{quoted(self.url)} is not a URL: write http://host/path or /path, or tcp://name"]
            )
        if self.is_tcp and (self.headers or not _TCP.fullmatch(self.url)):
            raise ConfigurationError(
                [f"{quoted(self.url)} is a TCP connection: write tcp://NAME:PORT or one of both, no fields"]
            )
        for text in (self.method, *(part for header in self.headers for part in header)):
            if "\r" in text or "\n" in text:
                raise ConfigurationError(
                    [f"{quoted(text)} has a line break: a request cannot be asked for so"]
                )

    @property
    def is_tcp(self) -> bool:
        """Whether it is about a connection, not a request."""
        return self._scheme == "tcp"

    @property
    def has_handshake(self) -> bool:
        """Whether it says what the client does in the handshake."""
        return bool(self.sni or self.certificate)

    @property
    def wants_tls(self) -> bool | None:
        """Whether it is about a listener with TLS; None: about either."""
        if self.has_handshake:
            return True
        return None if self.url.startswith("/") or self.url == "*" else self._scheme == "https"

    @property
    def _scheme(self) -> str:
        if self.url.startswith("/") or self.url == "*":
            return "http"
        scheme, _, rest = self.url.partition("://")
        return scheme.lower() if rest else ""

    @property
    def _split(self) -> tuple[str, str]:
        """(authority, target), both as they are sent."""
        if self.url.startswith("/") or self.url == "*":
            authority, target = "", self.url.partition("#")[0]
        else:
            rest = self.url.partition("://")[2]
            end = min((at for mark in "/?#" if (at := rest.find(mark)) >= 0), default=len(rest))
            authority, target = rest[:end].rpartition("@")[2], rest[end:].partition("#")[0]
            target = target if target.startswith("/") else f"/{target}"
        return authority, quote(target, safe=_SENT_AS_IT_IS)

    @property
    def port(self) -> int:
        """The port that the URL names or means, 0 when it names no host."""
        if self.url.startswith("/") or self.url == "*":
            return 0
        try:
            return urlsplit(self.url).port or _PORTS[self._scheme]
        except ValueError:
            return 0

    def request(self, listener: str, settings: ListenerSettings | None) -> Request:
        """The request as the data path would have it. Raises Malformed as that would."""
        has_tls = settings is not None and bool(settings.tls)
        if self.is_tcp:
            found = connection(self.client, listener)
            told = _TCP.fullmatch(self.url)
            found.host = told["name"].lower() if told is not None else ""
            if has_tls:
                found.tls = self._tls(found.host)
                found.host = found.tls.sni
            return found
        authority, target = self._split
        named = any(name.lower() == "host" for name, _ in self.headers)
        fields = [*self.headers] if named else [("Host", authority or _NOWHERE), *self.headers]
        lines = [f"{self.method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields), "", ""]
        head = RequestHead(
            Limits()
            if settings is None
            else Limits(settings.max_header_size, settings.max_headers, settings.max_target_size)
        )
        if not head.feed("\r\n".join(lines).encode("utf-8", "surrogateescape")):
            raise Malformed("incomplete")
        scheme = "https" if has_tls else self._scheme
        request = Request(head, normal_path(head.path), self.client, scheme, listener)
        if has_tls:
            request.tls = self._tls(request.host)
        return request

    def _tls(self, host: str) -> Any:
        """What would be known of the connection."""
        from ..net.tls_info import Parameters, Shown, TlsInfo

        # Clients name no address in the handshake (RFC 6066 section 3).
        sni = self.sni or ("" if parse_address(host) is not None else host)
        return TlsInfo(
            Parameters("TLSv1.3", "TLS_AES_128_GCM_SHA256", sni, b"http/1.1"), Shown(self.certificate or None)
        )
