"""Listeners: accepting, pausing when there is no room, and socket files."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.pool import Pool

from sidecar.config.addresses import Address
from sidecar.net.channel import Channel
from sidecar.net.listener import Listener, bind_advice, listen
from tests.support.streams import TIMEOUT, Peer, settle, wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")

LOOPBACK = Address("127.0.0.1", 0)


class Greeter:
    """A handler that says hello and waits for the peer's end."""

    def __init__(self) -> None:
        self.peers: list[Any] = []
        self.events: list[tuple[str, dict[str, Any]]] = []

    def handle(self, channel: Channel, peer: Any) -> None:
        self.peers.append(peer)
        channel.send(b"hello", TIMEOUT)
        channel.read(1, TIMEOUT)

    def event(self, name: str, **fields: Any) -> None:
        self.events.append((name, fields))


@contextmanager
def serving(address: Address = LOOPBACK, size: int = 10) -> Iterator[tuple[Listener, Greeter]]:
    greeter = Greeter()
    pool = Pool(size)
    listener = Listener(address, greeter.handle, pool, greeter.event)
    listener.start()
    try:
        yield listener, greeter
    finally:
        listener.end()
        pool.kill(timeout=TIMEOUT)


def connect(listener: Listener) -> Peer:
    bound = listener.bound
    sock = socket.socket(socket.AF_UNIX if bound.is_unix else socket.AF_INET)
    sock.connect(bound.path or (bound.host, bound.port))
    return Peer(sock)


def test_a_connection_is_handled_with_its_peer_and_closed_at_the_end() -> None:
    with serving() as (listener, greeter):
        assert listener.bound.port > 0
        peer = connect(listener)
        assert peer.read(5) == b"hello"
        assert greeter.peers == [peer.sock.getsockname()]
        peer.send(b".")
        assert peer.read_all() == b""
        peer.close()


def test_accepted_connections_send_without_delay() -> None:
    seen = []

    def look(channel: Channel, peer: Any) -> None:
        sock = socket.socket(fileno=os.dup(channel.fileno()))
        seen.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        sock.close()

    listener = Listener(LOOPBACK, look, Pool(1), lambda *_, **__: None)
    listener.start()
    peer = connect(listener)
    peer.read_all()
    assert seen[0]
    peer.close()
    listener.end()


