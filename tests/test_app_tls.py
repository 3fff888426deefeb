"""The assembly with TLS: real clients, what upstreams hear of it, and what reloads and renewals leave."""

from __future__ import annotations

import ssl as plain
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent.ssl
import pytest

from sidecar.app import Application, check, prepare
from sidecar.config.merge import load
from sidecar.errors import ConfigurationError
from sidecar.settings import SECTIONS
from tests.support.certificates import Authority, Files
from tests.support.streams import FakeServer, Peer, wait_until, world

pytestmark = pytest.mark.usefixtures("no_leaks")

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LISTENER = "[listener public]\nbind = 127.0.0.1:0\nhttp2 = off\n"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


class Client:
    """A TLS connection."""

    def __init__(self, port: int, authority: Authority, name: str, show: Files | None = None) -> None:
        context = gevent.ssl.SSLContext(plain.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=authority.pem.decode())
        if show is not None:
            context.load_cert_chain(show.certificate, show.key)
        sock = gevent.socket.create_connection(("127.0.0.1", port), 10)
        try:
            self.sock = context.wrap_socket(sock, server_hostname=name)
        except BaseException:
            sock.close()
            raise

    @property
    def serial(self) -> str:
        return str(self.sock.getpeercert()["serialNumber"])

    def ask(self, host: str, target: str = "/") -> bytes:
        self.sock.sendall(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        data = b""
        while b"\r\n\r\n" not in data:
            piece = self.sock.recv(65536)
            assert piece, f"ended after {data!r}"
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        while len(body) < length:
            body += self.sock.recv(65536)
        return head + b"\r\n\r\n" + body

    def close(self) -> None:
        self.sock.close()


class Served:
    """An application, its configuration and its clients."""

    def __init__(self, directory: Path, authority: Authority) -> None:
        self.directory = directory
        self.authority = authority
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.application = Application(world(self._event), lambda: None)
        self._closing: list[Any] = []

    def _event(self, name: str, **fields: Any) -> None:
        self.events.append((name, fields))

    def told(self, name: str) -> list[dict[str, Any]]:
        return [fields for told, fields in self.events if told == name]

    def files(self, name: str, *names: str) -> Files:
        return Files(self.directory / name, self.authority.issue(*names))

    def apply(self, text: str) -> None:
        (self.directory / "a.ini").write_text(text)
        configuration = load(self.directory, SECTIONS, {})
        self.application.apply(prepare(configuration, self.application.known_certificates()))

    @property
    def port(self) -> int:
        return self.application.addresses()["public"][0].port

    def client(self, name: str = "a.example", show: Files | None = None) -> Client:
        client = Client(self.port, self.authority, name, show)
        self._closing.append(client)
        return client

    def plain(self) -> Peer:
        peer = Peer(gevent.socket.create_connection(("127.0.0.1", self.port), 10))
        self._closing.append(peer)
        return peer

    def upstream(self, *scripts: Any) -> FakeServer:
        server = FakeServer(*scripts)
        self._closing.append(server)
        return server

    def end(self) -> None:
        for each in self._closing:
            each.close()
        self.application.drain()
        self.application.close()


@pytest.fixture
def served(tmp_path: Path, authority: Authority) -> Iterator[Served]:
    served = Served(tmp_path, authority)
    yield served
    served.end()


def section(name: str, files: Files, options: str = "") -> str:
    return f"[certificate {name}]\n{files.options}{options}"


def test_an_upstream_hears_of_https(served: Served) -> None:
    server = served.upstream([OK])
    text = f"{LISTENER}tls = site\n{section('site', served.files('site', 'a.example'))}"
    served.apply(f"{text}[upstream app]\nserver.a = {server.address}\n[route app]\nupstream = app\n")
    assert served.client().ask("a.example").endswith(b"ok")
    (side,) = server.connections
    assert b"\r\nX-Forwarded-Proto: https\r\n" in side.received
    assert b"\r\nX-Forwarded-Port: %d\r\n" % served.port in side.received


def test_each_name_gets_its_certificate(served: Served) -> None:
    first, second = served.files("first", "a.example"), served.files("second", "*.b.example")
    served.apply(f"{LISTENER}tls = one, two\n{section('one', first)}{section('two', second)}")
    assert served.client("a.example").serial != served.client("x.b.example").serial
    with pytest.raises(plain.SSLCertVerificationError):
        served.client("unknown.example")
    assert set(served.application.certificates()) == {"one", "two"}


def test_check_names_hosts_that_no_certificate_is_for(served: Served) -> None:
    pair = section("site", served.files("site", "a.example"))
    text = f"{LISTENER}tls = site\n{pair}[route a]\nhost = a.example, b.example\nrespond = 200\n"
    (served.directory / "a.ini").write_text(text)
    mistakes, warnings = check(load(served.directory, SECTIONS, {}))
    assert mistakes == []
    assert [line.partition(", ")[0].rpartition(" ")[2] for line in warnings if "[route a] host" in line] == [
        "b.example"
    ]


def test_a_renewal_is_noticed_and_no_connection_is_lost(served: Served) -> None:
    files = served.files("site", "a.example")
    served.apply(f"{LISTENER}tls = site\n{section('site', files)}[route a]\nrespond = 200 hello\n")
    before = served.client()
    issued = served.authority.issue("a.example")
    files.rename(issued)
    wait_until(lambda: served.told("certificate_renewed"))
    assert served.client().serial == issued.serial
    assert before.serial != issued.serial
    assert before.ask("a.example").endswith(b"hello")


def test_a_reload_keeps_connections_and_sessions(served: Served) -> None:
    files = served.files("site", "a.example")
    text = f"{LISTENER}tls = site\n{section('site', files)}"
    served.apply(f"{text}[route a]\nrespond = 200 one\n")
    client = served.client()
    assert client.ask("a.example").endswith(b"one")
    served.apply(f"{text}[route a]\nrespond = 200 two\n")
    assert client.ask("a.example").endswith(b"two")
    session = client.sock.session
    sock = gevent.socket.create_connection(("127.0.0.1", served.port), 10)
    with client.sock.context.wrap_socket(sock, server_hostname="a.example", session=session) as again:
        assert again.session_reused


def test_what_one_name_protects_is_not_had_through_another(served: Served) -> None:
    (served.directory / "ca.pem").write_bytes(served.authority.pem)
    strict = f"client_ca = {served.directory}/ca.pem\nverify_client = require\n"
    free, staff = served.files("free", "free.example"), served.files("staff", "staff.example")
    served.apply(
        f"{LISTENER}tls = free, staff\n{section('free', free)}{section('staff', staff, strict)}"
        "[route a]\nrespond = 200 secret\n"
    )
    client = served.client("free.example")
    answer = client.ask("staff.example")
    assert answer.startswith(b"HTTP/1.1 421 ")
    assert b"secret" not in answer
    assert client.ask("free.example").endswith(b"secret")
    allowed = served.client("staff.example", served.files("me", "me@example.org"))
    assert allowed.ask("staff.example").endswith(b"secret")


def test_plain_http_is_told_that_this_is_tls(served: Served) -> None:
    served.apply(f"{LISTENER}tls = site\n{section('site', served.files('site', 'a.example'))}")
    peer = served.plain()
    peer.send(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
    assert peer.read_all().startswith(b"HTTP/1.1 400 ")


def test_tls_comes_and_goes_with_a_reload(served: Served) -> None:
    files = served.files("site", "a.example")
    served.apply(f"{LISTENER}[route a]\nrespond = 200 hello\n")
    plain_client = served.plain()
    served.apply(f"{LISTENER}tls = site\n{section('site', files)}[route a]\nrespond = 200 hello\n")
    assert served.client().ask("a.example").endswith(b"hello")
    served.apply(f"{LISTENER}[route a]\nrespond = 200 hello\n")
    assert served.application.certificates() == {}
    plain_client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert plain_client.read_until(b"hello").startswith(b"HTTP/1.1 200 ")


def refused(served: Served, text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        served.apply(text)
    return [line.replace(f"{served.directory}/", "") for line in caught.value.mistakes]


def test_a_broken_certificate_is_a_mistake(served: Served) -> None:
    files = served.files("site", "a.example")
    files.key.unlink()
    text = f"{LISTENER}tls = site\n{section('site', files)}"
    line = f"a.ini:7: [certificate site] key: {files.key}: does not exist: name a file that does"
    assert refused(served, text) == [line.replace(f"{served.directory}/", "")]
    mistakes, _ = check(load(served.directory, SECTIONS, {}))
    assert mistakes == [f"{served.directory}/{line}"]


def test_a_name_of_no_certificate_is_a_mistake(served: Served) -> None:
    files = served.files("site", "a.example")
    text = f"{LISTENER}tls = sote\n{section('site', files)}"
    assert refused(served, text) == [
        "a.ini:4: [listener public] tls: there is no [certificate sote]: did you mean site?"
    ]
    assert refused(served, f"{LISTENER}tls = site\n") == [
        "a.ini:4: [listener public] tls: there is no [certificate site]: add [certificate site]"
    ]


def test_a_reload_is_not_stopped_by_files_that_are_just_replaced(served: Served) -> None:
    files = served.files("site", "a.example")
    text = f"{LISTENER}tls = site\n{section('site', files)}"
    served.apply(f"{text}[route a]\nrespond = 200 one\n")
    files.key.unlink()
    served.apply(f"{text}[route a]\nrespond = 200 two\n")
    assert served.client().ask("a.example").endswith(b"two")
    assert served.told("certificate_refused") == []


def test_without_certificates_nothing_of_tls_is_in_memory(served: Served) -> None:
    served.apply(LISTENER)
    served.application.look_at_certificates()
    assert served.application.certificates() == {}
    heavy = ["sidecar.certificates", "sidecar.net.tls", "sidecar.net.openssl", "sidecar.net.h2"]
    code = f"import sidecar.process, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.strip() == "[]"
