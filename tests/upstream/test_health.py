"""Active checks: options, transitions of a server, the rhythm of probes, and what reloads do to all that."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from gevent.event import Event
from gevent.queue import Queue

from sidecar.config.addresses import Address
from sidecar.errors import Failure
from sidecar.kept import Kept
from sidecar.net.channel import Channel
from sidecar.net.dial import dial, numeric_target
from sidecar.runtime import FakeClock, Random, SystemClock, Tasks, World
from sidecar.upstream.health import Checker, Subject, new_state
from sidecar.upstream.health_check import Check, HealthOptions, Statuses
from sidecar.upstream.probe import Finding
from sidecar.upstream.server import State
from tests.support.streams import TIMEOUT, FakeServer, Script, ServerSide, settle, wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")

HERE = Address("127.0.0.1", 8001)
GET = Check("GET", "/healthz")
TCP = Check()
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BAD = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("check", "start", "usable"),
    [(None, "pending", True), (GET, "up", True), (GET, "pending", False)],
)
def test_a_new_server_is_used_as_configured(check: Check | None, start: str, usable: bool) -> None:
    assert new_state(HealthOptions(health_check=check, health_start=start)).healthy is usable


# Checkers that a test steps through -------------------------------------------------------------------------


class Stepped:
    """A checker whose probes find what the test says, one at a time. No socket, no time."""

    def __init__(self, state: State | None = None, **settings: Any) -> None:
        self.options = HealthOptions(**{"health_check": TCP} | settings)
        self.state = state or new_state(self.options)
        self.clock = FakeClock()
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.died: list[BaseException] = []
        self.pauses: list[float] = []
        self.took = 0.0  # how long a probe takes
        self._findings: Queue = Queue()
        self._next = Event()
        self.tasks = Tasks(lambda _, error: self.died.append(error))
        self.checker = self.made()

    def made(self, **changes: Any) -> Checker:
        options = HealthOptions(**{"health_check": TCP} | changes) if changes else self.options
        world = World(self.tasks, self.clock, Random(1), self._event, self._pause)
        return Checker(Subject("app", str(HERE), HERE, self.state, self._connect, self._left), options, world)

    def _event(self, name: str, /, **fields: Any) -> None:
        self.told.append((name, fields))

    def _left(self) -> int:
        return 2 + self.state.healthy

    def _connect(self, timeout: float) -> Channel:
        reason = self._findings.get()
        self.clock.advance(self.took)
        if reason:
            raise Failure(reason, "why")
        channel: Channel = _Unused()  # type: ignore[assignment]
        return channel

    def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.clock.advance(seconds)
        self._next.set()

    def probe(self, *reasons: str) -> None:
        """Let so many probes happen; an empty reason is a good one."""
        for reason in reasons:
            self._next.clear()
            self._findings.put(reason)
            assert self._next.wait(TIMEOUT)

    def close(self) -> None:
        self.checker.close()
        self.tasks.stop()
        assert self.died == []


class _Unused:
    """A connection that a TCP check closes at once."""

    def close(self) -> None:
        """Nothing is held."""


@contextmanager
def stepped(state: State | None = None, **settings: Any) -> Iterator[Stepped]:
    it = Stepped(state, **settings)
    it.checker.start()
    try:
        yield it
    finally:
        it.close()


DOWN = "connection_refused"


def test_a_server_goes_down_after_fall_failures_in_a_row_and_this_is_told_once() -> None:
    with stepped() as it:
        it.probe("", DOWN, DOWN, "", DOWN, DOWN)
        assert it.state.healthy
        assert it.told == []
        it.probe(DOWN)
        assert not it.state.healthy
        it.probe(DOWN, DOWN, DOWN, DOWN)
        assert it.told == [
            (
                "server_down",
                {
                    "upstream": "app",
                    "server": "127.0.0.1:8001",
                    "reason": "connection_refused",
                    "detail": "why",
                    "left": 2,
                },
            )
        ]
        assert (it.checker.probes, it.checker.failures) == (11, 9)
        assert it.checker.finding == Finding(DOWN, "why")


def test_a_server_comes_back_after_rise_good_probes_in_a_row() -> None:
    with stepped(health_fall=1, health_rise=3) as it:
        it.probe(DOWN, "", "", DOWN, "", "")
        assert not it.state.healthy
        assert it.state.recovered == 0
        it.probe("")
        assert it.state.healthy
        assert it.state.recovered == pytest.approx(it.clock.now - it.pauses[-1])
        assert it.checker.finding == Finding()
        assert it.told[1:] == [("server_up", {"upstream": "app", "server": "127.0.0.1:8001", "left": 3})]


def test_a_pending_server_is_used_after_its_first_good_probe() -> None:
    with stepped(health_start="pending", health_rise=5) as it:
        assert not it.state.healthy
        it.probe("")
        assert it.state.healthy
        assert [name for name, _ in it.told] == ["server_up"]
        it.probe(DOWN, DOWN, DOWN, "")
        assert not it.state.healthy, "the second time takes as many as configured"


def test_why_a_pending_server_stays_out_is_told_once() -> None:
    with stepped(health_start="pending") as it:
        it.probe(DOWN, DOWN, DOWN, DOWN)
        assert [(name, fields["reason"]) for name, fields in it.told] == [("server_down", DOWN)]
        it.probe("")
        assert it.state.healthy
        assert [name for name, _ in it.told] == ["server_down", "server_up"]


def test_a_probe_that_this_process_cannot_make_says_nothing() -> None:
    with stepped(health_fall=2) as it:
        it.probe(DOWN, "descriptors_exhausted", "descriptors_exhausted")
        assert it.state.healthy
        assert it.checker.probes == 1
        it.probe(DOWN)
        assert not it.state.healthy


# The rhythm -------------------------------------------------------------------------------------------------


def test_the_first_probe_comes_at_once_and_the_second_at_any_time() -> None:
    firsts = []
    for seed in range(20):
        with stepped() as it:
            it.checker._world.random.seed(seed)
            it.probe("")
            assert it.clock.now == 1000.0 + it.pauses[0]
            firsts += it.pauses
    assert all(0.5 <= pause <= 5.0 for pause in firsts)
    assert max(firsts) - min(firsts) > 3.0


def test_probes_come_every_interval_more_or_less() -> None:
    with stepped(health_interval=10.0) as it:
        it.probe(*[""] * 50)
        assert all(9.0 <= pause <= 11.0 for pause in it.pauses[1:])
        assert max(it.pauses[1:]) - min(it.pauses[1:]) > 1.5


def test_the_interval_counts_from_the_beginning_of_a_probe() -> None:
    with stepped() as it:
        it.took = 2.0
        it.probe(*[""] * 20)
        assert all(2.5 <= pause <= 3.5 for pause in it.pauses[1:])
        it.took = 9.0
        it.probe("")
        assert it.pauses[-1] == 0.0


def test_probes_are_fast_while_the_verdict_is_open() -> None:
    with stepped(health_interval=100.0, health_timeout=1.0) as it:
        it.probe("", "", DOWN, DOWN, DOWN, DOWN, "", "", "")
        slow = [pause > 10 for pause in it.pauses]
        assert slow == [True, True, False, False, True, True, False, True, True]


def test_probes_are_fast_while_a_server_is_pending() -> None:
    with stepped(health_start="pending", health_interval=100.0) as it:
        it.probe(DOWN, DOWN, "", "")
        assert [pause > 10 for pause in it.pauses] == [False, False, True, True]


def test_fast_is_never_slower_than_usual() -> None:
    with stepped(health_interval=0.2) as it:
        it.probe(DOWN, DOWN)
        assert max(it.pauses) <= 0.22


# Reloads ----------------------------------------------------------------------------------------------------


def reload(kept: Kept, key: object, make: Callable[[], Checker] | None) -> None:
    """A new generation, which has a check or not."""
    kept.begin()
    checker = kept.claim(("check", key), make) if make else None
    kept.sweep()
    if checker is not None:
        checker.start()


def test_with_the_same_settings_history_survives() -> None:
    with stepped() as it:
        kept = Kept()
        reload(kept, 1, lambda: it.checker)
        it.probe(DOWN, DOWN)
        reload(kept, 1, lambda: it.made())
        it.probe(DOWN)
        assert not it.state.healthy


def test_a_server_that_is_not_checked_any_more_is_usable() -> None:
    with stepped(health_fall=1) as it:
        kept = Kept()
        reload(kept, 1, lambda: it.checker)
        it.probe(DOWN)
        assert not it.state.healthy
        reload(kept, 1, None)
        assert it.state.healthy
        assert it.state.recovered == it.clock.now
        settle()
        assert len(it.tasks._group) == 0


def test_with_other_settings_a_server_that_is_down_stays_down_until_it_is_found_well() -> None:
    with stepped(health_fall=1) as it:
        kept = Kept()
        reload(kept, 1, lambda: it.checker)
        it.probe(DOWN)
        fresh = it.made(health_interval=9.0)
        reload(kept, 2, lambda: fresh)
        settle()
        assert not it.state.healthy
        assert fresh.probes == 0
        it.probe("")
        assert it.state.healthy
        fresh.close()


def test_with_other_settings_a_server_that_is_up_does_not_become_pending() -> None:
    with stepped() as it:
        kept = Kept()
        reload(kept, 1, lambda: it.checker)
        it.probe("")
        fresh = it.made(health_start="pending")
        reload(kept, 2, lambda: fresh)
        assert it.state.healthy
        fresh.close()


def test_a_reload_that_fails_changes_nothing() -> None:
    with stepped(health_fall=1) as it:
        kept = Kept()
        reload(kept, 1, lambda: it.checker)
        it.probe(DOWN)
        kept.begin()
        fresh = kept.claim(("check", 2), lambda: it.made(health_interval=9.0))
        kept.abandon()
        assert not it.state.healthy
        fresh.start()
        settle()
        assert len(it.tasks._group) == 1, "what was closed cannot be started"
        it.probe("", "")
        assert it.state.healthy


def test_to_start_twice_is_to_start_once() -> None:
    with stepped() as it:
        it.checker.start()
        assert len(it.tasks._group) == 1


# Real servers -----------------------------------------------------------------------------------------------


class Live:
    """A checker that probes a real server as fast as it can."""

    def __init__(self, server: FakeServer, named: Address | None = None, **settings: Any) -> None:
        self.options = HealthOptions(
            **{"health_check": GET, "health_timeout": TIMEOUT, "health_fall": 1, "health_rise": 1} | settings
        )
        target = numeric_target(server.address)
        assert target is not None
        self.state = new_state(self.options)
        self.told: list[tuple[str, str]] = []
        self.died: list[BaseException] = []
        self.tasks = Tasks(lambda _, error: self.died.append(error))
        self.go: Queue = Queue()
        subject = Subject(
            "app",
            "a name for the log",
            named or server.address,
            self.state,
            lambda timeout: dial([target], timeout),
            lambda: 0,
        )
        world = World(self.tasks, SystemClock(), Random(1), self._event, lambda _: self.go.get())
        self.checker = Checker(subject, self.options, world)
        self.checker.start()

    def _event(self, name: str, /, **fields: Any) -> None:
        self.told.append((name, fields.get("reason", "")))

    def wait(self, probes: int) -> None:
        """Until there were so many."""
        wait_until(lambda: self.checker.probes >= probes)


@contextmanager
def live(
    *scripts: Script, named: Address | None = None, **settings: Any
) -> Iterator[tuple[Live, FakeServer]]:
    server = FakeServer(*scripts)
    it = Live(server, named, **settings)
    try:
        yield it, server
    finally:
        it.checker.close()
        it.tasks.stop()
        server.close()
        assert it.died == []


def test_a_server_that_fails_and_recovers_is_seen_to() -> None:
    with live([OK], [BAD], [OK]) as (it, server):
        it.wait(1)
        assert it.state.healthy
        it.go.put(True)
        it.wait(2)
        assert not it.state.healthy
        it.go.put(True)
        it.wait(3)
        assert it.state.healthy
        assert it.told == [("server_down", "status"), ("server_up", "")]
        wait_until(lambda: not server.open_connections)
        assert time.monotonic() - TIMEOUT < it.checker.probed <= time.monotonic()


def test_a_server_that_dies_is_seen_to() -> None:
    with live([OK], health_check=TCP) as (it, server):
        it.wait(1)
        server.close()
        it.go.put(True)
        it.wait(2)
        assert it.told == [("server_down", "connection_refused")]


@pytest.mark.parametrize(
    ("settings", "named", "host"),
    [
        ({}, Address("app.example", 8001), b"app.example:8001"),
        ({}, Address("2001:db8::7", 80), b"[2001:db8::7]:80"),
        ({}, Address(path="/run/app.sock"), b"localhost"),
        ({"health_host": "status.example"}, HERE, b"status.example"),
    ],
)
def test_the_host_is_that_of_the_server_or_the_configured_one(
    settings: dict[str, Any], named: Address, host: bytes
) -> None:
    with live([OK], named=named, **settings) as (it, server):
        it.wait(1)
        assert b"\r\nHost: " + host + b"\r\n" in server.received[0]


def test_body_and_statuses_are_judged_as_configured() -> None:
    expect = (Statuses(503, 503),)
    with live([BAD], [OK], health_expect=expect) as (it, _):
        it.wait(1)
        assert it.state.healthy
        it.go.put(True)
        it.wait(2)
        assert it.told == [("server_down", "status")]
    with live([OK], [OK.replace(b"ok", b"no")], health_body="ok") as (it, _):
        it.wait(1)
        assert it.state.healthy
        it.go.put(True)
        it.wait(2)
        assert it.told == [("server_down", "body")]


def test_closing_cancels_a_probe_and_its_connection() -> None:
    def hang(side: ServerSide) -> None:
        side.read_request()
        side.read_all()

    with live(hang) as (it, server):
        wait_until(lambda: server.connections and server.received[0])
        it.checker.close()
        wait_until(lambda: not server.open_connections)
        assert it.state.healthy
        assert it.told == []
        assert it.checker.probes == 0


def test_what_a_probe_finds_as_its_checker_is_closed_changes_nothing() -> None:
    with stepped(health_fall=1) as it:
        settle()
        # The probe is due to go on before the kill reaches it.
        it._findings.put(DOWN)
        it.checker.close()
        settle()
        assert it.state.healthy
        assert it.told == []
        assert it.checker.probes == 0
