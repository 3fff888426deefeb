"""Bound addresses: where their sockets come from, and to whom they go."""

from __future__ import annotations

import os
import socket as plain
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.app import Application, prepare
from sidecar.config.addresses import Address
from sidecar.config.merge import load
from sidecar.errors import ConfigurationError
from sidecar.net.inherit import Inherited
from sidecar.places import Place
from sidecar.settings import SECTIONS
from tests.support.live import free_port
from tests.support.streams import Peer, settle, wait_until, world

pytestmark = pytest.mark.usefixtures("no_leaks")

HELLO = "[route hello]\nrespond = 200 hello\n"


class Served:
    """Places with an application around them; what it inherits is up to the test."""

    def __init__(self, directory: Path, inherited: Inherited | None = None) -> None:
        self._directory = directory
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.application = Application(world(self._event), lambda: None, inherited)

    def _event(self, name: str, **fields: Any) -> None:
        self.events.append((name, fields))

    def apply(self, bind: str, more: str = "") -> None:
        (self._directory / "a.ini").write_text(f"[listener public]\nbind = {bind}\n{more}{HELLO}")
        self.application.apply(prepare(load(self._directory, SECTIONS, {})))

    def refused(self, bind: str) -> list[str]:
        with pytest.raises(ConfigurationError) as caught:
            self.apply(bind)
        return [line.replace(f"{self._directory}/", "") for line in caught.value.mistakes]

    def addresses(self) -> list[Address]:
        return self.application.addresses().get("public", [])

    def end(self) -> None:
        self.application.drain()
        self.application.retire()
        self.application.close()


Make = Callable[..., Served]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Served] = []

    def make(inherited: Inherited | None = None) -> Served:
        made.append(Served(tmp_path, inherited))
        return made[-1]

    yield make
    for one in made:
        one.end()


@pytest.fixture
def web() -> Iterator[plain.socket]:
    with listening() as sock:
        yield sock


def listening(path: str = "") -> plain.socket:
    sock = plain.socket(plain.AF_UNIX if path else plain.AF_INET)
    sock.bind(path or ("127.0.0.1", 0))
    sock.listen()
    return sock


def connect(address: Address | tuple[str, int]) -> Peer:
    if isinstance(address, tuple):
        address = Address(*address)
    sock = plain.socket(plain.AF_UNIX if address.is_unix else plain.AF_INET)
    sock.connect(address.path.replace("@", "\0") or (address.host, address.port))
    return Peer(sock)


def ask(peer: Peer) -> bytes:
    peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    return peer.read_until(b"hello")


def is_served(address: Address | tuple[str, int]) -> bool:
    peer = connect(address)
    try:
        return ask(peer).startswith(b"HTTP/1.1 200 ")
    finally:
        peer.close()


# -- keys


@pytest.mark.parametrize(
    ("place", "key"),
    [
        (Place(Address("127.0.0.1", 80)), "127.0.0.1:80"),
        (Place(Address("127.0.0.1", 0), "public 1"), "127.0.0.1:0 public 1"),
        (Place(Address(path="/run/a b")), "unix:/run/a b"),
        (Place(Address(name="web"), "0"), "fd:web 0"),
    ],
)
def test_a_place_is_known_again_by_its_key(place: Place, key: str) -> None:
    assert place.key == key


# -- sockets of the service manager


def test_all_sockets_of_a_name_are_served(make: Make, web: plain.socket) -> None:
    with listening() as other:
        served = make(Inherited([("web", web.fileno()), ("web", other.fileno())]))
        served.apply("fd:web")
        assert served.addresses() == [Address(*sock.getsockname()) for sock in (web, other)]
        assert all(is_served(address) for address in served.addresses())
        assert served.application.places() == ["fd:web 0", "fd:web 1"]
        assert [fields["inherited"] for _, fields in served.events] == [True, True]
        # They go to a new process by their names.
        assert served.application.descriptors() == {}
        served.end()


def test_a_socket_of_the_manager_outlives_its_listener(make: Make, web: plain.socket) -> None:
    served = make(Inherited([("web", web.fileno())]))
    served.apply("fd:web")
    served.apply("127.0.0.1:0")
    peer = connect(web.getsockname())
    settle()
    served.apply("fd:web")
    assert ask(peer).startswith(b"HTTP/1.1 200 ")
    peer.close()


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_a_unix_socket_of_the_manager_keeps_its_file(make: Make, tmp_path: Path, kind: str) -> None:
    path = str(tmp_path / "web.sock") if kind == "path" else f"\0sidecar-test-{os.getpid()}"
    with listening(path) as sock:
        served = make(Inherited([("web", sock.fileno())]))
        served.apply("fd:web")
        assert served.addresses() == [Address(path=path.replace("\0", "@"))]
        assert is_served(served.addresses()[0])
        served.end()
        assert kind == "abstract" or Path(path).exists()


