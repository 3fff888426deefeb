"""What a listener is told: where it listens, whom it believes, and how patient and how generous it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Final

from ..config.addresses import BIND, Address
from ..config.kinds import CIDRS, ON_OFF, TEXT, TIMEOUT, Network, choice, integer, list_of, size
from ..config.schema import Section, option, required
from .https import HSTS, HTTPS_REDIRECT, Hsts

#: What only matters to requests.
ONLY_HTTP: Final = (
    "http2",
    "max_streams",
    "https_redirect",
    "hsts",
    "client_certificate_header",
    "trusted_proxies",
    "body_timeout",
    "write_timeout",
    "idle_timeout",
    "max_header_size",
    "max_headers",
    "max_target_size",
)


@dataclass(frozen=True, slots=True)
class ListenerSettings(Section):
    """One `[listener NAME]`. Times in seconds, sizes in bytes."""

    KIND: ClassVar[str] = "listener"
    DOC: ClassVar[str] = "Addresses where clients connect, and the limits that hold for them."

    bind: tuple[Address, ...] = required(
        list_of(BIND),
        "Addresses to listen on: host:port, [v6]:port (IPv6 only), unix:/path or fd:NAME (sockets that "
        "the service manager opened and named so); the system chooses port 0.",
    )
    protocol: str = option(
        "http",
        choice("http", "tcp"),
        "What clients speak: http, or tcp for anything, whose bytes are passed on as they are.",
    )
    tls: tuple[str, ...] = option(
        (),
        list_of(TEXT),
        "Names of [certificate NAME] sections; clients get the one that is for the name they ask for (SNI), "
        "else the first. Empty: no TLS. With protocol = tcp, what is inside TLS is passed on.",
    )
    http2: bool = option(
        True, ON_OFF, "Whether clients may speak HTTP/2: by ALPN with TLS, by prior knowledge without."
    )
    max_streams: int = option(
        128, integer(1, 10_000), "Largest number of requests at one time on one HTTP/2 connection."
    )
    https_redirect: int = option(
        0,
        HTTPS_REDIRECT,
        "Whether, and to which port (on: 443), requests in plain HTTP are sent to HTTPS, but for those below "
        "/.well-known/acme-challenge/ and those that came to a trusted proxy by HTTPS.",
    )
    hsts: Hsts | None = option(
        None,
        HSTS,
        "With tls: the Strict-Transport-Security of every answer, in place of what routes and upstreams say: "
        "1y includeSubDomains preload, or 0s to make browsers forget.",
    )
    client_certificate_header: str = option(
        "off",
        choice("off", "x-forwarded-client-cert", "client-cert"),
        "With tls: how upstreams are told of a client's certificate that is verified: as Envoy does, or by "
        "RFC 9440; what the client or a proxy says in such fields is then never passed on.",
    )
    proxy_protocol: str = option(
        "off",
        choice("off", "accept", "require"),
        "Whether a connection may (accept) or must (require) begin with a PROXY protocol header (v1, v2).",
    )
    trusted_proxies: tuple[Network, ...] = option(
        (),
        CIDRS,
        "Networks of the proxies whose X-Forwarded-* fields are believed; empty: nobody's.",
    )
    header_timeout: float = option(
        15.0,
        TIMEOUT,
        "Longest time for a request head, from its first byte to its last; for a PROXY header; for a TLS "
        "handshake; and with sni for a ClientHello, from the beginning of the connection.",
    )
    body_timeout: float = option(60.0, TIMEOUT, "Longest wait for the next bytes of a request body.")
    write_timeout: float = option(
        60.0, TIMEOUT, "Longest wait until a client takes the next bytes of a response."
    )
    idle_timeout: float = option(75.0, TIMEOUT, "How long a connection without a request is kept open.")
    max_header_size: int = option(
        32 << 10,
        size(1 << 10, 1 << 20),
        "Largest request head in bytes, the request line included; more gets 431.",
    )
    max_headers: int = option(
        100, integer(1, 1000), "Largest number of fields in a request head; more gets 431."
    )
    max_target_size: int = option(
        8 << 10, size(256, 64 << 10), "Largest request target in bytes; a longer one gets 414."
    )

    def check(self) -> Iterable[tuple[str, str]]:
        """Each address is listed once, and the longest target fits into a head."""
        for address in dict.fromkeys(self.bind):
            if address.is_fixed and self.bind.count(address) > 1:
                yield "bind", f"{address} is listed twice: keep one"
        if len(set(self.tls)) < len(self.tls):
            yield "tls", "a certificate is listed twice: keep one"
        if self.max_target_size > self.max_header_size:
            yield (
                "max_target_size",
                "is larger than max_header_size: make it smaller, or the other one larger",
            )

    def idle(self) -> Iterable[tuple[str, str]]:
        """Options that do nothing with TLS, or without, each the key and why."""
        if self.tls:
            if self.https_redirect:
                yield (
                    "https_redirect",
                    "is for plain HTTP and this listener has tls: write it in the other one",
                )
            return
        if self.hsts is not None:
            yield "hsts", "means nothing in plain HTTP (RFC 6797): write it where tls is, or add tls"
        if self.client_certificate_header != "off":
            yield "client_certificate_header", "clients show certificates by TLS alone: add tls, or remove it"
