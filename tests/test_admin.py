"""Where the process is asked about itself: paths, methods and forms of the answer, and where it is bound."""

from __future__ import annotations

import json
import os
import socket as plain
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.admin import answers, place, serving
from sidecar.app import Application, check, prepare
from sidecar.config.addresses import Address
from sidecar.config.merge import load
from sidecar.errors import ConfigurationError, Failure
from sidecar.message import Response
from sidecar.net.inherit import Inherited
from sidecar.readiness import Finding
from sidecar.settings import SECTIONS
from tests.support.live import free_port
from tests.support.streams import Peer, settle, wait_until, world
from tests.support.upstreams import request_of

pytestmark = pytest.mark.usefixtures("no_leaks")

WELL = Finding("process")
DEGRADED = Finding("names", "degraded", "names not resolved yet: a.example")
FAILED = Finding("process", "failed", "draining")
PAGE = b"sidecar_ready 1\n"


def ask(target: str, *findings: Finding, method: str = "GET", fields: str = "") -> Response:
    request = request_of(f"{method} {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n".encode())
    request.path = target.partition("?")[0]
    return answers(lambda: findings, lambda: PAGE)(request)


def told(response: Response) -> tuple[int, Any]:
    return response.head.status, response.body


# -- answers


def test_a_process_that_answers_lives() -> None:
    """Also when it is not ready."""
    assert told(ask("/livez", FAILED)) == (200, b"ok")
    assert told(ask("/livez?verbose")) == (200, b"[+]process ok\nlivez check passed\n")


def test_readiness_is_a_status_and_one_word_when_all_is_well() -> None:
    response = ask("/readyz", WELL)
    assert told(response) == (200, b"ok")
    assert dict(response.head.fields()) == {
        b"Content-Type": b"text/plain; charset=utf-8",
        b"Cache-Control": b"no-store",
        b"X-Content-Type-Options": b"nosniff",
        b"Content-Length": b"2",
    }


@pytest.mark.parametrize("query", ["verbose", "verbose=1", "a=b&verbose", "verbose&x"])
def test_who_asks_for_it_gets_a_line_for_each_check(query: str) -> None:
    assert told(ask(f"/readyz?{query}", WELL)) == (200, b"[+]process ok\nreadyz check passed\n")


@pytest.mark.parametrize("query", ["", "verbosely", "x=verbose"])
def test_another_query_says_nothing(query: str) -> None:
    assert told(ask(f"/readyz?{query}", WELL)) == (200, b"ok")


def test_what_is_wrong_is_said_unasked() -> None:
    line = b"[!]names not resolved yet: a.example\n"
    assert told(ask("/readyz", WELL, DEGRADED)) == (200, b"[+]process ok\n" + line + b"readyz check passed\n")
    assert told(ask("/readyz", FAILED, DEGRADED)) == (503, b"[-]draining\n" + line + b"readyz check failed\n")


@pytest.mark.parametrize(
    ("accept", "is_json"),
    [
        ("application/json", True),
        ("text/html, Application/JSON;q=0.5", True),
        ("application/json ; q=0.0", False),
        ("*/*", False),
        ("application/jsonp", False),
        ("", False),
        (";,;", False),
    ],
)
def test_programs_get_json(accept: str, is_json: bool) -> None:
    response = ask("/readyz", FAILED, fields=f"Accept: {accept}\r\n")
    assert response.head.status == 503
    is_told = response.head.get(b"content-type") == b"application/json"
    assert is_told is is_json
    if is_json:
        assert json.loads(response.body) == {
            "status": "failed",
            "checks": [{"check": "process", "status": "failed", "detail": "draining"}],
        }


def test_head_has_the_length_and_no_body() -> None:
    response = ask("/readyz", WELL, method="HEAD")
    assert told(response) == (200, None)
    assert response.head.get(b"content-length") == b"2"


@pytest.mark.parametrize("method", ["POST", "OPTIONS", "DELETE", "get"])
@pytest.mark.parametrize("path", ["/readyz", "/metrics"])
def test_other_methods_are_refused(path: str, method: str) -> None:
    response = ask(path, WELL, method=method)
    assert response.head.status == 405
    assert response.head.get(b"allow") == b"GET, HEAD"
    assert response.head.get(b"content-length") == str(len(response.body)).encode()


def test_prometheus_is_told_which_format_it_gets() -> None:
    response = ask("/metrics", FAILED)
    assert told(response) == (200, PAGE)
    assert response.head.get(b"content-type") == b"text/plain; version=0.0.4; charset=utf-8"
    assert told(ask("/metrics", WELL, method="HEAD")) == (200, None)


