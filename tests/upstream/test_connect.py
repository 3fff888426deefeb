"""Connections for clients: which server is dialed next, what is counted, and that all of it is given back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from sidecar.config.addresses import Address
from sidecar.errors import Failure
from sidecar.message import Request, connection
from sidecar.upstream.balance.round_robin import RoundRobin
from sidecar.upstream.budget import Budget
from sidecar.upstream.connect import Connect, Link
from sidecar.upstream.exchange import Terms, Timeouts
from sidecar.upstream.group import Group, Queue, QueueOptions
from sidecar.upstream.guard import Guard
from sidecar.upstream.pool import ServerPool
from sidecar.upstream.retry import Retry, RetryOptions
from sidecar.upstream.server import Server, State
from sidecar.wire.head import Limits
from tests.support.live import free_port
from tests.support.streams import TIMEOUT, FakeServer, ScriptedPeer, ServerSide, now, wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")


def wait(side: ServerSide) -> None:
    side.read_all()


class World:
    """A group of servers; those that are None refuse."""

    def __init__(self, *servers: FakeServer | None, tunnel: float = TIMEOUT, **retry: Any) -> None:
        self.observed: list[tuple[str, bool | None]] = []
        self.servers = [
            Server(f"s{at}", ServerPool(address(one), 0, 1.0), State()) for at, one in enumerate(servers)
        ]
        self.budget = Budget(20)
        self.group = Group(QueueOptions(), Queue(), self.budget, now)
        self.group.replace(self.servers, RoundRobin, observer=self._observe)
        timeouts = Timeouts(TIMEOUT, TIMEOUT, TIMEOUT, 0.0, tunnel)
        self.terms = Terms(timeouts, Limits(), now, True, frozenset())
        self.retry = Retry(RetryOptions(**retry))
        self.request: Request = connection("192.0.2.7", "edge")

    def _observe(self, server: Server, failed: bool | None, seconds: float) -> None:
        self.observed.append((server.name, failed))

    def connect(self, guard: Guard | None = None) -> Link:
        return Connect(self.group, self.retry, self.terms, guard)(self.request)

    @property
    def tried(self) -> list[tuple[str, str]]:
        return [(attempt.server, attempt.reason) for attempt in self.request.attempts]

    @property
    def active(self) -> int:
        return self.group.active()


def address(server: FakeServer | None) -> Address:
    return Address("127.0.0.1", free_port()) if server is None else server.address


@pytest.fixture
def server() -> Iterator[FakeServer]:
    server = FakeServer(wait, wait)
    yield server
    server.close()


def test_a_server_is_taken_until_the_link_is_closed(server: FakeServer):
    world = World(server)
    link = world.connect()
    assert world.active == 1
    link.close()
    assert world.active == 0
    assert world.tried == [("s0", "")]
    assert world.observed == [("s0", False)]
    (attempt,) = world.request.attempts
    assert 0.0 <= attempt.connect <= attempt.total


def test_each_attempt_is_at_another_server(server: FakeServer):
    world = World(None, None, server, retry_attempts=3)
    world.connect().close()
    assert world.tried == [("s0", "connection_refused"), ("s1", "connection_refused"), ("s2", "")]
    assert [one.state.fails for one in world.servers] == [1, 1, 0]
    assert world.observed == [("s0", True), ("s1", True), ("s2", False)]
    assert (world.active, world.budget.retries) == (0, 0)


def test_attempts_are_bounded(server: FakeServer):
    world = World(None, None, server, retry_attempts=1)
    with pytest.raises(Failure, match="connection_refused"):
        world.connect()
    assert len(world.tried) == 1
    assert (world.active, world.budget.retries) == (0, 0)


def test_servers_that_cannot_be_reached_do_not_count(server: FakeServer):
    world = World(None, None, None, server)
    world.connect().close()
    assert [name for name, _ in world.tried] == ["s0", "s1", "s2", "s3"]
    assert (world.active, world.budget.retries) == (0, 0)


def test_when_nobody_can_be_reached_each_was_tried_once():
    world = World(None, None, None)
    with pytest.raises(Failure, match="connection_refused"):
        world.connect()
    assert [name for name, _ in world.tried] == ["s0", "s1", "s2"]
    assert (world.active, world.budget.retries) == (0, 0)


@pytest.mark.parametrize("retry", [{"retry_on": ()}, {"retry_on": ("timeout",)}, {"retry_attempts": 1}])
def test_what_is_not_asked_for_is_not_tried_again(server: FakeServer, retry: dict[str, Any]):
    world = World(None, server, **retry)
    with pytest.raises(Failure):
        world.connect()
    assert world.tried == [("s0", "connection_refused")]


def test_there_is_a_time_after_which_no_other_begins(server: FakeServer):
    world = World(None, server, retry_timeout=1e-9)
    with pytest.raises(Failure):
        world.connect()
    assert len(world.tried) == 1


def test_who_is_killed_while_it_dials_gives_back(server: FakeServer, monkeypatch: pytest.MonkeyPatch):
    world = World(server)
    monkeypatch.setattr(world.servers[0].pool, "connect", lambda _: gevent.sleep(TIMEOUT))
    dialing = gevent.spawn(world.connect)
    wait_until(lambda: world.active)
    dialing.kill()
    assert world.active == 0
    assert world.observed == [("s0", None)]
    assert world.servers[0].state.fails == 0


def test_a_guard_is_told(server: FakeServer):
    told: list[tuple[Any, ...]] = []

    class Watching(Guard):
        def _admit(self, now: float) -> int:
            told.append(("admit",))
            return 7

        def _settle(self, period: int, failed: bool | None, began: float, is_measure: bool) -> None:
            told.append((period, failed, is_measure))

    guard = Watching(None, None, now)
    World(server).connect(guard).close()
    with pytest.raises(Failure):
        World(None).connect(guard)
    assert told == [("admit",), (7, False, True), ("admit",), (7, True, False)]


def test_join_moves_what_was_read_already(server: FakeServer):
    world = World(server)
    with ScriptedPeer(readable=True) as client:
        client.send(b"early")
        client.channel.fill(5, TIMEOUT)
        link = world.connect()
        joining = gevent.spawn(link.join, client.channel)
        client.send_all(b" and late")
        assert client.read_all() == b""
        assert joining.get(timeout=TIMEOUT) == ""
        link.close()
    assert server.received == [b"early and late"]


def test_silence_ends_it(server: FakeServer):
    world = World(server, tunnel=0.05)
    with ScriptedPeer(readable=True) as client:
        link = world.connect()
        assert link.join(client.channel) == "tunnel_idle"
        link.close()
    assert world.tried == [("s0", "tunnel_idle")]
    assert world.active == 0


def test_resets_are_told_apart():
    def reset(side: ServerSide) -> None:
        side.read(1)
        side.reset()

    server = FakeServer(reset, wait)
    world = World(server)
    with ScriptedPeer(readable=True, tcp=True) as client:
        link = world.connect()
        client.send(b"x")
        assert link.join(client.channel) == "connection_terminated"
        link.close()
    with ScriptedPeer(readable=True, tcp=True) as client:
        link = world.connect()
        client.reset()
        assert link.join(client.channel) == "client_gone"
        link.close()
    wait_until(lambda: not server.open_connections)
    assert server.connections[1].was_reset
    assert world.tried == [("s0", "connection_terminated"), ("s0", "")]
    server.close()
