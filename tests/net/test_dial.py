"""Dialing: from addresses to a channel, or to a Failure that says what was in the way."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import gevent.socket
import pytest

from sidecar.config.addresses import Address
from sidecar.errors import Failure
from sidecar.net.dial import dial, numeric_target, resolve
from tests.support.streams import TIMEOUT, outcome, settle, start

pytestmark = pytest.mark.usefixtures("no_leaks")

SOON = 0.01


@contextmanager
def listening(backlog: int = 1) -> Iterator[Any]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(backlog)
        yield listener


def target(listener: socket.socket) -> tuple[int, Any]:
    return socket.AF_INET, listener.getsockname()


def refused_target() -> tuple[int, Any]:
    with listening() as listener:
        return target(listener)


def failure(targets: list[tuple[int, Any]], timeout: float = TIMEOUT) -> Failure:
    with pytest.raises(Failure) as caught:
        dial(targets, timeout)
    return caught.value


def full() -> ExitStack:
    """A listener whose backlog is full: the kernel drops what more comes, as a dead host would."""
    stack = ExitStack()
    stack.listener = listener = stack.enter_context(listening(0))  # type: ignore[attr-defined]
    for _ in range(4):
        client = stack.enter_context(socket.socket())
        client.setblocking(False)
        client.connect_ex(listener.getsockname())
    return stack


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (Address("127.0.0.1", 80), (socket.AF_INET, ("127.0.0.1", 80))),
        (Address("::1", 80), (socket.AF_INET6, ("::1", 80))),
        (Address(path="/run/app.sock"), (socket.AF_UNIX, "/run/app.sock")),
        (Address("app.example", 80), None),
    ],
)
def test_an_address_that_needs_no_resolver_is_a_target(address: Address, expected: object) -> None:
    assert numeric_target(address) == expected


def test_a_connection_carries_bytes_both_ways_without_delay() -> None:
    with listening() as listener:
        channel = dial([target(listener)], TIMEOUT)
        peer, _ = listener.accept()
        with peer:
            channel.send(b"ping", TIMEOUT)
            assert peer.recv(9) == b"ping"
            peer.sendall(b"pong")
            assert channel.read(9, TIMEOUT) == b"pong"
            probe = socket.socket(fileno=channel.fileno())
            assert probe.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert not probe.get_inheritable()
            probe.detach()
        assert channel.read(9, TIMEOUT) == b""
        channel.close()


def test_nobody_listening_is_a_refusal_that_may_be_repeated() -> None:
    error = failure([refused_target()])
    assert error.reason == "connection_refused"
    assert error.repeatable


def test_the_next_target_is_tried_and_the_last_failure_told() -> None:
    with listening() as listener:
        channel = dial([refused_target(), target(listener)], TIMEOUT)
        channel.close()
    assert failure([refused_target(), refused_target()]).reason == "connection_refused"
    assert failure([]).reason == "connection_failed"


def test_a_full_backlog_is_a_timeout() -> None:
    with full() as stack:
        error = failure([target(stack.listener)], SOON)  # type: ignore[attr-defined]
    assert error.reason == "connection_timeout"
    assert error.repeatable


def test_a_dialing_greenlet_that_is_killed_gives_its_descriptor_back() -> None:
    with full() as stack:
        dialing = start(dial, [target(stack.listener)], TIMEOUT)  # type: ignore[attr-defined]
        settle()
        assert not dialing.dead
        dialing.kill()


def test_a_unix_socket_is_dialed(tmp_path: Path) -> None:
    path = str(tmp_path / "app.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        assert failure([(socket.AF_UNIX, path)]).reason == "connection_refused"
        listener.listen(1)
        dial([(socket.AF_UNIX, path)], TIMEOUT).close()


@pytest.mark.parametrize(("name", "reason"), [("none", "connection_refused"), ("a/b", "connection_refused")])
def test_a_unix_socket_that_does_not_exist_refuses(tmp_path: Path, name: str, reason: str) -> None:
    assert failure([(socket.AF_UNIX, str(tmp_path / name))]).reason == reason


def test_a_file_that_is_no_socket_refuses(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")
    assert failure([(socket.AF_UNIX, str(path))]).reason == "connection_refused"


def test_an_address_that_cannot_be_reached_is_another_failure() -> None:
    error = failure([(socket.AF_INET, ("255.255.255.255", 9))])
    assert error.reason == "connection_failed"
    assert error.repeatable


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.EMFILE, "descriptors_exhausted"),
        (errno.ENFILE, "descriptors_exhausted"),
        (errno.EACCES, "connection_failed"),
    ],
)
def test_no_socket_to_be_had_is_a_failure_not_a_crash(
    monkeypatch: pytest.MonkeyPatch, code: int, reason: str
) -> None:
    def exhausted(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("sidecar.net.dial._socket.socket", exhausted)
    assert failure([(socket.AF_INET, ("127.0.0.1", 9))]).reason == reason


def test_a_name_becomes_its_targets_in_the_systems_order(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 80, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80)),
    ]
    monkeypatch.setattr(gevent.socket, "getaddrinfo", lambda *_, **__: found)
    assert resolve(Address("app.example", 80)) == [
        (socket.AF_INET6, ("::1", 80, 0, 0)),
        (socket.AF_INET, ("127.0.0.1", 80)),
    ]


def test_a_name_that_is_not_known_is_a_dns_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(gevent.socket, "getaddrinfo", unknown)
    with pytest.raises(Failure) as caught:
        resolve(Address("none.invalid", 80))
    assert caught.value.reason == "dns_error"
    assert caught.value.repeatable


def test_many_connections_are_dialed_at_once() -> None:
    with listening(64) as listener:
        channels = [outcome(one) for one in [start(dial, [target(listener)], TIMEOUT) for _ in range(32)]]
        assert len({channel.fileno() for channel in channels}) == 32
        for channel in channels:
            channel.close()
