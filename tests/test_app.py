"""The assembly: what is served, what a reload changes and what it leaves alone, and how it ends."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar import places
from sidecar.app import Application, check, prepare
from sidecar.config.addresses import Address
from sidecar.config.merge import Configuration, load
from sidecar.errors import ConfigurationError
from sidecar.net.listener import Listener
from sidecar.observe.access import AccessLog
from sidecar.runtime import FakeClock
from sidecar.settings import SECTIONS
from tests.support.live import free_port
from tests.support.streams import FakeServer, Peer, ServerSide, settle, wait_until, world

pytestmark = pytest.mark.usefixtures("no_leaks")

PUBLIC = "[listener public]\nbind = 127.0.0.1:0\n"
HELLO = "[route hello]\nrespond = 200 hello\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Lines(list[bytes]):
    """Where the access log goes."""

    def write(self, line: bytes) -> None:
        self.append(line)


class Served:
    """An application, and the configuration in its directory."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "a.ini"
        self.log: AccessLog | None = None
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.application = Application(world(self._event), lambda: self.log)
        self._closing: list[Any] = []

    def _event(self, name: str, **fields: Any) -> None:
        self.events.append((name, fields))

    def told(self, *names: str) -> list[tuple[str, dict[str, Any]]]:
        return [event for event in self.events if event[0] in names]

    def load(self, text: str) -> Configuration:
        self.file.write_text(text)
        return load(self.file.parent, SECTIONS, {})

    def apply(self, text: str) -> None:
        self.application.apply(prepare(self.load(text)))

    def refused(self, text: str) -> list[str]:
        """The mistakes for which `text` is not served, without the directory."""
        with pytest.raises(ConfigurationError) as caught:
            self.apply(text)
        return [line.replace(f"{self.file.parent}/", "") for line in caught.value.mistakes]

    def address(self, listener: str = "public") -> Address:
        return self.application.addresses()[listener][0]

    def connect(self, listener: str = "public") -> Peer:
        return self.connect_to(self.address(listener))

    def connect_to(self, address: Address) -> Peer:
        sock = socket.socket(socket.AF_UNIX if address.is_unix else socket.AF_INET)
        try:
            sock.connect(address.path or (address.host, address.port))
        except BaseException:
            sock.close()
            raise
        peer = Peer(sock)
        self._closing.append(peer)
        return peer

    def upstream(self, *scripts: Any) -> FakeServer:
        server = FakeServer(*scripts)
        self._closing.append(server)
        return server

    def end(self) -> None:
        self.application.drain()
        self.application.close()
        for each in self._closing:
            each.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    served = Served(tmp_path)
    yield served
    served.end()


def ask(peer: Peer, target: str = "/", *fields: str) -> bytes:
    """The whole response to a GET."""
    lines = "".join(f"{line}\r\n" for line in (f"GET {target} HTTP/1.1", "Host: a", *fields))
    peer.send(f"{lines}\r\n".encode())
    return read_answer(peer)


