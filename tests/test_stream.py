"""TCP connections through a whole application in this process: real sockets on both sides."""

from __future__ import annotations

import hashlib
import json
import os
import socket as plain
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.ssl import SSLContext

from sidecar.app import Application, prepare
from sidecar.config.merge import load
from sidecar.errors import Failure
from sidecar.observe.access import AccessLog
from sidecar.runtime import FakeClock
from sidecar.settings import SECTIONS
from sidecar.wire.proxy_protocol import parse, render
from tests.support.certificates import Authority, Files
from tests.support.live import free_port
from tests.support.streams import FakeServer, Peer, ServerSide, settle, wait_until, world

pytestmark = pytest.mark.usefixtures("no_leaks")


class Edge:
    """An application with TCP listeners; the access log is read back."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.records: list[dict[str, Any]] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self._closing: list[Any] = []
        log = AccessLog(self, "json", FakeClock())
        self.application = Application(world(self._event), lambda: log)

    def write(self, line: bytes) -> None:
        self.records.append(json.loads(line))

    def _event(self, name: str, **fields: Any) -> None:
        self.events.append((name, fields))

    def apply(self, text: str) -> None:
        (self._folder / "a.ini").write_text(text)
        self.application.apply(prepare(load(self._folder, SECTIONS, {})))

    def serve(
        self, *servers: FakeServer, listener: str = "", upstream: str = "", route: str = "", more: str = ""
    ) -> None:
        """A listener, a route and an upstream of `servers`, each with more options."""
        written = "".join(f"server.s{at} = {one.address}\n" for at, one in enumerate(servers))
        self.apply(
            f"[listener edge]\nbind = 127.0.0.1:0\nprotocol = tcp\n{listener}\n"
            f"[upstream u]\n{written}{upstream}\n[route r]\nlistener = edge\nupstream = u\n{route}\n{more}"
        )

    def server(self, *scripts: Callable[[ServerSide], None]) -> FakeServer:
        server = FakeServer(*scripts)
        self._closing.append(server)
        return server

    def connect(self, listener: str = "edge") -> Peer:
        address = self.application.addresses()[listener][0]
        sock = socket.create_connection((address.host, address.port))
        peer = Peer(sock)
        self._closing.append(peer)
        return peer

    def record(self, count: int = 1) -> dict[str, Any]:
        """The last of so many lines, once it is there."""
        wait_until(lambda: len(self.records) >= count)
        assert len(self.records) == count
        return self.records[-1]

    def close(self) -> None:
        for one in self._closing:
            one.close()
        self.application.drain()
        self.application.close()


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Edge]:
    edge = Edge(tmp_path)
    yield edge
    edge.close()


def echo(side: ServerSide) -> None:
    while data := side.read(1) and side.sock.recv(65536):
        side.send(data)


def answer(side: ServerSide) -> None:
    """Read to the end, then answer what came: both half-closes must be passed on."""
    data = side.read_all()
    side.send(b"%d:" % len(data) + data)


def hello(name: str | None) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


def refused() -> str:
    """An address on which nobody listens."""
    return f"127.0.0.1:{free_port()}"


# Bytes ------------------------------------------------------------------------------------------------------


def test_bytes_go_through_and_each_end_is_passed_on(edge: Edge):
    edge.serve(edge.server(answer))
    client = edge.connect()
    client.send_all(b"\0\xffbytes")
    assert client.read_all() == b"7:\0\xffbytes"
    record = edge.record()
    attempt = record["attempts"][0]
    assert record | {"upstream": "u", "duration_ms": 0, "attempts": []} == {
        "time": "2023-11-14T22:13:20.000Z",
        "client": "127.0.0.1",
        "protocol": "tcp",
        "route": "r",
        "listener": "edge",
        "upstream": "u",
        "received": 7,
        "sent": 9,
        "duration_ms": 0,
        "attempts": [],
    }
    assert record["upstream"] == attempt["server"]
    assert set(attempt) == {"server", "connect_ms", "total_ms"}


def test_a_server_may_be_the_first_to_speak(edge: Edge):
    """Nothing is waited for where no route asks for a name."""

    def greet(side: ServerSide) -> None:
        side.send(b"220 ready\r\n")
        assert side.read_until(b"\n") == b"QUIT\r\n"
        side.send(b"221 bye\r\n")
        side.close()

    edge.serve(edge.server(greet))
    client = edge.connect()
    assert client.read_until(b"\n") == b"220 ready\r\n"
    client.send(b"QUIT\r\n")
    assert client.read_all() == b"221 bye\r\n"
    client.close()
    assert "reason" not in edge.record()


def test_a_server_that_ends_first_still_hears_the_rest(edge: Edge):
    heard: list[bytes] = []

    def end_first(side: ServerSide) -> None:
        side.send(b"mine")
        side.finish()
        heard.append(side.read_all())

    edge.serve(edge.server(end_first))
    client = edge.connect()
    assert client.read_all() == b"mine"
    client.send_all(b"yours")
    edge.record()
    wait_until(lambda: heard)
    assert heard == [b"yours"]


def test_much_goes_both_ways_at_once(edge: Edge):
    size = 8 << 20
    block = os.urandom(1 << 16)
    digests = []

    def exchange(side: ServerSide) -> None:
        sender = gevent.spawn(send, side)
        digests.append(take(side))
        sender.get()
        side.finish()

    def send(peer: Peer) -> None:
        for _ in range(size // len(block)):
            peer.send(block)

    def take(peer: Peer) -> str:
        digest, left = hashlib.sha256(), size
        while left:
            data = peer.sock.recv(min(left, 1 << 16))
            assert data
            digest.update(data)
            left -= len(data)
        return digest.hexdigest()

    edge.serve(edge.server(exchange))
    client = edge.connect()
    sender = gevent.spawn(send, client)
    digests.append(take(client))
    sender.get()
    client.finish()
    assert client.read_all() == b""
    whole = hashlib.sha256(block * (size // len(block))).hexdigest()
    assert digests == [whole, whole]
    record = edge.record()
    assert (record["received"], record["sent"]) == (size, size)


# Ends -------------------------------------------------------------------------------------------------------


def active(edge: Edge) -> int:
    upstreams = edge.application._upstreams
    assert upstreams is not None
    return sum(one._group.active() for one in upstreams._all.values())


def test_a_reset_of_the_client_is_passed_on(edge: Edge):
    ended: list[bool] = []

    def wait(side: ServerSide) -> None:
        side.send(b"x")
        side.read_all()
        ended.append(side.was_reset)

    edge.serve(edge.server(wait))
    client = edge.connect()
    client.read(1)
    assert active(edge) == 1
    client.reset()
    assert edge.record()["reason"] == "client_gone"
    wait_until(lambda: ended)
    assert ended == [True]
    assert active(edge) == 0


def test_a_reset_of_the_server_is_passed_on(edge: Edge):
    def reset(side: ServerSide) -> None:
        side.read(1)
        side.reset()

    edge.serve(edge.server(reset))
    client = edge.connect()
    client.send(b"x")
    client.read_all()
    assert client.was_reset
    record = edge.record()
    assert (record["reason"], record["attempts"][0]["reason"]) == ("connection_terminated",) * 2
    assert active(edge) == 0


def test_silence_of_both_sides_has_a_bound(edge: Edge):
    edge.serve(edge.server(echo), route="tunnel_timeout = 50ms")
    client = edge.connect()
    assert client.read_all() == b""
    record = edge.record()
    assert (record["reason"], record["attempts"][0]["reason"]) == ("tunnel_idle",) * 2
    assert active(edge) == 0


def test_who_is_cut_off_is_logged_and_given_back(edge: Edge):
    edge.serve(edge.server(lambda side: side.send(b"x")))
    client = edge.connect()
    client.read(1)
    edge.application.drain()
    edge.application.retire()
    settle()
    assert edge.application.open_sessions == 1, "what is in progress goes on"
    edge.application.close()
    assert client.read_all() == b""
    assert client.was_reset
    assert edge.record()["reason"] == "cut_off"
    assert active(edge) == 0


def test_a_reload_leaves_connections_alone(edge: Edge):
    server = edge.server(answer)
    edge.serve(server)
    client = edge.connect()
    wait_until(lambda: server.connections)
    edge.apply("[listener web]\nbind = 127.0.0.1:0\n[route hello]\nrespond = 200 hello\n")
    client.send_all(b"still here")
    assert client.read_all() == b"10:still here"
    assert edge.record()["route"] == "r"


@pytest.mark.parametrize("first", ["http", "tcp"])
def test_an_address_may_change_its_protocol(edge: Edge, first: str):
    """Connections of the old protocol end as those of a listener that is gone; new ones speak the new one."""
    port = free_port()
    server = edge.server(answer, answer)
    written = {
        "http": f"[listener web]\nbind = 127.0.0.1:{port}\n[route hello]\nrespond = 200 hello\n",
        "tcp": f"[listener web]\nbind = 127.0.0.1:{port}\nprotocol = tcp\n[upstream u]\n"
        f"server.a = {server.address}\n[route r]\nlistener = web\nupstream = u\n",
    }

    def speak(client: Peer, protocol: str) -> None:
        if protocol == "tcp":
            client.send_all(b"tcp")
            assert client.read_all() == b"3:tcp"
        else:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.read_until(b"hello").startswith(b"HTTP/1.1 200")

    second = "tcp" if first == "http" else "http"
    edge.apply(written[first])
    old, idle = edge.connect("web"), edge.connect("web")
    wait_until(lambda: edge.application.open_sessions == 2)
    if first == "http":
        speak(old, "http")
        settle()
    edge.apply(written[second])
    new = edge.connect("web")
    speak(new, second)
    if first == "tcp":
        speak(old, "tcp")
        idle.finish()
    assert idle.read_all() in (b"", b"0:")
    assert first == "tcp" or old.read_all() == b""


# Servers ----------------------------------------------------------------------------------------------------


def test_a_server_that_refuses_costs_the_client_nothing(edge: Edge):
    edge.serve(edge.server(answer), upstream=f"server.a = {refused()} weight=5")
    client = edge.connect()
    client.send_all(b"x")
    assert client.read_all() == b"1:x"
    one, two = edge.record()["attempts"]
    assert one["reason"] == "connection_refused"
    assert "connect_ms" not in one
    assert "reason" not in two


def test_a_server_that_failed_is_left_alone(edge: Edge):
    """As many connections as it takes to see: the first finds out, the others do not try."""
    edge.serve(edge.server(*[answer] * 4), upstream=f"server.a = {refused()} weight=100")
    for count in range(1, 5):
        client = edge.connect()
        client.send_all(b"x")
        assert client.read_all() == b"1:x"
        edge.record(count)
    assert [len(record["attempts"]) for record in edge.records] == [2, 1, 1, 1]


def test_no_server_at_all(edge: Edge):
    edge.serve(upstream=f"server.a = {refused()}\nserver.b = {refused()}")
    client = edge.connect()
    assert client.read_all() == b""
    record = edge.record()
    assert (record["reason"], len(record["attempts"])) == ("connection_refused", 2)
    client = edge.connect()
    assert client.read_all() == b""
    record = edge.record(2)
    assert (record["reason"], record["attempts"]) == ("no_server", [])
    assert active(edge) == 0


def test_retries_may_be_off(edge: Edge):
    edge.serve(edge.server(answer), upstream=f"server.a = {refused()} weight=5\nretry_on = off")
    assert edge.connect().read_all() == b""
    assert len(edge.record()["attempts"]) == 1


def test_a_server_has_its_limit(edge: Edge):
    """Who finds no room waits, as long as the queue's time is, and comes in when somebody leaves."""
    server = edge.server(answer, answer)
    edge.serve(upstream=f"server.a = {server.address} max_connections=1\nqueue_timeout = 10s")
    one = edge.connect()
    wait_until(lambda: active(edge) == 1)
    two = edge.connect()
    wait_until(lambda: edge.application.open_sessions == 2)
    settle()
    assert len(server.connections) == 1
    one.send_all(b"1")
    assert one.read_all() == b"1:1"
    two.send_all(b"2")
    assert two.read_all() == b"1:2"


