"""Who gets a request: exact orders and shares in the real process, beside a real nginx and a real HAProxy."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.support.differential_proxies import nginx
from tests.support.fleet import Server, servers
from tests.support.haproxy import haproxy
from tests.support.live import Live, free_port, until
from tests.support.peers import Stream, ask, request

NAMES: Final = "abcd"
#: Until a server that failed is tried again: nginx knows whole seconds only.
BACK: Final = 8.0

#: Ways to choose, in the words of each.
LINES: Final = {
    "": ("", "", "balance roundrobin"),
    "least": ("balance = least_connections", "least_conn;", "balance leastconn"),
    "sticky": ("sticky = cookie who", "sticky cookie who;", "cookie who insert indirect nocache"),
}


class Spot(NamedTuple):
    """A server's parameters, which each of the three has its own words for."""

    weight: int = 1
    down: bool = False
    backup: bool = False
    limit: int = 0

    def sidecar(self, server: Server) -> str:
        words = f"weight={self.weight} fail_timeout=200ms" + " down" * self.down + " backup" * self.backup
        limit = f" max_connections={self.limit}" if self.limit else ""
        return f"server.{server.name} = {server.address} {words}{limit}"

    def nginx(self, server: Server) -> str:
        words = f"weight={self.weight} fail_timeout=1s" + " down" * self.down + " backup" * self.backup
        return f"server {server.address} {words} max_conns={self.limit};"

    def haproxy(self, server: Server) -> str:
        words = f"weight {self.weight} check" + " disabled" * self.down + " backup" * self.backup
        return f"server {server.name} {server.address} cookie {server.name} {words} maxconn {self.limit}"


class Proxy(NamedTuple):
    """One of the three, in front of the servers."""

    name: str
    port: int

    def order(self, requests: int, target: str = "/x", **fields: str) -> str:
        """Which servers answer so many requests on one connection."""
        order = ""
        with Stream.connect(self.port) as client:
            for _ in range(requests):
                try:
                    answer = client.ask("GET", target, None, **fields)
                except EOFError:
                    # So HAProxy tells that a connection which it kept to a server has died: ask again.
                    assert self.name == "haproxy"
                    return f"{order}-"
                order += answer.body[:1].decode() if answer.status == 200 else "-"
        return order

    def who(self, cookie: str = "") -> tuple[str, str]:
        """Which server answers a client, and what cookie it gives it."""
        answer = ask(self.port, "/x", Cookie=cookie or "none=1")
        assert answer.status == 200
        return answer.body[:1].decode(), answer.fields.get("set-cookie", "").partition(";")[0]


Start = Callable[..., Proxy]


@pytest.fixture
def four(tmp_path: Path) -> Iterator[list[Server]]:
    with servers(tmp_path, *NAMES) as started:
        yield started


@pytest.fixture(params=["sidecar", "nginx", "haproxy"])
def start(request: pytest.FixtureRequest, live: Live, tmp_path: Path, four: list[Server]) -> Iterator[Start]:
    """Starts one of the three."""
    with contextlib.ExitStack() as stack:

        def begin(*spots: Spot, line: str = "") -> Proxy:
            pairs = list(zip(spots, four, strict=False))
            ours, nginx_line, haproxy_line = LINES[line]
            if request.param == "sidecar":
                lines = [spot.sidecar(one) for spot, one in pairs]
                live.start("\n".join(["[upstream app]", *lines, ours, "[route app]", "upstream = app"]))
                return Proxy("sidecar", live.port)
            port = free_port()
            if request.param == "nginx":
                http = f"upstream app {{ {nginx_line} {' '.join(spot.nginx(one) for spot, one in pairs)} }}"
                http += f" server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://app; }} }}"
                stack.enter_context(nginx(http, port, tmp_path))
            else:
                lines = [haproxy_line, "option allbackups", *(spot.haproxy(one) for spot, one in pairs)]
                stack.enter_context(haproxy("\n".join(f"    {line}" for line in lines), port, tmp_path))
            return Proxy(request.param, port)

        yield begin