def read_answer(peer: Peer) -> bytes:
    head = peer.read_until(b"\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
    return head + peer.read(int(length))


def is_open(peer: Peer) -> bool:
    """Whether the other side has not ended the connection yet."""
    settle()
    peer.sock.settimeout(0)
    try:
        return bool(peer.sock.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return True
    finally:
        peer.sock.settimeout(10)


def to(server: FakeServer, options: str = "") -> str:
    """A route to an upstream of one server."""
    return f"[upstream app]\nserver.a = {server.address}\n{options}[route app]\nupstream = app\n"


class Held:
    """A script: the answer comes when the test says so."""

    def __init__(self, answer: bytes = OK) -> None:
        self._answer = answer
        self.side: ServerSide | None = None

    def __call__(self, side: ServerSide) -> None:
        side.read_request()
        self.side = side

    def answer(self) -> None:
        assert self.side is not None
        self.side.send(self._answer)


def busy(served: Served, held: Held) -> Peer:
    """A client whose request is at the server."""
    peer = served.connect()
    peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    wait_until(lambda: held.side is not None)
    return peer


# -- serving


def test_what_is_configured_is_served(served: Served) -> None:
    server = served.upstream([OK])
    served.apply(PUBLIC + to(server) + "[route hello]\npath = /hello\nrespond = 200 hello\n")
    peer = served.connect()
    assert ask(peer, "/hello").endswith(b"\r\n\r\nhello")
    assert ask(peer, "/").endswith(b"\r\n\r\nok")
    assert served.told("listener_bound") == [
        ("listener_bound", {"listener": "public", "address": str(served.address())})
    ]


def test_a_request_without_a_route_is_answered(served: Served) -> None:
    served.apply(PUBLIC + "[route a]\npath = /a\nrespond = 200 a\n")
    assert ask(served.connect()).startswith(b"HTTP/1.1 404 ")


def test_routes_belong_to_their_listeners(served: Served) -> None:
    served.apply(
        PUBLIC
        + "[listener inside]\nbind = 127.0.0.1:0\n[route all]\nrespond = 200 all\n"
        + "[route own]\npath = /own\nlistener = inside\nrespond = 200 own\n"
    )
    assert ask(served.connect("public"), "/own").endswith(b"all")
    assert ask(served.connect("inside"), "/own").endswith(b"own")


def test_a_unix_socket_is_served(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "public.sock"
    served.apply(f"[listener public]\nbind = unix:{path}\n{HELLO}")
    assert ask(served.connect()).endswith(b"hello")
    served.application.drain()
    assert not path.exists()


def test_exchanges_are_logged_where_the_process_says(served: Served) -> None:
    lines = Lines()
    served.log = AccessLog(lines, "json", FakeClock())
    served.apply(PUBLIC + HELLO)
    ask(served.connect())
    wait_until(lambda: lines)
    assert b'"route":"hello"' in lines[0]


def test_failures_get_the_fields_of_their_route(served: Served) -> None:
    server = served.upstream([b"nonsense\r\n\r\n"])
    served.apply(PUBLIC + to(server) + "response_header.X-Frame-Options = DENY\n")
    answer = ask(served.connect())
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"\r\nX-Frame-Options: DENY\r\n" in answer


def test_routes_that_ask_for_the_same_share_the_turns_of_their_upstream(served: Served) -> None:
    servers = [served.upstream([OK, OK]) for _ in range(2)]
    served.apply(
        PUBLIC
        + f"[upstream app]\nserver.a = {servers[0].address}\nserver.b = {servers[1].address}\n"
        + "[route a]\npath = /a\nupstream = app\n"
        + "[route b]\npath = /b\nupstream = app\nread_timeout = 5s\n"
    )
    peer = served.connect()
    ask(peer, "/a")
    ask(peer, "/b")
    assert [len(server.connections) for server in servers] == [1, 1]


# -- reloading


def test_a_kept_connection_meets_the_new_routes(served: Served) -> None:
    served.apply(PUBLIC + HELLO)
    peer, address = served.connect(), served.address()
    assert ask(peer).endswith(b"hello")
    served.apply(PUBLIC + HELLO.replace("hello\n", "bye\n"))
    assert ask(peer).endswith(b"bye")
    assert served.address() == address
    assert len(served.told("listener_bound")) == 1


def test_a_request_that_is_on_its_way_ends_as_it_began(served: Served) -> None:
    held = Held()
    server = served.upstream(held)
    served.apply(PUBLIC + to(server))
    peer = busy(served, held)
    served.apply(PUBLIC + HELLO)
    held.answer()
    assert read_answer(peer).endswith(b"ok")
    assert ask(peer).endswith(b"hello")


@pytest.mark.parametrize("options", ["", "read_timeout = 7s\n", "connect_timeout = 1s\n"])
def test_connections_to_a_server_survive_a_reload(served: Served, options: str) -> None:
    server = served.upstream([OK, OK])
    served.apply(PUBLIC + to(server))
    peer = served.connect()
    ask(peer)
    served.apply(PUBLIC + to(server, options) + "[route b]\npath = /b\nrespond = 200 b\n")
    ask(peer)
    assert len(server.connections) == 1


@pytest.mark.parametrize("options", ["keepalive = 3\n", "keepalive_timeout = 7s\n"])
def test_other_settings_for_kept_connections_keep_them(served: Served, options: str) -> None:
    server = served.upstream([OK, OK], [OK])
    served.apply(PUBLIC + to(server))
    peer = served.connect()
    ask(peer)
    served.apply(PUBLIC + to(server, options))
    ask(peer)
    assert len(server.connections) == 1


def test_no_connections_are_kept_once_none_shall_be(served: Served) -> None:
    server = served.upstream([OK, OK], [OK])
    served.apply(PUBLIC + to(server))
    peer = served.connect()
    ask(peer)
    served.apply(PUBLIC + to(server, "keepalive = 0\n"))
    wait_until(lambda: not server.connections[0].is_open)
    ask(peer)
    assert len(server.connections) == 2


def test_connections_to_a_server_that_is_gone_are_closed_and_busy_ones_after_their_exchange(
    served: Served,
) -> None:
    held = Held()
    server = served.upstream(held, [OK])
    served.apply(PUBLIC + to(server))
    peer = busy(served, held)
    ask(served.connect())
    served.apply(PUBLIC + HELLO)
    wait_until(lambda: server.open_connections == 1)
    held.answer()
    assert read_answer(peer).endswith(b"ok")
    wait_until(lambda: server.open_connections == 0)


def test_servers_that_come_and_go_are_told_and_those_of_the_start_are_not(served: Served) -> None:
    names = ("upstream_added", "upstream_removed")
    served.apply("[upstream a]\nserver.x = 127.0.0.1:1001\nserver.y = 127.0.0.1:1002\n")
    assert served.told(*names) == []
    served.apply("[upstream a]\nserver.y = 127.0.0.1:1002 weight=2\nserver.z = 127.0.0.1:1003\n")
    served.apply("[upstream b]\nserver.y = 127.0.0.1:1002\n")
    assert served.told(*names) == [
        ("upstream_added", {"upstream": "a", "servers": ["127.0.0.1:1003"]}),
        ("upstream_removed", {"upstream": "a", "servers": ["127.0.0.1:1001"]}),
        ("upstream_removed", {"upstream": "a", "servers": ["127.0.0.1:1002", "127.0.0.1:1003"]}),
        ("upstream_added", {"upstream": "b", "servers": ["127.0.0.1:1002"]}),
    ]


# -- what is refused changes nothing


def test_a_mistake_changes_nothing(served: Served) -> None:
    server = served.upstream([OK, OK])
    served.apply(PUBLIC + to(server))
    peer = served.connect()
    ask(peer)
    before = list(served.events)
    assert served.refused(PUBLIC + "[route app]\nupstream = nobody\n") == [
        "a.ini:4: [route app] upstream: there is no [upstream nobody]: add [upstream nobody]"
    ]
    assert ask(peer).endswith(b"ok")
    assert len(server.connections) == 1
    assert served.events == before


def test_an_address_that_cannot_be_bound_changes_nothing(served: Served) -> None:
    server, taken = served.upstream([OK, OK]), served.upstream()
    served.apply(PUBLIC + to(server))
    peer, before, other = served.connect(), list(served.events), free_port()
    ask(peer)
    mistakes = served.refused(
        PUBLIC
        + f"[listener second]\nbind = 127.0.0.1:{other}\n"
        + f"[listener third]\nbind = {taken.address}\n[route hello]\nrespond = 200 hello\n"
    )
    assert mistakes == [
        f"a.ini:6: [listener third] bind: {taken.address}: "
        "is in use by another process: stop it, or choose another port"
    ]
    assert list(served.application.addresses()) == ["public"]
    with pytest.raises(ConnectionRefusedError):
        served.connect_to(Address("127.0.0.1", other))
    assert ask(peer).endswith(b"ok")
    assert len(server.connections) == 1
    assert served.events == before


def test_a_refused_change_leaves_the_connections_of_the_upstream_alone(served: Served) -> None:
    server, taken = served.upstream([OK, OK]), served.upstream()
    served.apply(PUBLIC + to(server))
    peer = served.connect()
    ask(peer)
    served.refused(f"[listener a]\nbind = {taken.address}\n" + to(server, "keepalive = 0\n"))
    ask(peer)
    assert len(server.connections) == 1


def test_all_addresses_that_cannot_be_bound_are_named(served: Served) -> None:
    taken = [served.upstream() for _ in range(2)]
    mistakes = served.refused(f"[listener a]\nbind = {taken[0].address}, {taken[1].address}\n")
    assert [str(server.address) in line for server, line in zip(taken, mistakes, strict=True)] == [True, True]


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.EADDRINUSE, "is in use by another process"),
        (errno.EACCES, "CAP_NET_BIND_SERVICE"),
        (errno.EADDRNOTAVAIL, "is not an address of this machine: write 0.0.0.0"),
        (errno.EAFNOSUPPORT, "is of a kind that this machine does not have"),
        (errno.EPROTONOSUPPORT, "cannot be bound: Protocol not supported"),
    ],
)
def test_a_failed_bind_comes_with_advice(
    served: Served, monkeypatch: pytest.MonkeyPatch, code: int, advice: str
) -> None:
    def fail(*_: Any) -> Listener:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(places, "Listener", fail)
    (line,) = served.refused(PUBLIC)
    assert line.startswith("a.ini:2: [listener public] bind: 127.0.0.1:0: ")
    assert advice in line