def test_a_full_queue_says_so_at_once(edge: Edge):
    server = edge.server(answer)
    edge.serve(upstream=f"server.a = {server.address} max_connections=1\nqueue = 0")
    edge.connect()
    wait_until(lambda: active(edge) == 1)
    assert edge.connect().read_all() == b""
    assert edge.record()["reason"] == "upstream_overloaded"


def test_shares(edge: Edge):
    one, two = edge.server(*[answer] * 3), edge.server(answer)
    edge.apply(
        "[listener edge]\nbind = 127.0.0.1:0\nprotocol = tcp\n"
        f"[upstream a]\nserver.a = {one.address}\n[upstream b]\nserver.a = {two.address}\n"
        "[route r]\nlistener = edge\nupstream = a 75%, b 25%\n"
    )
    for count in range(1, 5):
        client = edge.connect()
        client.finish()
        client.read_all()
        edge.record(count)
    assert (len(one.connections), len(two.connections)) == (3, 1)


def test_a_breaker_that_is_open_lets_nobody_through(edge: Edge):
    edge.serve(upstream=f"server.a = {refused()}\nbreaker_failures = 1\n")
    assert edge.connect().read_all() == b""
    assert edge.record()["reason"] == "connection_refused"
    assert edge.connect().read_all() == b""
    assert edge.record(2)["reason"] == "circuit_open"