def test_a_name_that_is_not_there_is_one_mistake(make: Make, web: plain.socket) -> None:
    served = make(Inherited([("web", web.fileno()), ("web", web.fileno())]))
    assert served.refused("fd:wb") == [
        "a.ini:2: [listener public] bind: fd:wb: no inherited socket has this name: write fd:web"
    ]
    assert served.addresses() == []


def test_a_name_belongs_to_one_listener(make: Make, web: plain.socket) -> None:
    served = make(Inherited([("web", web.fileno())]))
    with pytest.raises(ConfigurationError, match="fd:web is bound by \\[listener public\\] already"):
        served.apply("fd:web", "[listener other]\nbind = fd:web\n")


# -- sockets of the process that is replaced


def test_a_place_takes_its_socket_and_the_rest_is_closed(make: Make, web: plain.socket) -> None:
    port = web.getsockname()[1]
    with listening() as other:
        unwanted = os.dup(other.fileno())
        inherited = Inherited(placed=[(f"127.0.0.1:{port}", os.dup(web.fileno())), ("x", unwanted)])
        served = make(inherited)
        served.apply(f"127.0.0.1:{port}, 127.0.0.1:0")
        assert served.addresses()[0] == Address("127.0.0.1", port)
        with pytest.raises(OSError):
            os.fstat(unwanted)
        (first, second) = [fields for _, fields in served.events]
        assert first["inherited"]
        assert "inherited" not in second
        web.close()
        assert is_served(("127.0.0.1", port))


def test_a_port_that_the_system_chose_stays_with_its_place(make: Make, web: plain.socket) -> None:
    served = make(Inherited(placed=[("127.0.0.1:0 public 1", os.dup(web.fileno()))]))
    served.apply("127.0.0.1:0, 127.0.0.1:0")
    assert served.addresses()[1] == Address(*web.getsockname())


def test_a_start_that_fails_leaves_a_taken_socket_file_alone(make: Make, tmp_path: Path) -> None:
    """And who waits there is not accepted: the process that goes on shall serve him."""
    path = str(tmp_path / "web.sock")
    with listening(path) as sock, listening() as other:
        taken = other.getsockname()[1]
        served = make(Inherited(placed=[(f"unix:{path}", os.dup(sock.fileno()))]))
        peer = connect(Address(path=path))
        assert len(served.refused(f"unix:{path}, 127.0.0.1:{taken}")) == 1
        assert os.path.exists(path)
        sock.settimeout(1)
        sock.accept()[0].close()
        peer.close()


def test_an_address_that_the_replaced_process_has_otherwise_is_a_mistake_of_its_own(
    make: Make, web: plain.socket
) -> None:
    port = web.getsockname()[1]
    inherited = Inherited(placed=[(f"127.0.0.1:{port}", os.dup(web.fileno()))])
    (mistake,) = make(inherited).refused(f"0.0.0.0:{port}")
    assert mistake.endswith(
        "is in the way of the process that is replaced: reload that one first, then replace it"
    )
    inherited.close_rest()


# -- handing on


def test_what_is_handed_over_is_neither_emptied_nor_removed(make: Make, tmp_path: Path) -> None:
    path, goes = str(tmp_path / "stays.sock"), str(tmp_path / "goes.sock")
    served = make()
    served.apply(f"unix:{path}, unix:{goes}")
    descriptors = served.application.descriptors()
    assert list(descriptors) == [f"unix:{path}", f"unix:{goes}"] == served.application.places()
    with plain.socket(fileno=os.dup(descriptors[f"unix:{path}"])) as heir:
        waits, ends = connect(Address(path=path)), connect(Address(path=goes))
        served.application.drain(frozenset({f"unix:{path}"}))
        assert os.path.exists(path)
        assert not os.path.exists(goes)
        # Who waits at the one is for the heir, who waits at the other is still served here.
        assert b"\r\nConnection: close\r\n" in ask(ends)
        heir.settimeout(1)
        heir.accept()[0].close()
        assert waits.read_all() == b""
        waits.close()
        ends.close()


def test_connections_of_what_was_handed_over_get_one_more_answer(make: Make) -> None:
    served = make()
    served.apply(f"127.0.0.1:{free_port()}")
    asks, idles = connect(served.addresses()[0]), connect(served.addresses()[0])
    for peer in (asks, idles):
        assert b"Connection: close" not in ask(peer)
    served.application.drain(frozenset(served.application.places()))
    settle()
    assert b"\r\nConnection: close\r\n" in ask(asks)
    assert served.application.open_sessions >= 1
    served.application.retire()
    assert idles.read_all() == b""
    asks.close()
    idles.close()
    wait_until(lambda: not served.application.open_sessions)


def test_a_request_that_came_before_the_end_is_answered(make: Make) -> None:
    """It waits in the kernel when the idle connections are closed."""
    served = make()
    served.apply("127.0.0.1:0")
    peer = connect(served.addresses()[0])
    ask(peer)
    served.application.drain()
    peer.sock.setblocking(True)
    os.write(peer.sock.fileno(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    served.application.retire()
    assert b"\r\nConnection: close\r\n" in peer.read_until(b"hello")
    peer.close()
