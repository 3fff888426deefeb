"""Our choices beside those of a real nginx with the same servers, some of which refuse every connection."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPConnection
from typing import NamedTuple

import pytest

from sidecar.message import Request
from sidecar.upstream.balance.base import Balance
from sidecar.upstream.balance.consistent_hash import ConsistentHash
from sidecar.upstream.balance.hash import Hash
from sidecar.upstream.balance.ip_hash import IpHash
from sidecar.upstream.balance.least_connections import LeastConnections
from sidecar.upstream.balance.round_robin import RoundRobin
from sidecar.upstream.server import Server
from tests.support.differential_proxies import TIMEOUT, nginx
from tests.support.live import free_port
from tests.upstream.balance.fleet import NOW, fleet, path_key, request

REQUESTS = 60


class Case(NamedTuple):
    """An upstream: a letter for each server (w works, r refuses, d is marked down), and its weights."""

    directive: str
    make: Callable[[Sequence[Server]], Balance]
    servers: str
    weights: tuple[int, ...]
    max_fails: int = 100  # more than there are requests: nobody is banned

    @property
    def name(self) -> str:
        directive = "_".join(self.directive.replace("$uri", "").split()) or "round_robin"
        return f"{directive}_{self.servers}_{'_'.join(map(str, self.weights))}_{self.max_fails}"


def _cases() -> Iterator[Case]:
    algorithms: list[tuple[str, Callable[[Sequence[Server]], Balance]]] = [
        ("", RoundRobin),
        ("least_conn", LeastConnections),
        ("ip_hash", IpHash),
        ("hash $uri", lambda servers: Hash(servers, path_key)),
        ("hash $uri consistent", lambda servers: ConsistentHash(servers, path_key)),
    ]
    for directive, make in algorithms:
        yield Case(directive, make, "wwww", (1, 1, 1, 1))
        yield Case(directive, make, "wwww", (5, 3, 1, 2))
        yield Case(directive, make, "wdww", (2, 4, 1, 1))
        yield Case(directive, make, "wrww", (2, 4, 1, 3))
        if directive.endswith("consistent"):
            # After 20 points nginx leaves the ring and goes round robin; a key of ours stays where it is.
            yield Case(directive, make, "rwrw", (1, 2, 1, 3), 3)
        else:
            yield Case(directive, make, "rwrw", (20, 2, 10, 1), 3)
            yield Case(directive, make, "rwrw", (20, 2, 10, 1))


CASES = {case.name: case for case in _cases()}


class Nginx(NamedTuple):
    """A running one with all cases, each below a path of its name."""

    port: int
    keys: dict[str, list[str]]  # case → the addresses of its servers


def _letters(case: Case, working: list[str], refusing: list[str]) -> list[str]:
    return [(refusing if letter == "r" else working)[number] for number, letter in enumerate(case.servers)]


def _upstream(case: Case, keys: list[str]) -> str:
    lines = [
        f"server {key} weight={weight} max_fails={case.max_fails} fail_timeout=1000s"
        + (" down;" if letter == "d" else ";")
        for key, weight, letter in zip(keys, case.weights, case.servers, strict=True)
    ]
    balance = case.directive and f"{case.directive};"
    return f"upstream {case.name} {{ {balance} {' '.join(lines)} }}"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """nginx in front of servers that answer with their number, which nginx itself plays."""
    port = free_port()
    folder = tmp_path_factory.mktemp("nginx")
    working = [f"unix:{folder}/1.sock", *(f"127.0.0.1:{free_port()}" for _ in range(3))]
    with contextlib.ExitStack() as stack:
        refusing = []
        for _ in range(4):
            # Bound, so that nobody else takes the port, but nobody listens.
            sock = stack.enter_context(socket.socket())
            sock.bind(("127.0.0.1", 0))
            refusing.append(f"127.0.0.1:{sock.getsockname()[1]}")
        keys = {name: _letters(case, working, refusing) for name, case in CASES.items()}
        http = [f'server {{ listen {key}; return 200 "{at}"; }}' for at, key in enumerate(working, 1)]
        http += [_upstream(case, keys[name]) for name, case in CASES.items()]
        locations = " ".join(
            f"location /{name}/ {{ rewrite ^/{name}(/.*)$ $1 break; proxy_pass http://{name}; }}"
            for name in CASES
        )
        trust = "set_real_ip_from 127.0.0.1; real_ip_header X-Client;"
        http.append(f"server {{ listen 127.0.0.1:{port}; {trust} {locations} }}")
        stack.enter_context(nginx("\n".join(http), port, folder))
        yield Nginx(port, keys)


def _asked() -> list[Request]:
    """Clients and paths of all kinds, the same in each run."""
    chance = random.Random(11)
    clients = [".".join(str(chance.randrange(1, 255)) for _ in range(4)) for _ in range(REQUESTS // 2)]
    clients += [":".join(f"{chance.randrange(1, 65536):x}" for _ in range(8)) for _ in range(REQUESTS // 2)]
    return [request(f"/{chance.randrange(10**6):x}", client) for client in clients]


def _ours(case: Case, keys: list[str], asked: list[Request]) -> list[str]:
    servers = fleet(*case.weights)
    for server, key, letter in zip(servers, keys, case.servers, strict=True):
        server.key = key
        server.max_fails = case.max_fails
        server.fail_timeout = 1000.0
        server.down = letter == "d"
    refusing = {server for server, letter in zip(servers, case.servers, strict=True) if letter == "r"}
    balance = case.make(servers)
    return [_try(balance, one, refusing) for one in asked]


def _try(balance: Balance, asked: Request, refusing: set[Server]) -> str:
    """The name of the server that answers, after those that refuse."""
    tried: list[Server] = []
    while (server := balance.pick(asked, NOW, tried)) in refusing:
        assert server is not None
        server.failed(NOW)
        tried.append(server)
    assert server is not None
    return server.name


@pytest.mark.parametrize("name", CASES)
def test_the_same_server_answers(real: Nginx, name: str) -> None:
    asked = _asked()
    theirs = []
    with contextlib.closing(HTTPConnection("127.0.0.1", real.port, timeout=TIMEOUT)) as connection:
        for one in asked:
            connection.request("GET", f"/{name}{one.path}", headers={"X-Client": one.client})
            response = connection.getresponse()
            theirs.append(response.read().decode())
            assert response.status == 200, theirs[-1]
    assert _ours(CASES[name], real.keys[name], asked) == theirs