# Routes -----------------------------------------------------------------------------------------------------


def test_the_client_decides(edge: Edge):
    server = edge.server(answer)
    edge.serve(server, route="client = 127.0.0.0/8")
    client = edge.connect()
    client.send_all(b"x")
    assert client.read_all() == b"1:x"
    edge.serve(server, route="client = 10.0.0.0/8")
    assert edge.connect().read_all() == b""
    record = edge.record(2)
    assert (record["reason"], record.get("route")) == ("no_route", None)


def test_a_route_without_a_log(edge: Edge):
    edge.serve(edge.server(answer), route="access_log = off")
    client = edge.connect()
    client.send_all(b"x")
    assert client.read_all() == b"1:x"
    wait_until(lambda: not edge.application.open_sessions)
    assert edge.records == []


SNI = "[route wild]\nlistener = edge\nsni = *.example.org\nupstream = wild\n"


def by_name(
    edge: Edge, *names: str, rest: bool = True, listener: str = "", script: Any = answer
) -> dict[str, FakeServer]:
    """Routes by name, each to a server of its own; those without a name to `rest`."""
    servers = {name: edge.server(*[script] * 4) for name in (*names, "rest")}
    text = f"[listener edge]\nbind = 127.0.0.1:0\nprotocol = tcp\n{listener}\n"
    for at, (name, server) in enumerate(servers.items()):
        sni = f"sni = {name}\n" if name != "rest" else ""
        if sni or rest:
            text += f"[upstream u{at}]\nserver.a = {server.address}\n"
            text += f"[route r{at}]\nlistener = edge\nupstream = u{at}\n{sni}"
    edge.apply(text)
    return servers


