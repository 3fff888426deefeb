"""Which HTTP is spoken with servers, and whether over TLS and with whom: options of an upstream."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, Protocol

from ..config.addresses import Address
from ..config.kinds import ON_OFF, TEXT, choice
from ..config.schema import Kind, option, quoted

_NAME: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*")
_LONGEST_NAME: Final = 253  # RFC 1035 section 2.3.4, without the lengths of the labels


def _parse_server_name(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        pass
    if not _NAME.fullmatch(text) or len(text) > _LONGEST_NAME:
        raise ValueError(
            f"{quoted(text)} is no name that a certificate is for: write app.example or an IP address alone"
        )
    return text.lower()


#: A host name or an IP address, without a port.
SERVER_NAME: Final[Kind[str]] = Kind("host name | IP address", _parse_server_name)


class Addressed(Protocol):
    """A server of an upstream."""

    @property
    def address(self) -> Address:
        """As it is written."""


@dataclass(frozen=True)
class TrustOptions:
    """Options of an upstream."""

    protocol: str = option(
        "http",
        choice("http", "https", "h2c", "h2"),
        "What is spoken with servers: HTTP/1.1 (http), the same over TLS (https), HTTP/2 (h2c) or that over "
        "TLS (h2). Requests share connections of HTTP/2, which gRPC needs. TCP routes pass bytes on as they "
        "are.",
    )
    tls_verify: bool = option(
        True,
        ON_OFF,
        "Whether a server's certificate must be good, and for its name; off leaves the way to servers open "
        "to whoever stands on it.",
    )
    tls_ca: str = option(
        "", TEXT, "File (PEM) with the authorities that servers are believed by; empty: those of the system."
    )
    tls_server_name: str = option(
        "",
        SERVER_NAME,
        "The name that servers are asked for (SNI) and that their certificates must be for; empty: the host "
        "of each server as it is written, of srv: the domain behind the labels with underscores.",
    )
    tls_certificate: str = option(
        "",
        TEXT,
        "File (PEM) with the certificate, and its chain, that is shown to servers which ask for one.",
    )
    tls_key: str = option("", TEXT, "File (PEM) with the private key of tls_certificate.")

    @property
    def is_secure(self) -> bool:
        """Whether servers are spoken to over TLS."""
        return self.protocol in ("https", "h2")

    @property
    def is_multiplexed(self) -> bool:
        """Whether servers are spoken to in HTTP/2."""
        return self.protocol in ("h2c", "h2")

    @property
    def trust_key(self) -> tuple[object, ...]:
        """What gives connections their meaning; equal ones are as good as each other."""
        return (
            self.protocol,
            self.tls_verify,
            self.tls_ca,
            self.tls_server_name,
            self.tls_certificate,
            self.tls_key,
        )

    def server_name(self, address: Address) -> str:
        """The name that the certificate of a server must be for; empty: none is known."""
        if self.tls_server_name:
            return self.tls_server_name
        if address.service:
            labels = address.service.rstrip(".").split(".")
            return ".".join(label for label in labels if not label.startswith("_"))
        return address.host.rstrip(".")

    def trust_mistakes(self, servers: Mapping[str, Addressed]) -> Iterator[tuple[str, str]]:
        """Combinations that cannot work, each the key to blame and what is wrong with it."""
        if not self.is_secure:
            return
        if self.tls_certificate and not self.tls_key:
            yield "tls_certificate", "has no key: add tls_key = FILE"
        if self.tls_key and not self.tls_certificate:
            yield "tls_key", "has no certificate: add tls_certificate = FILE"
        for name, server in servers.items():
            if self.tls_verify and not self.server_name(server.address):
                text = "has no name to verify a certificate for: write tls_server_name = NAME"
                yield f"server.{name}", f"{server.address} {text}"

    def trust_idle(self) -> Iterator[tuple[str, str]]:
        """Options that do nothing beside the others, each the key and why; `[defaults upstream]` may."""
        if not self.is_secure:
            for key in ("tls_verify", "tls_ca", "tls_server_name", "tls_certificate", "tls_key"):
                if getattr(self, key) != getattr(TrustOptions, key):
                    advice = "write protocol = h2" if self.is_multiplexed else "write protocol = https or h2"
                    yield key, f"does nothing with protocol = {self.protocol}: {advice}, or remove this"
        elif not self.tls_verify and self.tls_ca:
            yield "tls_ca", "verifies nothing with tls_verify = off: remove one of them"