# -- listeners that come, move and go


def test_a_listener_moves_from_all_addresses_to_one(served: Served) -> None:
    port = free_port()
    served.apply(f"[listener public]\nbind = 0.0.0.0:{port}\n{HELLO}")
    served.apply(f"[listener public]\nbind = 127.0.0.1:{port}\n{HELLO}")
    assert served.application.addresses() == {"public": [Address("127.0.0.1", port)]}
    assert ask(served.connect()).endswith(b"hello")
    assert [fields["address"] for _, fields in served.told("listener_closed")] == [f"0.0.0.0:{port}"]
    served.apply(f"[listener public]\nbind = 0.0.0.0:{port}\n{HELLO}")
    assert ask(served.connect_to(Address("127.0.0.1", port))).endswith(b"hello")


def test_a_move_that_fails_elsewhere_is_taken_back(served: Served) -> None:
    port, taken = free_port(), served.upstream()
    served.apply(f"[listener public]\nbind = 0.0.0.0:{port}\n{HELLO}")
    local = Address("127.0.0.1", port)
    peer = served.connect_to(local)
    assert ask(peer).endswith(b"hello")
    assert served.refused(f"[listener public]\nbind = 127.0.0.1:{port}, {taken.address}\n{HELLO}")
    assert served.application.addresses() == {"public": [Address("0.0.0.0", port)]}
    assert ask(peer).endswith(b"hello")
    assert ask(served.connect_to(local)).endswith(b"hello")
    assert served.told("listener_closed", "listener_failed") == []