NAMES = ("app.example.org", "*.example.org", "*.sub.example.org")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("app.example.org", "app.example.org"),
        ("APP.Example.org", "app.example.org"),
        ("b.example.org", "*.example.org"),
        ("a.b.example.org", "*.example.org"),
        ("x.sub.example.org", "*.sub.example.org"),
        ("sub.example.org", "*.example.org"),
        ("example.org", "rest"),
        ("other.example", "rest"),
        (None, "rest"),
    ],
)
def test_the_name_decides_and_nothing_of_it_is_lost(edge: Edge, name: str | None, expected: str):
    servers = by_name(edge, *NAMES)
    data = hello(name)
    client = edge.connect()
    client.send_pieces(data[:20])
    client.send_all(data[20:] + b"early")
    whole = data + b"early"
    assert client.read_all() == b"%d:" % len(whole) + whole
    assert {key for key, server in servers.items() if server.connections} == {expected}
    assert edge.record().get("sni", "") == (name or "").lower()


def test_what_is_no_tls_has_no_name(edge: Edge):
    servers = by_name(edge, "app.example.org")
    client = edge.connect()
    client.send_all(b"GET / HTTP/1.1\r\n\r\n")
    assert client.read_all() == b"18:GET / HTTP/1.1\r\n\r\n"
    assert len(servers["rest"].connections) == 1


