"""What a listener is told: where it listens, whom it believes, and how patient and how generous it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Final

from ..config.addresses import BIND, Address
from ..config.kinds import CIDRS, TIMEOUT, Network, choice, integer, list_of, size
from ..config.schema import Section, option, required

#: What only matters to requests.
ONLY_HTTP: Final = (
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
        "Longest time for a request head, from its first byte to its last; for a PROXY header; and with sni "
        "for a ClientHello, from the beginning of the connection.",
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
        if self.max_target_size > self.max_header_size:
            yield (
                "max_target_size",
                "is larger than max_header_size: make it smaller, or the other one larger",
            )
