"""Servers and requests for the tests of balancing; the ways in which a server cannot be asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from sidecar.message import Request
from sidecar.upstream.balance.base import Balance
from sidecar.upstream.server import Server, State
from sidecar.wire.head import Limits, RequestHead

NOW: Final = 1_000.0
NOBODY: Final[tuple[Server, ...]] = ()


def fleet(*weights: int) -> list[Server]:
    """Servers "1", "2", … with these weights; hashing places them as 127.0.0.1:28101 and so on."""
    servers = []
    for number, weight in enumerate(weights, 1):
        server = Server(str(number), cast(Any, None), State(), weight)
        server.key = f"127.0.0.1:{28100 + number}"
        servers.append(server)
    return servers


def request(target: str = "/", client: str = "192.0.2.7") -> Request:
    """A request for this target by this client."""
    head = RequestHead(Limits())
    assert head.feed(f"GET {target} HTTP/1.1\r\nHost: example.com\r\n\r\n".encode())
    return Request(head, target, client, "http", "public")


def path_key(request: Request) -> bytes:
    """The path as the key of a hash."""
    return str(request.path).encode()


ANY: Final = request()


def names(balance: Balance, count: int, asked: Request = ANY) -> str:
    """The names of so many servers that are chosen one after the other, with spaces between."""
    return " ".join(name(balance.pick(asked, NOW, NOBODY)) for _ in range(count))


def name(server: Server | None) -> str:
    """Its name; - for none."""
    return "-" if server is None else server.name


def _turn_off(server: Server) -> None:
    server.down = True


def _fail_check(server: Server) -> None:
    server.state.healthy = False


def _eject(server: Server) -> None:
    server.state.ejected_until = NOW + 1.0


def _ban(server: Server) -> None:
    server.state.fails = server.max_fails
    server.state.checked = NOW


def _fill(server: Server) -> None:
    server.limit = 1
    server.state.active = 1


#: What makes a server one that cannot be asked now.
REASONS: Final[Sequence[Callable[[Server], None]]] = (_turn_off, _fail_check, _eject, _ban, _fill)
turn_off = _turn_off