def test_a_name_that_no_route_has(edge: Edge):
    by_name(edge, "app.example.org", rest=False)
    client = edge.connect()
    client.send(hello("other.example"))
    client.read_all()
    record = edge.record()
    assert (record["reason"], record["sni"], record["attempts"]) == ("no_route", "other.example", [])


def test_a_hello_that_does_not_come(edge: Edge):
    by_name(edge, "app.example.org", listener="header_timeout = 50ms")
    client = edge.connect()
    client.send(hello("app.example.org")[:50])
    client.read_all()
    assert edge.record()["reason"] == "request_timeout"


def test_a_client_that_leaves_in_its_hello(edge: Edge):
    by_name(edge, "app.example.org")
    client = edge.connect()
    client.send_all(hello("app.example.org")[:50])
    client.read_all()
    assert edge.record()["reason"] == "client_gone"
    client = edge.connect()
    client.send(b"\x16")
    settle()
    client.reset()
    assert edge.record(2)["reason"] == "client_gone"


def test_who_has_said_nothing_is_ended_with_its_listener(edge: Edge):
    by_name(edge, "app.example.org")
    silent, speaking = edge.connect(), edge.connect()
    data = hello("app.example.org")
    speaking.send(data[:30])
    wait_until(lambda: edge.application.open_sessions == 2)
    settle()
    edge.application.drain()
    edge.application.retire()
    assert silent.read_all() == b""
    speaking.send_all(data[30:])
    assert speaking.read_all() == b"%d:" % len(data) + data


# PROXY protocol ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2])
def test_a_balancer_tells_who_the_client_is(edge: Edge, version: int):
    edge.serve(edge.server(answer), listener="proxy_protocol = require", route="client = 192.0.2.0/24")
    client = edge.connect()
    header = render(version, ("192.0.2.7", 4321), ("198.51.100.1", 443))
    client.send_pieces(header)
    client.send_all(b"x")
    assert client.read_all() == b"1:x"
    record = edge.record()
    assert (record["client"], record["received"]) == ("192.0.2.7", 1)


def test_its_header_comes_before_the_hello(edge: Edge):
    servers = by_name(edge, "app.example.org", listener="proxy_protocol = accept")
    data = hello("app.example.org")
    for count, header in enumerate((b"", render(2, ("2001:db8::1", 1), ("2001:db8::2", 2))), 1):
        client = edge.connect()
        client.send_all(header + data)
        assert client.read_all() == b"%d:" % len(data) + data
        assert edge.record(count)["client"] == ("2001:db8::1" if header else "127.0.0.1")
    assert len(servers["app.example.org"].connections) == 2


def test_a_connection_without_the_header_that_it_needs(edge: Edge):
    edge.serve(edge.server(), listener="proxy_protocol = require")
    client = edge.connect()
    client.send(b"hello")
    client.read_all()
    told = {"peer": "127.0.0.1", "listener": "edge", "rule": "proxy_missing"}
    assert ("proxy_header_refused", told) in edge.events
    assert edge.records == []


