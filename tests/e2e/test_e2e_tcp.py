"""TCP listeners of a real process: bytes, names, servers that die, who the client is, and how it ends."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from sidecar.wire.proxy_protocol import Result, parse, render
from tests.support.live import Live, Sidecar, free_port, until

_PATIENCE: Final = 10.0
_MB: Final = 1 << 20

#: A server of its own process, so that it can be killed: says its name, then sends everything back.
_ECHO: Final = """
import socket, sys, threading

def serve(sock):
    sock.sendall(sys.argv[2].encode() + b"\\n")
    while data := sock.recv(65536):
        sock.sendall(data)
    sock.close()

with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    print("ready", flush=True)
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


class Server:
    """Accepts on a port and does `handle(socket)` with each connection, in a thread of its own."""

    def __init__(self, handle: Callable[[socket.socket], None]) -> None:
        self._handle = handle
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.accepted = 0
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                sock.settimeout(_PATIENCE)
                self.accepted += 1
                self._open.append(sock)
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError), sock:
            self._handle(sock)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(_PATIENCE)
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


Make = Callable[[Callable[[socket.socket], None]], Server]


@pytest.fixture
def serve() -> Iterator[Make]:
    servers: list[Server] = []

    def make(handle: Callable[[socket.socket], None]) -> Server:
        servers.append(Server(handle))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


def echo(sock: socket.socket) -> None:
    while data := sock.recv(65536):
        sock.sendall(data)


def answer(sock: socket.socket) -> None:
    """Answer what came once the client has ended its side."""
    data = read_all(sock)
    sock.sendall(b"%d:" % len(data) + data)


def read_all(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


def conf(*ports: int, upstream: str = "", route: str = "", listener: str = "") -> str:
    """A TCP listener on a new port that leads to servers on `ports`."""
    servers = "\n".join(f"server.s{at} = 127.0.0.1:{port}" for at, port in enumerate(ports))
    return (
        f"[listener edge]\nbind = 127.0.0.1:{free_port()}\nprotocol = tcp\n{listener}\n"
        f"[upstream u]\n{servers}\n{upstream}\n[route r]\nlistener = edge\nupstream = u\n{route}"
    )


def start(live: Live, text: str) -> tuple[Sidecar, int]:
    """A sidecar, and the port of its TCP listener."""
    sidecar = live.start(text)
    bound = [event for event in sidecar.events("listener_bound") if event["listener"] == "edge"]
    return sidecar, int(bound[0]["address"].rpartition(":")[2])


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE)


def exchange(port: int, data: bytes) -> bytes:
    """Send, end this side, and read to the end."""
    with connect(port) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        return read_all(sock)


# Bytes ------------------------------------------------------------------------------------------------------


def test_half_closes_are_passed_on(live: Live, serve: Make):
    sidecar, port = start(live, conf(serve(answer).port))
    assert exchange(port, b"all of it") == b"9:all of it"
    (line,) = sidecar.wait_exchanges(1)
    assert (line["protocol"], line["route"], line["received"], line["sent"]) == ("tcp", "r", 9, 11)
    assert "reason" not in line


def test_100_mb_each_way_arrive_whole_in_little_memory(live: Live, serve: Make):
    size = 100 * _MB
    block = os.urandom(_MB)
    whole = hashlib.sha256(block * 100).hexdigest()
    digests: dict[str, str] = {}

    def send(sock: socket.socket) -> None:
        for _ in range(100):
            sock.sendall(block)
        sock.shutdown(socket.SHUT_WR)

    def both(name: str, sock: socket.socket) -> None:
        sender = threading.Thread(target=send, args=(sock,), daemon=True)
        sender.start()
        digest, count = hashlib.sha256(), 0
        while data := sock.recv(_MB):
            digest.update(data)
            count += len(data)
        sender.join()
        assert count == size
        digests[name] = digest.hexdigest()

    sidecar, port = start(live, conf(serve(lambda sock: both("server", sock)).port))

    def transfer(count: int) -> None:
        digests.clear()
        with connect(port) as sock:
            both("client", sock)
        until(lambda: len(digests) == 2, "both have read all")
        assert digests == {"client": whole, "server": whole}
        line = sidecar.wait_exchanges(count)[-1]
        assert (line["received"], line["sent"]) == (size, size)

    # What is made late is made, and buffers that are kept are there.
    transfer(1)
    before = sidecar.rss()
    sidecar.forget_peak()
    transfer(2)
    assert sidecar.peak() - before < 2 * _MB


