"""Dialing: from addresses to a channel, or to a Failure that says what was in the way."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from gevent.event import Event

from sidecar.config.addresses import Address
from sidecar.errors import Failure
from sidecar.net.channel import Channel
from sidecar.net.dial import _interleaved, dial, dial_any, notice_death, numeric_target
from tests.support.streams import TIMEOUT, now, open_descriptors, outcome, settle, start, wait_until

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


def test_many_connections_are_dialed_at_once() -> None:
    with listening(64) as listener:
        channels = [outcome(one) for one in [start(dial, [target(listener)], TIMEOUT) for _ in range(32)]]
        assert len({channel.fileno() for channel in channels}) == 32
        for channel in channels:
            channel.close()


def refusing_six() -> tuple[int, Any]:
    """An IPv6 target that fails at once, on machines with and without IPv6."""
    return socket.AF_INET6, ("::1", 9, 0, 0)


def test_of_two_families_the_one_that_answers_is_taken() -> None:
    with listening() as listener:
        dial_any([refusing_six(), target(listener)], TIMEOUT).close()
        dial_any([target(listener), refusing_six()], TIMEOUT).close()


def test_a_family_that_is_silent_costs_a_quarter_of_a_second() -> None:
    with full() as stack, listening() as listener:
        begin = now()
        dial_any([target(stack.listener), target(listener)], TIMEOUT).close()  # type: ignore[attr-defined]
        assert 0.24 < now() - begin < TIMEOUT / 2


def test_an_address_that_fails_makes_room_at_once() -> None:
    with listening() as listener:
        begin = now()
        dial_any([*[refused_target() for _ in range(20)], target(listener)], TIMEOUT).close()
        assert now() - begin < 2.0  # a head start for each would be 5


def test_all_addresses_together_have_one_time() -> None:
    with full() as stack:
        silent = target(stack.listener)  # type: ignore[attr-defined]
        begin = now()
        with pytest.raises(Failure) as caught:
            dial_any([silent] * 10, 0.1)
        assert caught.value.reason == "connection_timeout"
        assert caught.value.repeatable
        assert now() - begin < 0.8  # a time for each would be 1


def test_when_all_fail_the_last_failure_is_told() -> None:
    with pytest.raises(Failure) as caught:
        dial_any([refused_target(), refused_target()], TIMEOUT)
    assert caught.value.reason == "connection_refused"
    with pytest.raises(Failure) as caught:
        dial_any([], TIMEOUT)
    assert caught.value.reason == "connection_failed"


def test_a_race_that_is_killed_gives_all_its_descriptors_back() -> None:
    with full() as stack:
        silent = target(stack.listener)  # type: ignore[attr-defined]
        before = open_descriptors()
        dialing = start(dial_any, [silent, silent], TIMEOUT)
        wait_until(lambda: open_descriptors() == before + 2)
        dialing.kill()
        wait_until(lambda: open_descriptors() == before)


def test_the_losers_of_a_race_are_closed() -> None:
    with full() as stack, listening() as listener:
        silent = target(stack.listener)  # type: ignore[attr-defined]
        before = open_descriptors()
        channel = dial_any([silent, silent, target(listener)], TIMEOUT)
        assert open_descriptors() == before + 1
        channel.close()


def test_families_take_turns_and_the_first_begins() -> None:
    six, four = socket.AF_INET6, socket.AF_INET
    given = [(six, 1), (six, 2), (six, 3), (four, 4), (four, 5)]
    assert _interleaved(given) == [(six, 1), (four, 4), (six, 2), (four, 5), (six, 3)]
    assert _interleaved(given[::-1]) == [(four, 5), (six, 3), (four, 4), (six, 2), (six, 1)]


class Slow:
    """Attempts that connect when the test says so; the number of the family is their name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun: list[int] = []
        self.peers: dict[int, socket.socket] = {}
        self._ready: dict[int, Event] = {}
        monkeypatch.setattr("sidecar.net.dial._connect", self._connect)

    def _connect(self, target: tuple[int, Any], _timeout: float) -> Channel:
        name = target[0]
        self.begun.append(name)
        self._ready[name] = Event()
        self._ready[name].wait(TIMEOUT)
        self.peers[name], ours = socket.socketpair()
        return Channel(ours.detach())

    def connect(self, *names: int) -> None:
        for name in names:
            self._ready[name].set()

    def is_open(self, name: int) -> bool:
        with self.peers[name] as peer:
            peer.setblocking(False)
            try:
                return peer.recv(1) != b""
            except BlockingIOError:
                return True


def test_a_slow_address_may_still_win(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = Slow(monkeypatch)
    dialing = start(dial_any, [(1, None), (2, None), (3, None)], TIMEOUT)
    wait_until(lambda: attempts.begun == [1, 2])
    attempts.connect(1)
    channel = outcome(dialing)
    assert attempts.begun == [1, 2]
    assert attempts.is_open(1)
    channel.close()


def test_of_two_that_connect_in_one_moment_one_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = Slow(monkeypatch)
    dialing = start(dial_any, [(1, None), (2, None)], TIMEOUT)
    wait_until(lambda: attempts.begun == [1, 2])
    attempts.connect(1, 2)
    channel = outcome(dialing)
    assert attempts.is_open(1)
    assert 2 not in attempts.peers or not attempts.is_open(2)
    channel.close()


def test_a_race_that_is_killed_as_it_is_won_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = Slow(monkeypatch)
    dialing = start(dial_any, [(1, None), (2, None)], TIMEOUT)
    wait_until(lambda: attempts.begun == [1])
    attempts.connect(1)
    dialing.kill(block=False)
    settle()
    assert dialing.dead
    assert not attempts.is_open(1)


# -- dead connections


def test_a_connection_knows_when_it_is_dead() -> None:
    with listening() as listener:
        channel = dial([target(listener)], TIMEOUT)
        notice_death(channel, 1.5)
        sock = socket.socket(fileno=os.dup(channel.fileno()))
        with sock:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 1500
        channel.close()


def test_a_unix_socket_needs_no_such_thing() -> None:
    one, two = socket.socketpair()
    with two:
        channel = Channel(one.detach())
        notice_death(channel, 1.5)
        channel.close()