@contextlib.contextmanager
def _holding(proxy: Proxy, four: list[Server], requests: int) -> Iterator[str]:
    """So many requests that are not answered yet, one after the other: at which servers they are."""

    def held() -> Counter[str]:
        return Counter({server.name: len(server.executed()) for server in four})

    order = ""
    with contextlib.ExitStack() as stack:
        clients = []
        for number in range(requests):
            before = held()

            def is_there(before: Counter[str] = before) -> bool:
                return held() != before

            clients.append(stack.enter_context(Stream.connect(proxy.port)))
            clients[-1].send(request("GET", f"/wait/{number}"))
            until(is_there, f"request {number} at a server")
            order += "".join(held() - before)
        yield order
        for server in four:
            server.tell("/release")
        assert [client.read_message().status for client in clients] == [200] * requests


# -- the same through all three -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "order"),
    [((5, 3, 1), "abacababa"), ((5, 1, 1), "aabacaa")],
)
def test_weights(start: Start, weights: tuple[int, ...], order: str) -> None:
    """The order of the vectors, round after round; HAProxy's is another one, with the same shares."""
    proxy = start(*map(Spot, weights))
    found = proxy.order(10 * len(order))
    assert Counter(found) == {name: 10 * weight for name, weight in zip(NAMES, weights, strict=False)}
    if proxy.name != "haproxy":
        assert found == order * 10


def test_down(start: Start) -> None:
    """A server that is marked down is asked nothing."""
    proxy = start(Spot(2), Spot(4, down=True), Spot())
    found = proxy.order(30)
    assert Counter(found) == {"a": 20, "c": 10}
    if proxy.name != "haproxy":
        assert found == "aca" * 10


def test_backup(start: Start, four: list[Server]) -> None:
    """Backups are asked when all others are gone, share the requests, and rest when one of those is back."""
    proxy = start(Spot(), Spot(), Spot(backup=True), Spot(backup=True))
    assert set(proxy.order(10)) == {"a", "b"}
    four[0].kill()
    until(lambda: set(proxy.order(4)) == {"b"}, "the last primary has all")
    four[1].kill()
    # HAProxy refuses until a check has found the primaries down.
    assert set(proxy.order(4)) <= ({"c", "d"} if proxy.name != "haproxy" else {"c", "d", "-"})
    until(lambda: proxy.order(6) in ("cdcdcd", "dcdcdc"), "the backups share all")
    four[0].start()
    until(lambda: set(proxy.order(4)) == {"a"}, "a primary is back", BACK)


def test_sticky(start: Start, four: list[Server]) -> None:
    """A client stays with its server while that lives, then with another; what it makes up is nothing."""
    proxy = start(Spot(), Spot(), Spot(), line="sticky")
    first, cookie = proxy.who()
    assert cookie.startswith("who=")
    assert {proxy.who(cookie)[0] for _ in range(9)} == {first}
    assert proxy.who(cookie)[1] == "" or proxy.name == "nginx"
    made_up = [proxy.who("who=made-up") for _ in range(3)]
    assert {name for name, _ in made_up} == set("abc")
    assert all(given.startswith("who=") for _, given in made_up)
    four[NAMES.index(first)].kill()
    other, another = proxy.who(cookie)
    assert other != first
    assert {proxy.who(another)[0] for _ in range(9)} == {other}


def test_least_connections(start: Start, four: list[Server]) -> None:
    """Requests that last count: each new one goes where the fewest are, by weight."""
    proxy = start(Spot(2), Spot(), Spot(), line="least")
    with _holding(proxy, four, 8) as order:
        assert Counter(order) == {"a": 4, "b": 2, "c": 2}
        if proxy.name != "haproxy":
            assert order == "abcacaba"


