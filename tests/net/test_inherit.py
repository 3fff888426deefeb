"""Inherited sockets: what is taken from the environment, what is refused, and how two processes speak."""

from __future__ import annotations

import json
import os
import socket as plain
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.errors import ConfigurationError
from sidecar.net import inherit
from sidecar.net.inherit import Heritage, Inherited, Unfit, receive
from tests.support.streams import outcome, settle, start

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.fixture
def listening() -> Iterator[plain.socket]:
    with plain.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock


def manager(names: str = "web", count: int | str = 1, pid: int = 0) -> dict[str, str]:
    return {
        "LISTEN_PID": str(pid or os.getpid()),
        "LISTEN_FDS": str(count),
        "LISTEN_FDNAMES": names,
        "A": "b",
    }


@pytest.fixture
def third(listening: plain.socket, monkeypatch: pytest.MonkeyPatch) -> plain.socket:
    """The socket stands where those of a manager begin."""
    os.set_inheritable(listening.fileno(), True)
    monkeypatch.setattr(inherit, "_FIRST", listening.fileno())
    return listening


def refusal(environ: dict[str, str]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        receive(environ)
    (mistake,) = caught.value.mistakes
    assert mistake.endswith(": start sidecar without LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES, SIDECAR_SOCKETS")
    return mistake.partition(": start")[0]


# -- from a service manager


def test_sockets_have_the_names_of_the_manager_and_leave_the_environment(third: plain.socket) -> None:
    environ = manager()
    inherited = receive(environ)
    assert environ == {"A": "b"}
    assert inherited.named() == [("web", third.fileno())]
    assert (inherited.count("web"), inherited.count("other"), inherited.is_heir) == (1, 0, False)
    assert not os.get_inheritable(third.fileno())


def test_a_socket_is_served_as_a_duplicate_that_may_go_and_come_back(third: plain.socket) -> None:
    inherited = receive(manager())
    for _ in range(2):
        with inherited.open("web", 0) as sock:
            assert sock.fileno() != third.fileno()
            assert sock.getsockname() == third.getsockname()
            assert sock.getsockopt(plain.IPPROTO_TCP, plain.TCP_NODELAY)
            assert not os.get_blocking(sock.fileno())
            assert not os.get_inheritable(sock.fileno())
    assert third.getsockopt(plain.SOL_SOCKET, plain.SO_ACCEPTCONN)


@pytest.mark.parametrize("environ", [{}, manager(pid=1), {"LISTEN_FDS": "1"}])
def test_what_is_for_another_process_is_let_be(environ: dict[str, str]) -> None:
    inherited = receive(dict(environ))
    assert inherited.named() == []
    with pytest.raises(Unfit, match="no sockets were inherited: start sidecar by a socket unit"):
        inherited.open("web", 0)


def test_sockets_without_names_have_the_name_of_the_specification(third: plain.socket) -> None:
    assert receive(manager(names="")).count("unknown") == 1


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (manager(count="many"), "LISTEN_FDS is 'many', which is no number of sockets"),
        (manager(count=""), "LISTEN_FDS is '', which is no number of sockets"),
        (manager(count=10**9), "LISTEN_FDS is '1000000000', which is no number of sockets"),
        (manager("a:b:c", 2), "LISTEN_FDS is 2 and LISTEN_FDNAMES has 3 names"),
    ],
)
def test_variables_that_make_no_sense_are_refused(environ: dict[str, str], message: str) -> None:
    assert refusal(environ) == message


def test_a_descriptor_that_is_not_open_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inherit, "_FIRST", 1000)
    assert refusal(manager()) == "descriptor 1000 is no socket: Bad file descriptor"


def test_a_name_that_is_not_there_comes_with_those_that_are(third: plain.socket) -> None:
    with pytest.raises(Unfit, match="no inherited socket has this name: write fd:web"):
        receive(manager()).open("wb", 0)


def test_what_cannot_be_served_is_refused_only_when_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first(descriptor: int) -> Inherited:
        monkeypatch.setattr(inherit, "_FIRST", descriptor)
        return receive(manager())

    with (
        plain.socket(type=plain.SOCK_DGRAM) as datagrams,
        pytest.raises(Unfit, match="no TCP or UNIX stream"),
    ):
        first(datagrams.fileno()).open("web", 0)
    with plain.socket() as deaf, pytest.raises(Unfit, match="does not listen"):
        first(deaf.fileno()).open("web", 0)
    with open(tmp_path / "file", "w") as file, pytest.raises(Unfit, match="is no socket"):
        first(file.fileno()).open("web", 0)