@pytest.mark.parametrize("version", [1, 2])
def test_the_server_hears_who_the_client_is_first(edge: Edge, version: int):
    server = edge.server(answer)
    edge.serve(server, upstream=f"send_proxy = v{version}")
    client = edge.connect()
    client.send_all(b"x")
    client.read_all()
    said = server.received[0]
    found = parse(said)
    assert found is not None
    address = edge.application.addresses()["edge"][0]
    assert found.source is not None
    assert found.source[0] == "127.0.0.1"
    assert found.destination == ("127.0.0.1", address.port)
    assert said[found.size :] == b"x"


def test_it_hears_it_even_when_it_speaks_first(edge: Edge):
    def greet(side: ServerSide) -> None:
        side.read_until(b"\r\n")
        side.send(b"220 ready\r\n")
        side.close()

    server = edge.server(greet)
    edge.serve(server, upstream="send_proxy = v1")
    assert edge.connect().read_all() == b"220 ready\r\n"
    assert server.received[0].startswith(b"PROXY TCP4 127.0.0.1 127.0.0.1 ")


def test_what_a_balancer_told_is_told_on(edge: Edge):
    server = edge.server(answer)
    edge.serve(server, listener="proxy_protocol = require", upstream="send_proxy = v1")
    client = edge.connect()
    client.send_all(render(2, ("2001:db8::1", 1111), ("192.0.2.1", 443)) + b"x")
    client.read_all()
    assert server.received == [b"PROXY TCP6 2001:db8::1 ::ffff:c000:201 1111 443\r\nx"]


def test_nothing_is_known_of_a_client_on_a_unix_socket(edge: Edge, tmp_path: Path):
    server = edge.server(answer)
    edge.apply(
        f"[listener edge]\nbind = unix:{tmp_path}/s\nprotocol = tcp\n[upstream u]\nserver.a = "
        f"{server.address}\nsend_proxy = v1\n[route r]\nlistener = edge\nupstream = u\n"
    )
    sock = socket.socket(plain.AF_UNIX)
    sock.connect(f"{tmp_path}/s")
    client = Peer(sock)
    client.send_all(b"x")
    client.read_all()
    client.close()
    assert server.received == [b"PROXY UNKNOWN\r\nx"]
    assert edge.record()["client"] == "unix:"


# Trouble ----------------------------------------------------------------------------------------------------


def test_an_error_of_the_proxy_itself_is_told_and_closes(edge: Edge, monkeypatch: pytest.MonkeyPatch):
    edge.serve(edge.server(answer))

    def fail(*_: object) -> None:
        raise RuntimeError("of all things")

    monkeypatch.setattr("sidecar.upstream.connect.Connect._serve", fail)
    assert edge.connect().read_all() == b""
    assert edge.record()["reason"] == "internal_error"
    name, fields = edge.events[-1]
    assert (name, fields["route"], str(fields["exc_info"])) == ("exchange_failed", "r", "of all things")


def test_a_server_that_leaves_while_it_is_told_the_client(edge: Edge, monkeypatch: pytest.MonkeyPatch):
    """Nothing was sent to it, so another one is asked."""
    from sidecar.errors import Broken
    from sidecar.net.channel import Channel

    server = edge.server(answer, answer)
    other = edge.server(answer)
    edge.serve(server, other, upstream="send_proxy = v1")
    failures = [True]

    class Breaking:
        def __init__(self, channel: Channel) -> None:
            self._channel = channel

        def send(self, data: bytes, timeout: float) -> None:
            raise Broken("sink", "reset")

        def close(self) -> None:
            self._channel.close()

    upstreams = edge.application._upstreams
    assert upstreams is not None
    pool = upstreams._all["u"]._group.servers[0].pool
    connect = pool.connect
    monkeypatch.setattr(
        pool, "connect", lambda timeout: Breaking(connect(timeout)) if failures.pop() else connect(timeout)
    )
    client = edge.connect()
    client.send_all(b"x")
    assert client.read_all().endswith(b"x")
    assert [attempt.get("reason", "") for attempt in edge.record()["attempts"]] == [
        "connection_terminated",
        "",
    ]
    assert active(edge) == 0