def test_a_server_that_speaks_first(live: Live, serve: Make):
    def greet(sock: socket.socket) -> None:
        sock.sendall(b"220 ready\r\n")
        assert sock.recv(100) == b"QUIT\r\n"
        sock.sendall(b"221 bye\r\n")

    _, port = start(live, conf(serve(greet).port))
    with connect(port) as sock:
        assert sock.recv(100) == b"220 ready\r\n"
        sock.sendall(b"QUIT\r\n")
        assert read_all(sock) == b"221 bye\r\n"


# Names ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """one.example.org and two.example.org, each with its own key, signed by itself."""
    assert shutil.which("openssl"), "openssl is missing: install it (Debian: apt-get install openssl)"
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("one", "two"):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
            + ["-days", "2", "-subj", f"/CN={name}.example.org"]
            + ["-addext", f"subjectAltName=DNS:{name}.example.org"]
            + ["-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.crt"],
            check=True,
            capture_output=True,
        )
    return folder


def tls(folder: Path, name: str) -> Callable[[socket.socket], None]:
    """A TLS server that says its name and what it was asked for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / f"{name}.crt", folder / f"{name}.key")
    asked: dict[ssl.SSLObject | ssl.SSLSocket, str] = {}

    def note(sock: ssl.SSLObject | ssl.SSLSocket, wanted: str | None, _: ssl.SSLContext) -> None:
        asked[sock] = wanted or "none"

    context.sni_callback = note  # type: ignore[assignment]

    def handle(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as secure:
            line = secure.recv(100)
            secure.sendall(f"{name} {asked[secure]} ".encode() + line)

    return handle


def names(one: Server, two: Server, plain: Server) -> str:
    return (
        f"[listener edge]\nbind = 127.0.0.1:{free_port()}\nprotocol = tcp\nheader_timeout = 2s\n"
        f"[upstream one]\nserver.a = 127.0.0.1:{one.port}\n"
        f"[upstream two]\nserver.a = 127.0.0.1:{two.port}\n"
        f"[upstream plain]\nserver.a = 127.0.0.1:{plain.port}\n"
        "[route one]\nlistener = edge\nsni = one.example.org\nupstream = one\n"
        "[route two]\nlistener = edge\nsni = *.example.org\nupstream = two\n"
        "[route plain]\nlistener = edge\nupstream = plain\n"
    )


def test_names_choose_among_tls_servers_which_keep_their_keys(live: Live, serve: Make, certificates: Path):
    one, two = serve(tls(certificates, "one")), serve(tls(certificates, "two"))
    sidecar, port = start(live, names(one, two, serve(answer)))
    for name in ("one", "two"):
        context = ssl.create_default_context(cafile=f"{certificates}/{name}.crt")
        # The handshake verifies that it is this server's own certificate.
        host = f"{name}.example.org"
        with connect(port) as sock, context.wrap_socket(sock, server_hostname=host) as secure:
            secure.sendall(b"hello\n")
            assert secure.recv(100) == f"{name} {host} hello\n".encode()
    assert [line["sni"] for line in sidecar.wait_exchanges(2)] == ["one.example.org", "two.example.org"]
    assert exchange(port, b"no TLS") == b"6:no TLS"


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_s_client(live: Live, serve: Make, certificates: Path, version: str):
    one, two = serve(tls(certificates, "one")), serve(tls(certificates, "two"))
    _, port = start(live, names(one, two, serve(answer)))
    for name in ("one", "two"):
        done = subprocess.run(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", f"{name}.example.org"]
            + ["-CAfile", f"{certificates}/{name}.crt", "-verify_return_error", "-quiet", version],
            input=b"hello\n",
            capture_output=True,
            timeout=_PATIENCE,
        )
        assert done.stdout == f"{name} {name}.example.org hello\n".encode(), done.stderr.decode()


def test_a_hello_that_never_ends_is_cut_off(live: Live, serve: Make):
    idle = serve(echo)
    sidecar, port = start(live, names(idle, idle, idle))
    with connect(port) as sock:
        sock.sendall(b"\x16\3\1\1\0\1\0\0")
        assert read_all(sock) == b""
    (line,) = sidecar.wait_exchanges(1)
    assert (line["reason"], line["attempts"]) == ("request_timeout", [])
    assert 1_900 < line["duration_ms"] < 4_000
    assert idle.accepted == 0


# Servers ----------------------------------------------------------------------------------------------------


class Echo:
    """A server process, to be killed."""

    def __init__(self, name: str) -> None:
        self.port = free_port()
        self._words = [sys.executable, "-c", _ECHO, str(self.port), name]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._words, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def pair() -> Iterator[tuple[Echo, Echo]]:
    one, two = Echo("one"), Echo("two")
    yield one, two
    for server in (one, two):
        if server.process.poll() is None:
            server.kill()


def who(port: int) -> str:
    """The name of the server that a new connection comes to; empty: none."""
    with connect(port) as sock:
        return sock.recv(100).decode().strip()


def test_a_server_that_is_killed_costs_no_new_client_anything(live: Live, pair: tuple[Echo, Echo]):
    one, two = pair
    sidecar, port = start(live, conf(one.port, two.port, upstream="server.s2 = 127.0.0.1:9 down"))
    assert [who(port) for _ in range(4)] == ["one", "two", "one", "two"]
    with connect(port) as sock:
        name = sock.recv(100).decode().strip()
        victim = one if name == "one" else two
        victim.kill()
        with contextlib.suppress(ConnectionResetError):
            assert read_all(sock) == b"", "its own connection ends with it"
    rest = {"one", "two"} - {name}
    assert {who(port) for _ in range(20)} == rest
    lines = sidecar.wait_exchanges(25)
    failed = [line for line in lines if len(line["attempts"]) > 1]
    # It is banned after its first failure (max_fails = 1), so that few connections meet it at all.
    assert 1 <= len(failed) <= 2
    assert {line["attempts"][0]["reason"] for line in failed} == {"connection_refused"}


def test_a_server_that_comes_back_is_used_again(live: Live, pair: tuple[Echo, Echo]):
    one, two = pair
    text = conf(
        upstream=f"server.a = 127.0.0.1:{one.port} fail_timeout=100ms\nserver.b = 127.0.0.1:{two.port} backup"
    )
    _, port = start(live, text)
    assert who(port) == "one"
    one.kill()
    assert who(port) == "two"
    one.start()
    until(lambda: who(port) == "one", "it is asked again")


def test_a_server_takes_no_more_than_its_limit(live: Live, serve: Make):
    server = serve(echo)
    text = conf(upstream=f"server.a = 127.0.0.1:{server.port} max_connections=2\nqueue_timeout = 100ms")
    sidecar, port = start(live, text)
    with connect(port) as one, connect(port) as two:
        for sock in (one, two):
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
        with connect(port) as three:
            assert three.recv(1) == b"", "nobody left in time"
        one.close()
        until(lambda: len(sidecar.exchanges()) == 2, "the first is over")
        with connect(port) as four:
            four.sendall(b"y")
            assert four.recv(1) == b"y"
        assert server.accepted == 3
    lines = sidecar.wait_exchanges(4)
    assert [line.get("reason") for line in lines].count("upstream_overloaded") == 1


def test_clients_of_one_network_stay_together(live: Live, pair: tuple[Echo, Echo]):
    _, port = start(live, conf(pair[0].port, pair[1].port, upstream="balance = ip_hash"))
    assert len({who(port) for _ in range(6)}) == 1


# Who the client is ------------------------------------------------------------------------------------------


class Heard:
    """What came first on each connection of a server."""

    def __init__(self, serve: Make, body: Callable[[socket.socket, bytes], None]) -> None:
        self.headers: list[Result] = []
        self._body = body
        self.server = serve(self._handle)

    def _handle(self, sock: socket.socket) -> None:
        data = b""
        while (found := parse(data)) is None:
            piece = sock.recv(4096)
            if not piece:
                return
            data += piece
        self.headers.append(found)
        self._body(sock, data[found.size :])


def send_back(sock: socket.socket, data: bytes) -> None:
    sock.sendall(data + read_all(sock))


def answer_http(sock: socket.socket, data: bytes) -> None:
    while data := data or sock.recv(4096):
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        data = b""


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_tcp_server_hears_who_the_client_is(live: Live, serve: Make, version: str):
    heard = Heard(serve, send_back)
    _, port = start(live, conf(heard.server.port, upstream=f"send_proxy = {version}"))
    with connect(port) as sock:
        source, destination = sock.getsockname(), sock.getpeername()
        sock.sendall(b"x")
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b"x"
    assert [(one.source, one.destination) for one in heard.headers] == [(source, destination)]


def test_a_tcp_server_hears_what_a_balancer_told(live: Live, serve: Make):
    heard = Heard(serve, send_back)
    text = conf(heard.server.port, upstream="send_proxy = v2", listener="proxy_protocol = require")
    sidecar, port = start(live, text)
    header = render(1, ("2001:db8::7", 4321), ("2001:db8::1", 443))
    assert exchange(port, header + b"x") == b"x"
    assert [(one.source, one.destination) for one in heard.headers] == [
        (("2001:db8::7", 4321), ("2001:db8::1", 443))
    ]
    assert sidecar.wait_exchanges(1)[0]["client"] == "2001:db8::7"


HTTP: Final = "[upstream u]\nserver.a = 127.0.0.1:{port}\nsend_proxy = {version}\n[route r]\nupstream = u\n"


def ask(sock: socket.socket, more: bytes = b"") -> None:
    sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n" + more + b"\r\n")
    data = b""
    while not data.endswith(b"ok"):
        piece = sock.recv(4096)
        assert piece, f"ended after {data!r}"
        data += piece


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_an_http_server_hears_each_client_on_a_connection_of_its_own(live: Live, serve: Make, version: str):
    heard = Heard(serve, answer_http)
    live.start(HTTP.format(port=heard.server.port, version=version))
    expected = []
    with connect(live.port) as one, connect(live.port) as two:
        for sock in (one, two, one, two):
            ask(sock)
            expected.append((sock.getsockname(), sock.getpeername()))
    assert [(found.source, found.destination) for found in heard.headers] == expected


def test_an_http_server_hears_the_client_behind_trusted_proxies(live: Live, serve: Make):
    heard = Heard(serve, answer_http)
    live.listen("trusted_proxies = 127.0.0.0/8")
    live.start(HTTP.format(port=heard.server.port, version="v2"))
    with connect(live.port) as sock:
        ask(sock, b"X-Forwarded-For: 192.0.2.9\r\n")
        ask(sock)
        source, destination = sock.getsockname(), sock.getpeername()
    assert [(found.source, found.destination) for found in heard.headers] == [
        (("192.0.2.9", 0), destination),
        (source, destination),
    ]


def test_no_connection_outlives_a_change_of_what_servers_hear(live: Live, serve: Make):
    """One that was opened for a client and its name, or without, is not used when it is to be otherwise."""
    heard = Heard(serve, answer_http)
    sidecar = live.start(HTTP.format(port=heard.server.port, version="v1"))
    with connect(live.port) as sock:
        ask(sock)
        for count, version in enumerate(("v2", "v1"), 1):
            live.conf.write("10-test.ini", HTTP.format(port=heard.server.port, version=version))
            sidecar.signal(signal.SIGHUP)
            sidecar.wait_event("reload_applied", count)
            ask(sock)
    assert len(heard.headers) == 3


# How it ends ------------------------------------------------------------------------------------------------


def test_connections_go_on_through_a_reload_and_a_drain(live: Live, serve: Make):
    text = conf(serve(echo).port)
    sidecar, port = start(live, text)
    with connect(port) as sock:
        sock.sendall(b"1")
        assert sock.recv(1) == b"1"
        live.conf.write("10-test.ini", "[route hello]\nrespond = 200 hello\n")
        sidecar.signal(signal.SIGHUP)
        sidecar.wait_event("reload_applied")
        sock.sendall(b"2")
        assert sock.recv(1) == b"2"
        sidecar.signal(signal.SIGTERM)
        sidecar.wait_event("draining")
        sock.sendall(b"3")
        assert sock.recv(1) == b"3"
        assert sidecar.process.poll() is None
    assert sidecar.wait_exit() == 0
    assert sidecar.wait_event("drained")[0]["cut_off"] == 0


def test_a_drain_has_an_end(live: Live, serve: Make):
    sidecar, port = start(live, conf(serve(echo).port) + "\n[sidecar]\ndrain_timeout = 200ms\n")
    with connect(port) as sock:
        sock.sendall(b"1")
        assert sock.recv(1) == b"1"
        sidecar.signal(signal.SIGTERM)
        with pytest.raises(ConnectionResetError):
            assert sock.recv(1) != b""
    assert sidecar.wait_exit() == 0
    (line,) = sidecar.exchanges()
    assert line["reason"] == "cut_off"
