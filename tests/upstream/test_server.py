"""Servers as nginx counts them: failures, their window, the ban, the probe after it, and the load."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.runtime import FakeClock
from sidecar.upstream.balance.base import ramp
from sidecar.upstream.server import Server, State
from tests.support.upstreams import group, request_of, server

pytestmark = pytest.mark.usefixtures("no_leaks")

GET = request_of()


class Life:
    """A server and the time; each step is one attempt or a question."""

    def __init__(self, **changes: Any) -> None:
        self.clock = FakeClock()
        self.server = server(**changes)

    @property
    def is_usable(self) -> bool:
        return self.server.is_usable(self.clock.now)

    def fail(self, count: int = 1) -> None:
        for _ in range(count):
            self.server.take(self.clock.now)
            self.server.failed(self.clock.now)
            self.server.give_back()

    def succeed(self, status: int = 200) -> None:
        self.server.take(self.clock.now)
        self.server.succeeded(self.clock.now, status, 0.1)
        self.server.give_back()


# -- passive health


def test_by_default_one_failure_bans_for_ten_seconds() -> None:
    life = Life()
    assert life.is_usable
    life.fail()
    assert not life.is_usable
    life.clock.advance(10.0)
    assert not life.is_usable
    life.clock.advance(0.1)
    assert life.is_usable


def test_it_takes_as_many_failures_as_configured() -> None:
    life = Life(max_fails=3, fail_timeout=30.0)
    life.fail(2)
    assert life.is_usable
    life.fail()
    assert not life.is_usable
    life.clock.advance(30.1)
    assert life.is_usable


def test_zero_failures_never_ban() -> None:
    life = Life(max_fails=0)
    life.fail(100)
    assert life.is_usable
    assert life.server.effective == 1


def test_a_success_inside_the_window_forgets_nothing() -> None:
    life = Life(max_fails=2)
    life.fail()
    life.clock.advance(9.0)
    life.succeed()
    assert life.server.state.fails == 1
    life.fail()
    assert not life.is_usable


def test_a_success_after_the_window_forgets_all() -> None:
    life = Life(max_fails=2)
    life.fail()
    life.clock.advance(10.1)
    life.succeed()
    assert life.server.state.fails == 0
    life.fail()
    assert life.is_usable


def test_each_failure_begins_the_window_anew() -> None:
    life = Life(max_fails=3)
    life.fail()
    life.clock.advance(9.0)
    life.fail()
    life.clock.advance(9.0)
    life.fail()
    assert not life.is_usable
    life.clock.advance(9.0)
    assert not life.is_usable


def test_after_a_ban_one_request_tries_and_the_others_wait_for_its_result() -> None:
    life = Life()
    life.fail()
    life.clock.advance(10.1)
    life.server.take(life.clock.now)
    assert not life.is_usable
    life.server.succeeded(life.clock.now, 200, 0.1)
    life.server.give_back()
    assert life.is_usable
    assert life.server.state.fails == 0


def test_a_slow_start_begins_when_a_ban_is_over() -> None:
    """The server was away, its caches are cold: it comes back little by little, as after failed checks."""
    life = Life(max_fails=2, slow_start=10.0)
    life.fail(2)
    life.clock.advance(10.1)
    assert life.server.state.recovered == 0
    life.succeed()
    assert life.server.state.recovered == life.clock.now
    assert ramp(life.server, life.clock.now + 5.0) == 50


@pytest.mark.parametrize("max_fails", [0, 3])
def test_who_was_not_banned_has_nothing_to_recover_from(max_fails: int) -> None:
    life = Life(max_fails=max_fails, slow_start=10.0)
    life.fail(2)
    life.clock.advance(10.1)
    life.succeed()
    assert (life.server.state.fails, life.server.state.recovered) == (0, 0)


def test_a_probe_that_fails_bans_again_at_once() -> None:
    life = Life(max_fails=2)
    life.fail(2)
    life.clock.advance(10.1)
    life.fail()
    assert not life.is_usable
    assert life.server.state.fails == 3
    life.clock.advance(10.1)
    assert life.is_usable


def test_a_probe_that_takes_long_is_followed_by_one_per_window() -> None:
    life = Life()
    life.fail()
    for _ in range(5):
        life.clock.advance(10.1)
        assert life.is_usable
        life.server.take(life.clock.now)
        assert not life.is_usable
    assert life.server.state.active == 5


def test_the_verified_exercise_of_nginx() -> None:
    """max_fails=2 fail_timeout=3s: the dead one is tried on its first and second turn, then once per ban."""
    clock = FakeClock()
    dead, alive = (server(name, max_fails=2, fail_timeout=3.0) for name in ("dead", "alive"))
    chooser = group([dead, alive], clock=clock.monotonic)
    asked: list[str] = []

    def ask() -> None:
        one = chooser.choose(GET, clock.now)
        asked.append(one.name)
        if one is dead:
            one.failed(clock.now)
            one.give_back()
            following = chooser.choose_other(GET, clock.now, [one])
            assert following is alive
            one = following
        one.succeeded(clock.now, 200, 0.1)
        one.give_back()

    for _ in range(20):
        ask()
    assert [at for at, name in enumerate(asked, 1) if name == "dead"] == [1, 3]
    for _ in range(3):
        clock.advance(3.1)
        asked.clear()
        for _ in range(10):
            ask()
        assert asked.count("dead") == 1


def test_failures_take_from_the_weight_and_turns_give_it_back() -> None:
    heavy = server("heavy", weight=9, max_fails=3)
    other = server("other")
    chooser = group([heavy, other])
    heavy.failed(1.0)
    heavy.failed(1.0)
    assert heavy.effective == 3
    for _ in range(6):
        chooser.pick(GET, 1.0, ())
    assert heavy.effective == 9
    for _ in range(5):
        heavy.failed(1.0)
    assert heavy.effective == 0


# -- other reasons not to be asked


def test_a_server_that_is_down_or_unhealthy_or_ejected_is_not_fit() -> None:
    one = server(down=True)
    assert not one.is_fit(1.0)
    one.down = False
    one.state.healthy = False
    assert not one.is_fit(1.0)
    one.state.healthy = True
    one.state.ejected_until = 5.0
    assert not one.is_fit(4.9)
    assert one.is_fit(5.0)


def test_a_server_at_its_limit_is_fit_but_has_no_room() -> None:
    one = server(limit=2)
    one.take(1.0)
    assert (one.has_room(), one.is_usable(1.0)) == (True, True)
    one.take(1.0)
    assert (one.has_room(), one.is_usable(1.0), one.is_fit(1.0)) == (False, False, True)
    one.give_back()
    assert one.is_usable(1.0)


def test_without_a_limit_there_is_always_room() -> None:
    one = server()
    for _ in range(1000):
        one.take(1.0)
    assert one.has_room()


# -- what is shared


def test_generations_share_what_was_learned_and_the_load() -> None:
    state = State()
    old, new = server(state=state), server(state=state, max_fails=2, limit=2)
    old.take(5.0)
    old.failed(5.0)
    assert new.is_usable(5.0)
    new.take(5.0)
    assert not new.has_room()
    old.give_back()
    assert new.has_room()
    new.failed(5.0)
    assert new.is_banned(5.0)


def test_who_waits_for_room_is_told_when_there_is_some() -> None:
    told: list[int] = []
    one = server()
    one.on_free = lambda: told.append(one.state.active)
    one.take(1.0)
    one.give_back()
    assert told == [0]


def test_an_observer_hears_how_each_attempt_went() -> None:
    heard: list[tuple[str, bool | None, float]] = []

    def observe(who: Server, failed: bool | None, seconds: float) -> None:
        heard.append((who.name, failed, seconds))

    one = server("one", observer=observe)
    one.succeeded(1.0, 200, 0.1)
    one.succeeded(1.0, 404, 0.2)
    one.succeeded(1.0, 500, 0.3)
    one.failed(1.0)
    one.failed(1.0, 0.4)
    assert heard == [
        ("one", False, 0.1),
        ("one", False, 0.2),
        ("one", True, 0.3),
        ("one", True, 0.0),
        ("one", True, 0.4),
    ]


def test_a_status_alone_counts_no_failure() -> None:
    life = Life()
    life.succeed(503)
    assert life.server.state.fails == 0
    assert life.is_usable


def test_what_is_known_of_a_server_holds_nothing() -> None:
    State().close()