class Occupied:
    """Stands for the class Listener: binding fails while somebody else has the address."""

    def __init__(self) -> None:
        self.taken: set[str] = set()

    def __call__(self, address: Address, *args: Any) -> Listener:
        if address.host in self.taken:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        return Listener(address, *args)


def test_an_address_that_is_lost_on_the_way_back_is_told_and_bound_again_later(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "Listener", occupied := Occupied())
    port = free_port()
    everywhere = f"[listener public]\nbind = 0.0.0.0:{port}\n"
    served.apply(everywhere + HELLO)
    local = Address("127.0.0.1", port)
    peer = served.connect_to(local)
    assert ask(peer).endswith(b"hello")
    occupied.taken = {"0.0.0.0", "127.0.0.1"}
    served.refused(f"[listener public]\nbind = 127.0.0.1:{port}\n{HELLO}")
    assert served.told("listener_failed") == [
        (
            "listener_failed",
            {
                "listener": "public",
                "address": f"0.0.0.0:{port}",
                "error": "is in use by another process: stop it, or choose another port",
            },
        )
    ]
    assert ask(peer).endswith(b"hello")
    occupied.taken.clear()
    served.apply(everywhere + HELLO.replace("hello\n", "again\n"))
    assert ask(peer).endswith(b"again")
    assert ask(served.connect_to(local)).endswith(b"again")


