"""What an upstream is told: its servers, how long they may take, and how many connections are kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from ..config.addresses import Address, with_parameters
from ..config.kinds import DURATION_OR_OFF, TIMEOUT, choice, integer, size
from ..config.schema import Section, family, option


@dataclass(frozen=True, slots=True)
class Server:
    """One server of an upstream: where it is, and its share of the requests beside the others."""

    address: Address
    weight: int = 1

    def __str__(self) -> str:
        """As it is written in the configuration."""
        return SERVER.show(self)


SERVER = with_parameters(Server, {"weight": integer(1, 1000)})


@dataclass(frozen=True, slots=True)
class UpstreamSettings(Section):
    """One `[upstream NAME]`. Times in seconds, sizes in bytes."""

    KIND: ClassVar[str] = "upstream"
    DOC: ClassVar[str] = "A group of servers that answer the same requests."

    server: dict[str, Server] = family(
        SERVER,
        "A server: host:port, [v6]:port or unix:/path, and its share as weight=1 … weight=1000 (else 1).",
    )
    balance: str = option("round_robin", choice("round_robin"), "How the server of a request is chosen.")
    connect_timeout: float = option(5.0, TIMEOUT, "Longest time until a connection to a server stands.")
    send_timeout: float = option(
        60.0, TIMEOUT, "Longest wait until a server takes the next bytes of a request."
    )
    read_timeout: float = option(60.0, TIMEOUT, "Longest wait for the next bytes of a response.")
    request_timeout: float = option(
        0.0,
        DURATION_OR_OFF,
        "Longest time for a whole exchange, from the choice of a server to the last byte.",
    )
    tunnel_timeout: float = option(
        3600.0, TIMEOUT, "How long an upgraded connection (WebSocket) may be silent in both directions."
    )
    keepalive: int = option(64, integer(0, 10_000), "Idle connections kept for each server; 0: none.")
    keepalive_timeout: float = option(60.0, TIMEOUT, "How long an idle connection to a server is kept.")
    max_header_size: int = option(
        64 << 10, size(1 << 10, 1 << 20), "Largest response head in bytes; a larger one gets 502."
    )

    def check(self) -> Iterable[tuple[str, str]]:
        """An upstream has a server, and each server once."""
        if not self.server:
            yield "server", "has no server: write at least one, server.a = 127.0.0.1:8000"
        seen: dict[Address, str] = {}
        for name, server in self.server.items():
            first = seen.setdefault(server.address, name)
            if first != name:
                yield (
                    f"server.{name}",
                    f"{server.address} is server.{first} already: give one of them more weight",
                )