@pytest.mark.parametrize("path", ["/", "/livez/", "/Livez", "/metrics/"])
def test_there_is_nothing_else(path: str) -> None:
    with pytest.raises(Failure) as caught:
        ask(path)
    assert (caught.value.reason, caught.value.status) == ("no_route", 404)


def test_probes_have_short_patience_and_no_log() -> None:
    address = Address("127.0.0.1", 9901)
    made = serving(address, list, bytes, lambda *_, **__: None)
    assert (made.name, made.log, made.tls, made.scheme) == ("admin", None, None, "http")
    assert max(made.header_timeout, made.body_timeout, made.write_timeout) <= 5.0
    assert place(address).is_admin
    assert place(address).key == "127.0.0.1:9901 admin"


# -- where it is bound


class Served:
    """An application that can be asked about itself."""

    def __init__(self, directory: Path, inherited: Inherited | None = None) -> None:
        self._directory = directory
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.application = Application(world(self._event), lambda: None, inherited)

    def _event(self, name: str, **fields: Any) -> None:
        self.events.append((name, fields))

    def apply(self, sidecar: str, bind: str = "127.0.0.1:0") -> None:
        text = f"[sidecar]\n{sidecar}\n[listener public]\nbind = {bind}\n[route hello]\nrespond = 200 hello\n"
        (self._directory / "a.ini").write_text(text)
        self.application.apply(prepare(load(self._directory, SECTIONS, {})))

    @property
    def address(self) -> Any:
        """Where it is asked: a port or a path."""
        bound = [fields for name, fields in self.events if name == "listener_bound"]
        text = next(one["address"] for one in reversed(bound) if one["listener"] == "admin")
        return text.removeprefix("unix:") if text.startswith("unix:") else int(text.rpartition(":")[2])

    @property
    def public(self) -> int:
        return self.application.addresses()["public"][0].port

    def end(self) -> None:
        self.application.drain()
        self.application.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path)
    yield made
    made.end()