def test_the_end_of_a_listener_ends_idle_connections_and_lets_busy_ones_finish(served: Served) -> None:
    held = Held()
    server = served.upstream(held)
    second = "[listener second]\nbind = 127.0.0.1:0\n"
    served.apply(PUBLIC + second + to(server) + "[route hello]\npath = /hello\nrespond = 200 hello\n")
    idle, working, other, address = (
        served.connect(),
        busy(served, held),
        served.connect("second"),
        served.address(),
    )
    ask(idle, "/hello")
    ask(other, "/hello")
    served.apply(second + HELLO)
    assert idle.read_all() == b""
    held.answer()
    answer = working.read_all()
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(b"ok")
    with pytest.raises(ConnectionRefusedError):
        served.connect_to(address)
    assert served.told("listener_closed") == [
        ("listener_closed", {"listener": "public", "address": str(address)})
    ]
    assert ask(other).endswith(b"hello")


def test_one_address_of_a_listener_goes_and_the_others_do_not_notice(served: Served) -> None:
    stays, goes = free_port(), free_port()
    served.apply(f"[listener public]\nbind = 127.0.0.1:{stays}, 127.0.0.1:{goes}\n{HELLO}")
    kept, left = (served.connect_to(address) for address in served.application.addresses()["public"])
    ask(kept)
    ask(left)
    served.apply(f"[listener public]\nbind = 127.0.0.1:{stays}\n{HELLO}")
    assert left.read_all() == b""
    assert b"Connection: close" not in ask(kept)
    assert is_open(kept)


def test_who_connected_as_the_listener_ended_is_served(served: Served) -> None:
    served.apply(PUBLIC + HELLO)
    peer = served.connect()
    peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    served.application.drain()
    assert served.application.open_sessions == 1
    answer = peer.read_all()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nConnection: close\r\n" in answer
    peer.close()
    wait_until(lambda: served.application.open_sessions == 0)


def test_who_connected_as_the_listener_ended_and_says_nothing_is_let_go(served: Served) -> None:
    served.apply(PUBLIC + HELLO)
    peer = served.connect()
    served.application.drain()
    assert is_open(peer)
    served.application.retire()
    assert peer.read_all() == b""
    wait_until(lambda: served.application.open_sessions == 0)


# -- the bound on connections


def test_the_bound_on_connections_moves_with_a_reload(served: Served) -> None:
    text = PUBLIC + HELLO + "[sidecar]\nmax_connections = "
    served.apply(f"{text}1\n")
    first, second = served.connect(), served.connect()
    ask(first)
    second.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    settle()
    assert served.application.open_sessions == 1
    served.apply(f"{text}3\n")
    assert read_answer(second).endswith(b"hello")
    assert served.told("accept_paused", "accept_resumed") == [
        ("accept_paused", {"reason": "max_connections is reached", "connections": 1}),
        ("accept_resumed", {"connections": 1}),
    ]