def test_limit(start: Start, four: list[Server]) -> None:
    """A server at its limit is passed over. When all are, requests wait; nginx has no queue."""
    proxy = start(Spot(limit=1), Spot(limit=3))
    with Stream.connect(proxy.port) as client:
        with _holding(proxy, four, 4) as order:
            assert Counter(order) == {"a": 1, "b": 3}
            client.send(request("GET", "/late"))
            if proxy.name == "nginx":
                assert client.read_message().status == 502
        if proxy.name != "nginx":
            assert client.read_message().status == 200
            assert sum(server.executed().count("late") for server in four) == 1


# -- ours alone ---------------------------------------------------------------------------------------------


def _app(all_servers: list[Server], *lines: str) -> str:
    addresses = [f"server.{server.name} = {server.address}" for server in all_servers]
    return "\n".join(["[upstream app]", *addresses, *lines, "[route app]", "upstream = app"])


def test_ip_hash(live: Live, four: list[Server]) -> None:
    """The places of the vectors, for the client that a trusted proxy names."""
    live.listen("trusted_proxies = 127.0.0.0/8")
    live.start(_app(four[:3], "balance = ip_hash"))
    proxy = Proxy("sidecar", live.port)
    clients = ("10.0.0.1", "10.0.0.254", "10.0.1.1", "192.168.1.10", "127.0.0.1", "203.0.113.7")
    assert [proxy.order(2, X_Forwarded_For=one) for one in clients] == ["aa", "aa", "bb", "bb", "cc", "aa"]


@pytest.mark.parametrize(
    ("line", "places"), [("hash {request_uri} consistent", "ccccac"), ("hash {request_uri}", "cacbcb")]
)
def test_hash(live: Live, tmp_path: Path, line: str, places: str) -> None:
    """The places of the vectors, which for the consistent one depend on the servers' addresses."""
    targets = ("/", "/api/users", "/static/app.js", "/a", "/b", "/c")
    with contextlib.ExitStack() as stack:
        three = [Server(name, tmp_path, port=28101 + at) for at, name in enumerate("abc")]
        for server in three:
            stack.callback(server.kill)
        live.start(_app(three, f"balance = {line}"))
        proxy = Proxy("sidecar", live.port)
        assert "".join(proxy.order(1, target) for target in targets) == places


def test_split(live: Live, four: list[Server]) -> None:
    """Of each ten requests nine are for the one, and one for the other upstream."""
    live.start(
        f"[upstream app]\nserver.a = {four[0].address}\nserver.b = {four[1].address}\n"
        f"[upstream canary]\nserver.c = {four[2].address}\n"
        "[route app]\nupstream = app 90%, canary 10%\n"
    )
    order = Proxy("sidecar", live.port).order(100)
    assert [order[at : at + 10].count("c") for at in range(0, 100, 10)] == [1] * 10
    assert (order.count("a"), order.count("b")) == (45, 45)


def test_cookie_survives_a_reload(live: Live, four: list[Server]) -> None:
    """Another server beside those there changes nothing for those who have one."""
    sidecar = live.start(_app(four[:3], "sticky = cookie who"))
    proxy = Proxy("sidecar", live.port)
    first, cookie = proxy.who()
    live.conf.write("20-more.ini", f"[upstream app]\nserver.d = {four[3].address}\n")
    sidecar.wait_event("reload_applied")
    assert {proxy.who(cookie) for _ in range(8)} == {(first, "")}


def test_client_that_leaves_counts_no_more(live: Live, four: list[Server]) -> None:
    """A request that its client gave up is no load of its server any more."""
    sidecar = live.start(_app(four[:2], "balance = least_connections"))
    proxy = Proxy("sidecar", live.port)
    with Stream.connect(live.port) as client:
        client.send(request("GET", "/wait/long"))
        until(lambda: four[0].executed() == ["long"], "the request at the first server")
        assert proxy.order(4) == "bbbb"
    sidecar.wait_exchanges(5)
    assert Counter(proxy.order(4)) == {"a": 2, "b": 2}