def test_a_handler_that_fails_costs_only_its_own_connection(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(channel: Channel, peer: Any) -> None:
        raise ValueError("on purpose")

    pool = Pool(2)
    listener = Listener(LOOPBACK, fail, pool, lambda *_, **__: None)
    listener.start()
    for _ in range(2):
        peer = connect(listener)
        assert peer.read_all() == b""
        peer.close()
    pool.join(timeout=TIMEOUT)
    listener.end()
    assert "on purpose" in capsys.readouterr().err


def test_when_many_connect_at_once_whoever_is_there_has_his_turn_in_between() -> None:
    greeter = Greeter()
    pool = Pool(30)
    listener = Listener(LOOPBACK, greeter.handle, pool, greeter.event)
    peers = [connect(listener) for _ in range(25)]
    begun: list[int] = []
    turn = gevent.get_hub().loop.check()
    turn.start(lambda: begun.append(len(greeter.peers)))
    listener.start()
    wait_until(lambda: len(greeter.peers) == len(peers))
    turn.stop()
    turn.close()
    assert max(after - before for before, after in pairwise([0, *begun, len(peers)])) <= 10
    for peer in peers:
        peer.close()
    listener.end()
    pool.join(timeout=TIMEOUT)


def test_beyond_the_bound_clients_wait_until_a_place_is_free() -> None:
    with serving(size=1) as (listener, _):
        first, second = connect(listener), connect(listener)
        assert first.read(5) == b"hello"
        settle()
        second.sock.settimeout(0)
        with pytest.raises(BlockingIOError):
            second.sock.recv(1)
        second.sock.settimeout(TIMEOUT)
        first.close()
        assert second.read(5) == b"hello"
        second.close()


class Exhausted:
    """A listening socket whose accept fails, forever or so many times."""

    def __init__(self, sock: Any, code: int, times: int = -1) -> None:
        self._sock = sock
        self.code = code
        self.times = times
        self.refusals = 0

    def _accept(self) -> Any:
        if self.code and self.refusals != self.times:
            self.refusals += 1
            raise OSError(self.code, os.strerror(self.code))
        return self._sock._accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_running_out_of_descriptors_pauses_and_tells_once(code: int) -> None:
    with serving() as (listener, greeter):
        listener.min_delay = listener.delay = 0.001
        listener.socket = exhausted = Exhausted(listener.socket, code)
        peer = connect(listener)
        wait_until(lambda: exhausted.refusals >= 3)
        assert [name for name, _ in greeter.events] == ["accept_paused"]
        assert greeter.events[0][1]["listener"] == str(listener.bound)
        exhausted.code = 0
        assert peer.read(5) == b"hello"
        assert [name for name, _ in greeter.events] == ["accept_paused", "accept_resumed"]
        peer.close()


def test_a_pause_does_not_spin() -> None:
    with serving() as (listener, _):
        listener.socket = exhausted = Exhausted(listener.socket, errno.EMFILE)
        peer = connect(listener)
        wait_until(lambda: exhausted.refusals)
        settle(50)
        assert exhausted.refusals == 1
        exhausted.code = 0
        peer.close()


def test_a_listener_that_ends_while_it_pauses_stays_ended() -> None:
    with serving() as (listener, _):
        listener.socket = exhausted = Exhausted(listener.socket, errno.EMFILE)
        listener.min_delay = listener.delay = 0.001
        peer = connect(listener)
        wait_until(lambda: exhausted.refusals)
        listener.end()
        before = exhausted.refusals
        settle(20)
        assert exhausted.refusals == before
        peer.close()


def test_a_client_that_left_before_it_was_accepted_is_nobodys_trouble() -> None:
    with serving() as (listener, greeter):
        listener.socket = Exhausted(listener.socket, errno.ECONNABORTED, times=2)
        peer = connect(listener)
        assert peer.read(5) == b"hello"
        assert greeter.events == []
        peer.close()


def test_ending_frees_the_address_and_leaves_connections_alone() -> None:
    with serving() as (listener, _):
        peer = connect(listener)
        assert peer.read(5) == b"hello"
        bound = listener.bound
        listener.end()
        again = listen(bound)
        again.close()
        peer.send(b".")
        assert peer.read_all() == b""
        peer.close()


def test_a_socket_that_listens_already_is_served_under_its_own_address(tmp_path: Path) -> None:
    named = Address(name="web")
    for address in (LOOPBACK, Address(path=str(tmp_path / "web.sock"))):
        sock = listen(address)
        greeter = Greeter()
        listener = Listener(named, greeter.handle, Pool(1), greeter.event, sock)
        listener.start()
        assert listener.is_adopted
        assert listener.bound == (address if address.is_unix else Address(*sock.getsockname()))
        peer = connect(listener)
        assert peer.read(5) == b"hello"
        peer.close()
        listener.end()
        # It has a file of its own, and this was not the one who made it.
        assert not address.is_unix or os.path.exists(address.path)


def test_leaving_keeps_the_file_and_those_who_wait_for_another_process(tmp_path: Path) -> None:
    path = tmp_path / "public.sock"
    with serving(Address(path=str(path))) as (listener, greeter):
        heir = socket.socket(fileno=os.dup(listener.socket.fileno()))
        peer = connect(listener)
        listener.leave()
        assert path.exists()
        with heir:
            heir.settimeout(TIMEOUT)
            accepted, _ = heir.accept()
            accepted.sendall(b"heir!")
            assert peer.read(5) == b"heir!"
            accepted.close()
        assert greeter.peers == []
        peer.close()


def test_an_address_in_use_is_an_error_and_nothing_is_left_open() -> None:
    with serving() as (listener, _), pytest.raises(OSError, match="in use"):
        listen(listener.bound)


# -- UNIX sockets


def test_a_unix_socket_serves_and_its_file_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "public.sock"
    with serving(Address(path=str(path))) as (listener, greeter):
        peer = connect(listener)
        assert peer.read(5) == b"hello"
        assert greeter.peers == [""]
        peer.close()
    assert not path.exists()


def test_a_second_end_leaves_the_file_of_another_alone(tmp_path: Path) -> None:
    address = Address(path=str(tmp_path / "a.sock"))
    with serving(address) as (listener, _):
        listener.end()
        other = listen(address)
        listener.end()
        assert os.path.exists(address.path)
        other.close()


def test_a_file_that_nobody_listens_on_any_more_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "public.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with serving(Address(path=str(path))) as (listener, _):
        peer = connect(listener)
        assert peer.read(5) == b"hello"
        peer.close()


def test_a_file_that_somebody_listens_on_is_left_alone(tmp_path: Path) -> None:
    address = Address(path=str(tmp_path / "public.sock"))
    with serving(address) as (listener, _):
        with pytest.raises(OSError, match="in use"):
            listen(address)
        peer = connect(listener)
        assert peer.read(5) == b"hello"
        peer.close()


def test_one_that_listens_but_does_not_accept_holds_nobody_up(tmp_path: Path) -> None:
    path = str(tmp_path / "public.sock")
    clients = []
    with socket.socket(socket.AF_UNIX) as stuck:
        stuck.bind(path)
        stuck.listen(0)
        while True:
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            clients.append(client)
            if client.connect_ex(path) == errno.EAGAIN:
                break
        with pytest.raises(OSError, match="in use"):
            listen(Address(path=path))
        for client in clients:
            client.close()


def test_a_file_that_is_no_socket_is_never_removed(tmp_path: Path) -> None:
    path = tmp_path / "public.sock"
    path.write_text("precious")
    with pytest.raises(OSError, match="in use") as caught:
        listen(Address(path=str(path)))
    assert path.read_text() == "precious"
    assert bind_advice(caught.value) == "is a file and no socket: remove it, or choose another path"


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (OSError(errno.EADDRINUSE, ""), "is in use by another process: stop it, or choose another port"),
        (
            OSError(errno.EADDRINUSE, "", "/s"),
            "is in use by another process: stop it, or choose another path",
        ),
        (
            OSError(errno.EACCES, "", "/s"),
            f"uid {os.geteuid()} may not make it: change the permissions of its",
        ),
        (OSError(errno.ENOENT, "", "/s"), "is in a directory that does not exist: make it first"),
        (OSError(errno.ENOTDIR, "", "/s"), "is below something that is not a directory: choose another path"),
        (OSError(errno.EMFILE, ""), "finds no descriptor left: raise the limit of open files"),
        (
            socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
            "is a name that cannot be resolved",
        ),
        (OSError(errno.EPROTO, "Protocol error"), "cannot be bound: Protocol error"),
    ],
)
def test_an_address_that_cannot_be_had_is_told_with_the_remedy(error: OSError, advice: str) -> None:
    assert bind_advice(error).startswith(advice)


def test_connections_are_served_side_by_side() -> None:
    with serving(size=50) as (listener, greeter):
        peers = [connect(listener) for _ in range(50)]
        assert [peer.read(5) for peer in peers] == [b"hello"] * 50
        for peer in peers:
            peer.close()
        assert len(greeter.peers) == 50


def test_both_wildcards_listen_beside_one_another() -> None:
    first = listen(Address("0.0.0.0", 0))
    second = listen(Address("::", first.getsockname()[1]))
    first.close()
    second.close()


def test_everybody_may_connect_to_a_socket_file_whatever_the_umask(tmp_path: Path) -> None:
    """As with nginx: the directory decides."""
    path = tmp_path / "socket"
    before = os.umask(0o077)
    try:
        with listen(Address(path=str(path))):
            assert stat.S_IMODE(path.stat().st_mode) == 0o666
    finally:
        os.umask(before)