class Client(Peer):
    """A connection to a port of 127.0.0.1 or to a socket file."""

    def __init__(self, where: int | str) -> None:
        sock = plain.socket(plain.AF_INET if isinstance(where, int) else plain.AF_UNIX)
        try:
            sock.connect(("127.0.0.1", where) if isinstance(where, int) else where)
        except OSError:
            sock.close()
            raise
        super().__init__(sock)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, target: str) -> tuple[int, bytes]:
        """The status of the answer, and its body."""
        self.send(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        head = self.read_until(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        return int(head.split()[1]), self.read(length)


def ready(where: int | str) -> int:
    with Client(where) as client:
        return client.get("/readyz")[0]


def test_off_means_that_nothing_is_bound(served: Served) -> None:
    served.apply("admin = off")
    assert [fields["listener"] for name, fields in served.events if name == "listener_bound"] == ["public"]


def test_a_reload_moves_it_and_switches_it_on_and_off(served: Served, tmp_path: Path) -> None:
    served.apply("")
    served.apply("admin = 127.0.0.1:0")
    port = served.address
    assert ready(port) == 200
    served.apply(f"admin = unix:{tmp_path}/admin.sock")
    assert ready(f"{tmp_path}/admin.sock") == 200
    with pytest.raises(ConnectionRefusedError):
        Client(port)
    served.apply("admin = off")
    assert not os.path.exists(f"{tmp_path}/admin.sock")


@pytest.mark.parametrize("kind", ["port", "path"])
def test_an_address_may_go_from_a_listener_to_the_process_and_back(
    served: Served, tmp_path: Path, kind: str
) -> None:
    address = f"127.0.0.1:{free_port()}" if kind == "port" else f"unix:{tmp_path}/a.sock"
    where: Any = int(address.rpartition(":")[2]) if kind == "port" else f"{tmp_path}/a.sock"
    served.apply("", address)
    assert ready(where) == 200  # every path is
    served.apply(f"admin = {address}")
    with Client(where) as stream:
        assert stream.get("/livez") == (200, b"ok")
        assert stream.get("/other")[0] == 404
    served.apply("", address)
    with Client(where) as stream:
        assert stream.get("/livez") == (200, b"hello")


def test_an_address_that_cannot_be_bound_is_a_mistake_at_its_option(served: Served, tmp_path: Path) -> None:
    served.apply("")
    with pytest.raises(ConfigurationError) as caught:
        served.apply("admin = unix:/nowhere/at/all.sock")
    (mistake,) = caught.value.mistakes
    assert mistake.startswith(
        f"{tmp_path}/a.ini:2: [sidecar] admin: unix:/nowhere/at/all.sock: is in a direct"
    )


def test_a_process_without_room_for_clients_is_still_asked(served: Served) -> None:
    served.apply("admin = 127.0.0.1:0\nmax_connections = 1")
    with Client(served.public) as client:
        assert client.get("/") == (200, b"hello")
        wait_until(lambda: any(name == "accept_paused" for name, _ in served.events))
        assert ready(served.address) == 200
        assert served.application.open_sessions == 1


def test_too_many_probes_wait_and_clients_do_not(served: Served) -> None:
    served.apply("admin = 127.0.0.1:0")
    streams = [Client(served.address) for _ in range(100)]
    paused = {"listener": "admin", "reason": "too many probes", "connections": 100}
    wait_until(lambda: ("accept_paused", paused) in served.events)
    with Client(served.public) as client:
        assert client.get("/") == (200, b"hello")
    for stream in streams:
        stream.close()
    wait_until(lambda: any(name == "accept_resumed" for name, _ in served.events))
    assert ready(served.address) == 200


def test_it_is_asked_until_the_end_and_says_when_it_drains(served: Served) -> None:
    served.apply("admin = 127.0.0.1:0")
    port, public = served.address, served.public
    with Client(port) as kept:
        assert kept.get("/readyz")[0] == 200
        served.application.readiness.is_draining = True
        served.application.drain()
        with pytest.raises(ConnectionRefusedError):
            Client(public)
        served.application.retire()
        assert kept.get("/readyz")[0] == ready(port) == 503
        # It is no client whose end is waited for.
        assert served.application.open_sessions == 0
        served.application.close()
        assert kept.read_all() == b""
    with pytest.raises(ConnectionRefusedError):
        Client(port)


def test_a_successor_is_asked_at_once(served: Served) -> None:
    served.apply(f"admin = 127.0.0.1:{free_port()}")
    handed = frozenset(served.application.places())
    (key,) = [key for key in handed if key.endswith(" admin")]
    descriptor = os.dup(served.application.descriptors()[key])
    with Client(served.address) as kept:
        assert kept.get("/readyz")[0] == 200
        served.application.drain(handed)
        assert kept.read_all() == b""
    # The socket is open there, so who asks now waits for an answer of the other process.
    Client(served.address).close()
    os.close(descriptor)
    settle()


# -- what `check` says


def checked(directory: Path, admin: str, bind: str = "127.0.0.1:8080") -> tuple[list[str], list[str]]:
    text = f"[sidecar]\nadmin = {admin}\n[listener public]\nbind = {bind}\n[route a]\nrespond = 200\n"
    (directory / "a.ini").write_text(text)
    mistakes, warnings = check(load(directory, SECTIONS, {}))
    return ([line.replace(f"{directory}/", "") for line in lines] for lines in (mistakes, warnings))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("admin", "bind"),
    [
        ("127.0.0.1:8080", "127.0.0.1:8080"),
        ("127.0.0.1:8080", "0.0.0.0:8080"),
        ("unix:/run/a.sock", "unix:/run/a.sock"),
    ],
)
def test_an_address_has_one_use(tmp_path: Path, admin: str, bind: str) -> None:
    mistakes, warnings = checked(tmp_path, admin, bind)
    text = f"{admin} cannot be bound beside {bind} of [listener public]: choose another port or path"
    assert (mistakes, warnings) == ([f"a.ini:2: [sidecar] admin: {text}"], [])


@pytest.mark.parametrize(
    ("admin", "bind"),
    [
        ("127.0.0.1:9901", "0.0.0.0:8080"),
        ("[::1]:8080", "0.0.0.0:8080"),
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("unix:/a", "fd:a"),
    ],
)
def test_other_addresses_stand_beside_each_other(tmp_path: Path, admin: str, bind: str) -> None:
    mistakes, warnings = checked(tmp_path, admin, bind)
    assert (mistakes, warnings) == ([], [])


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]"])
def test_an_address_that_everybody_reaches_is_warned_about(tmp_path: Path, host: str) -> None:
    mistakes, warnings = checked(tmp_path, f"{host}:9901")
    text = (
        f"{host}:9901 answers whoever reaches this machine: write 127.0.0.1:9901, unless others have to ask"
    )
    assert mistakes == []
    assert warnings == [f"a.ini:2: [sidecar] admin: {text}, as the kubelet has"]