def test_a_drain_of_a_full_house_does_not_say_that_it_is_open_again(served: Served) -> None:
    served.apply(PUBLIC + HELLO + "[sidecar]\nmax_connections = 1\n")
    ask(served.connect())
    served.application.drain()
    served.application.retire()
    wait_until(lambda: served.application.open_sessions == 0)
    assert [name for name, _ in served.told("accept_paused", "accept_resumed")] == ["accept_paused"]


# -- ending


def test_a_drain_ends_idle_connections_and_waits_for_busy_ones(served: Served) -> None:
    held = Held()
    server = served.upstream(held)
    served.apply(PUBLIC + to(server) + "[route hello]\npath = /hello\nrespond = 200 hello\n")
    idle, working, address = served.connect(), busy(served, held), served.address()
    ask(idle, "/hello")
    assert served.application.open_sessions == 2
    served.application.drain()
    served.application.retire()
    assert idle.read_all() == b""
    with pytest.raises(ConnectionRefusedError):
        served.connect_to(address)
    wait_until(lambda: served.application.open_sessions == 1)
    held.answer()
    assert working.read_all().endswith(b"ok")
    working.close()
    wait_until(lambda: served.application.open_sessions == 0)
    assert served.application.addresses() == {}


def test_a_drain_counts_those_that_an_earlier_reload_left_over(served: Served) -> None:
    held = Held()
    server = served.upstream(held)
    served.apply(PUBLIC + to(server))
    working = busy(served, held)
    served.apply(HELLO)
    served.application.drain()
    assert served.application.open_sessions == 1
    held.answer()
    assert working.read_all().endswith(b"ok")


def test_closing_cuts_off_what_is_left(served: Served) -> None:
    held = Held()
    server = served.upstream(held)
    served.apply(PUBLIC + to(server))
    working = busy(served, held)
    served.application.drain()
    served.application.close()
    assert working.read_all() == b""
    assert served.application.open_sessions == 0
    wait_until(lambda: server.open_connections == 0)


# -- looking at a configuration


def test_an_address_has_one_listener(served: Served) -> None:
    mistakes, _ = check(
        served.load(
            "[listener a]\nbind = 127.0.0.1:8080, unix:/run/a.sock\n"
            "[listener b]\nbind = 127.0.0.1:8081, 127.0.0.1:8080\n[listener c]\nbind = unix:/run/a.sock\n"
        )
    )
    assert [line.replace(f"{served.file.parent}/", "") for line in mistakes] == [
        "a.ini:4: [listener b] bind: 127.0.0.1:8080 is bound by [listener a] already: keep one",
        "a.ini:6: [listener c] bind: unix:/run/a.sock is bound by [listener a] already: keep one",
    ]


def test_a_port_that_the_system_chooses_is_another_each_time(served: Served) -> None:
    text = PUBLIC.replace(":0\n", ":0, 127.0.0.1:0\n") + "[listener b]\nbind = 127.0.0.1:0\n" + HELLO
    assert check(served.load(text)) == ([], [])
    served.apply(text)
    found = served.application.addresses()
    assert (len(found["public"]), len(found["b"])) == (2, 1)
    assert len({*found["public"], *found["b"]}) == 3
    served.apply(text + "[route b]\npath = /b\nrespond = 200 b\n")
    assert served.application.addresses() == found


def test_a_configuration_without_a_listener_is_sound_but_odd(served: Served) -> None:
    mistakes, warnings = check(served.load(HELLO))
    assert mistakes == []
    assert warnings == ["no listener is configured: add [listener public] with bind = 0.0.0.0:8080"]
    served.apply(HELLO)
    assert served.application.addresses() == {}


def test_looking_at_a_configuration_touches_nothing(served: Served) -> None:
    configuration = served.load(PUBLIC + HELLO)
    prepared = prepare(configuration)
    assert prepared.fingerprint == configuration.fingerprint
    assert list(prepared.routers) == ["public"]
    assert served.events == []