# -- from the process that is replaced


def handed(listening: plain.socket, **changes: Any) -> tuple[dict[str, str], plain.socket]:
    """The environment of a new process that has one place, and the other end of its line."""
    control, other = plain.socketpair()
    sockets = {
        "control": control.detach(),
        "named": [],
        "placed": [["127.0.0.1:80", os.dup(listening.fileno())]],
        **changes,
    }
    return {"SIDECAR_SOCKETS": json.dumps(sockets)}, other


def test_a_place_gets_its_socket_once(listening: plain.socket) -> None:
    environ, other = handed(listening)
    inherited = receive(environ)
    assert environ == {}
    assert inherited.is_heir
    assert inherited.take("127.0.0.1:81") is None
    with inherited.take("127.0.0.1:80") as sock:
        assert sock.getsockname() == listening.getsockname()
        assert not os.get_inheritable(sock.fileno())
    assert inherited.take("127.0.0.1:80") is None
    other.close()
    inherited.wait_left()


def test_what_nobody_takes_is_closed(listening: plain.socket) -> None:
    environ, other = handed(listening)
    inherited = receive(environ)
    port = listening.getsockname()[1]
    assert inherited.holds_port(port)
    assert not inherited.holds_port(0)
    inherited.close_rest()
    assert not inherited.holds_port(port)
    other.close()
    inherited.wait_left()


@pytest.mark.parametrize(
    "text",
    ["{}", "[]", "nonsense", '{"control": 3, "named": [1], "placed": []}', '{"control": "x"}', "[" * 9999],
)
def test_a_word_that_no_process_says_is_refused(text: str) -> None:
    assert refusal({"SIDECAR_SOCKETS": text}) == "SIDECAR_SOCKETS does not say which sockets are open"


def test_a_place_without_a_listening_socket_is_refused() -> None:
    with plain.socket() as deaf:
        text = json.dumps({"control": deaf.fileno(), "named": [], "placed": [["a", deaf.fileno()]]})
        assert "does not listen" in refusal({"SIDECAR_SOCKETS": text})


# -- the line between the two


@pytest.fixture
def line(listening: plain.socket) -> Iterator[tuple[Heritage, Inherited]]:
    """An old process and a new one, which has duplicates as a child has."""
    heritage = Heritage([("web", listening.fileno())], {"127.0.0.1:80": listening.fileno()})
    sockets = json.loads(heritage.variables()["SIDECAR_SOCKETS"])
    assert heritage.descriptors == [listening.fileno(), listening.fileno(), sockets["control"]]
    sockets["control"] = os.dup(sockets["control"])
    sockets["placed"][0][1] = os.dup(listening.fileno())
    inherited = receive({"SIDECAR_SOCKETS": json.dumps(sockets)})
    heritage.started()
    yield heritage, inherited
    inherited.close_rest()
    heritage.release()
    inherited.wait_left()


def test_the_new_process_says_what_it_serves(line: tuple[Heritage, Inherited]) -> None:
    heritage, inherited = line
    inherited.serves(["a", "b\n"])
    assert heritage.wait_served(1) == {"a", "b\n"}
    left = start(inherited.wait_left)
    settle()
    assert not left.dead
    heritage.release()
    outcome(left)


def test_sockets_of_the_manager_go_along(line: tuple[Heritage, Inherited]) -> None:
    assert line[1].count("web") == 1


def test_a_new_process_that_ends_is_noticed(line: tuple[Heritage, Inherited]) -> None:
    heritage, inherited = line
    inherited._control.close()
    with pytest.raises(EOFError):
        heritage.wait_served(1)


def test_a_new_process_that_says_nothing_is_given_up(line: tuple[Heritage, Inherited]) -> None:
    with pytest.raises(TimeoutError):
        line[0].wait_served(0.01)


def test_a_new_process_that_speaks_otherwise_is_noticed(line: tuple[Heritage, Inherited]) -> None:
    line[1]._control.sendall(b"hello\n")
    with pytest.raises(ValueError):
        line[0].wait_served(1)


def test_an_old_process_that_is_gone_needs_no_word(line: tuple[Heritage, Inherited]) -> None:
    heritage, inherited = line
    heritage.release()
    inherited.serves(["a"])
    inherited.wait_left()
    inherited.serves(["a"])


def test_nothing_inherited_is_nothing_to_do() -> None:
    inherited = Inherited()
    inherited.serves(["a"])
    inherited.wait_left()
    inherited.close_rest()
    assert inherited.take("a") is None