def test_descriptors_of_our_own_do_not_speak_against_a_server(edge: Edge, monkeypatch: pytest.MonkeyPatch):
    server = edge.server(answer)
    edge.serve(server)
    upstreams = edge.application._upstreams
    assert upstreams is not None
    member = upstreams._all["u"]._group.servers[0]

    def exhausted(timeout: float) -> None:
        raise Failure("descriptors_exhausted", repeatable=True)

    with monkeypatch.context() as patch:
        patch.setattr(member.pool, "connect", exhausted)
        assert edge.connect().read_all() == b""
    assert edge.record()["reason"] == "descriptors_exhausted"
    assert (member.state.fails, member.state.active) == (0, 0)


# TLS that ends here -----------------------------------------------------------------------------------------


def give_back(side: ServerSide) -> None:
    """Send what comes."""
    while data := side.sock.recv(65536):
        side.send(data)


class Inside:
    """A client of what is inside TLS."""

    def __init__(self, peer: Peer, authority: Authority, name: str, protocol: str = "") -> None:
        context = SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=authority.pem.decode())
        if protocol:
            context.set_alpn_protocols([protocol])
        self.sock = context.wrap_socket(peer.sock, server_hostname=name)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def secured(folder: Path, authority: Authority) -> tuple[str, str]:
    """(the option of a listener, the section of its certificate)."""
    files = Files(folder / "tls", authority.issue("*.example.org", "other.example"))
    return "tls = site\nheader_timeout = 1s\n", f"[certificate site]\n{files.options}"


@pytest.mark.parametrize("protocol", ["", "imap"])
def test_what_is_inside_tls_goes_through(edge: Edge, authority: Authority, tmp_path: Path, protocol: str):
    listener, certificate = secured(tmp_path, authority)
    edge.serve(edge.server(give_back), listener=listener, more=certificate)
    client = Inside(edge.connect(), authority, "a.example.org", protocol)
    data = os.urandom(300_000)
    writer = gevent.spawn(client.sock.sendall, data)
    received = b""
    while len(received) < len(data):
        received += client.sock.recv(65536)
    writer.get()
    assert received == data
    client.sock.close()
    record = edge.record()
    assert (record["received"], record["sent"]) == (len(data), len(data))


def test_the_name_in_the_handshake_decides(edge: Edge, authority: Authority, tmp_path: Path):
    listener, certificate = secured(tmp_path, authority)
    servers = by_name(edge, "app.example.org", listener=f"{listener}{certificate}", script=give_back)
    for name, expected in (("app.example.org", "app.example.org"), ("other.example", "rest")):
        client = Inside(edge.connect(), authority, name)
        client.sock.sendall(b"x")
        assert client.sock.recv(1) == b"x"
        assert len(servers[expected].connections) == 1
        client.sock.close()
    wait_until(lambda: len(edge.records) == 2)
    assert [record["sni"] for record in edge.records] == ["app.example.org", "other.example"]


def test_a_handshake_that_fails_is_told_and_reaches_nobody(edge: Edge, authority: Authority, tmp_path: Path):
    listener, certificate = secured(tmp_path, authority)
    server = edge.server(give_back)
    edge.serve(server, listener=listener, more=certificate)
    for data in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello"):
        client = edge.connect()
        client.send(data)
        client.read_all()
    wait_until(lambda: [name for name, _ in edge.events].count("tls_handshake_failed") == 2)
    assert (server.connections, edge.records) == ([], [])


def test_a_client_that_leaves_before_it_says_hello_is_no_failure(
    edge: Edge, authority: Authority, tmp_path: Path
):
    """A balancer that looks whether the port is open does so every few seconds."""
    listener, certificate = secured(tmp_path, authority)
    edge.serve(edge.server(give_back), listener=listener, more=certificate)
    edge.connect().close()
    wait_until(lambda: any(name == "tls_handshake_abandoned" for name, _ in edge.events))
    assert not any(name == "tls_handshake_failed" for name, _ in edge.events)
