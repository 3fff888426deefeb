"""Who gets an attempt, and who waits for one: backups, the queue, retries within their budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from sidecar.runtime import FakeClock
from sidecar.upstream.balance.least_connections import LeastConnections
from sidecar.upstream.server import Server
from sidecar.upstream.sticky import Sticky
from tests.support.upstreams import ban, group, refusal, request_of, server

pytestmark = pytest.mark.usefixtures("no_leaks")

GET = request_of()


# -- choosing


def test_a_server_that_is_chosen_is_taken() -> None:
    one, other = server("a"), server("b")
    chooser = group([one, other])
    assert [chooser.choose(GET, 1.0).name for _ in range(4)] == ["a", "b", "a", "b"]
    assert (one.state.active, other.state.active, chooser.active()) == (2, 2, 4)


def test_a_single_server_is_never_banned() -> None:
    clock = FakeClock()
    one = server(max_fails=1)
    chooser = group([one], clock=clock.monotonic)
    for _ in range(50):
        assert chooser.choose(GET, clock.now) is one
        one.failed(clock.now)
        one.give_back()


def test_a_single_server_that_may_not_be_asked_is_no_server() -> None:
    for change in ({"down": True}, {"health": False}):
        one = server(down=change.get("down", False))
        one.state.healthy = change.get("health", True)
        assert refusal(group([one])) == ("no_server", "all are down or banned", True)
        assert one.state.active == 0


def test_one_of_two_is_banned_though_it_is_the_last_one_that_works() -> None:
    """nginx has no quick recovery: when all are banned the answer is an error until the first ban is over."""
    clock = FakeClock()
    servers = [server("a"), server("b")]
    chooser = group(servers, clock=clock.monotonic)
    for one in servers:
        ban(one, clock.now)
    assert refusal(chooser, clock.now)[0] == "no_server"
    clock.advance(10.1)
    assert {chooser.choose(GET, clock.now).name for _ in range(2)} == {"a", "b"}


def test_backups_are_asked_when_no_other_can_be_and_not_longer() -> None:
    clock = FakeClock()
    first, second = server("a"), server("b")
    backups = [server("c", backup=True), server("d", backup=True)]
    chooser = group([first, backups[0], second, backups[1]], clock=clock.monotonic)
    assert {chooser.choose(GET, clock.now).name for _ in range(8)} == {"a", "b"}
    ban(first, clock.now)
    assert {chooser.choose(GET, clock.now).name for _ in range(8)} == {"b"}
    ban(second, clock.now)
    assert [chooser.choose(GET, clock.now).name for _ in range(4)] == ["c", "d", "c", "d"]
    for one in backups:
        ban(one, clock.now)
    assert refusal(chooser, clock.now)[0] == "no_server"
    clock.advance(10.1)
    assert {chooser.choose(GET, clock.now).name for _ in range(2)} == {"a", "b"}


def test_a_backup_also_relieves_servers_that_are_merely_busy() -> None:
    busy, backup = server("a", limit=1), server("b", backup=True)
    chooser = group([busy, backup])
    assert [chooser.choose(GET, 1.0).name for _ in range(3)] == ["a", "b", "b"]


def test_one_server_and_a_backup_are_two() -> None:
    primary, backup = server("a"), server("b", backup=True)
    chooser = group([primary, backup])
    ban(primary, 1.0)
    assert chooser.choose(GET, 1.0) is backup


def test_without_any_address_the_names_are_to_blame() -> None:
    chooser = group([])
    chooser.unknown = "app.example:80: no answer"
    assert refusal(chooser) == ("dns_error", "app.example:80: no answer", True)


def test_the_servers_may_be_replaced_while_it_serves() -> None:
    chooser = group([server("a")])
    chooser.choose(GET, 1.0)
    chooser.replace([server("b"), server("c")], LeastConnections)
    assert {chooser.choose(GET, 1.0).name for _ in range(2)} == {"b", "c"}
    assert chooser.active() == 2


def test_who_may_bring_back_a_server_is_asked_when_none_is_usable() -> None:
    one, other = server("a"), server("b")
    asked: list[float] = []

    def relent(moment: float) -> bool:
        asked.append(moment)
        one.state.ejected_until = 0.0
        return True

    chooser = group([one, other], relent=relent, clock=lambda: 7.0)
    assert chooser.choose(GET, 7.0) is one
    assert asked == []
    one.state.ejected_until = other.state.ejected_until = 99.0
    assert chooser.choose(GET, 7.0) is one
    assert asked == [7.0]


def test_every_server_tells_the_observer() -> None:
    heard: list[str] = []
    servers = [server("a"), server("b")]
    group(servers, observer=lambda who, failed, seconds: heard.append(who.name))
    for one in servers:
        one.succeeded(1.0, 200, 0.1)
    assert heard == ["a", "b"]


# -- sticky clients


def stays(servers: Sequence[Server]) -> Sticky:
    return Sticky("id", b"key", "app", servers)


def with_cookie(sticky: Sticky, one: Server) -> Any:
    line = sticky._lines[one].removeprefix(b"Set-Cookie: ").partition(b";")[0]
    return request_of(b"GET / HTTP/1.1\r\nHost: x\r\nCookie: %b\r\n\r\n" % line)


def test_a_client_stays_until_its_server_cannot_be_asked() -> None:
    servers = [server("a"), server("b"), server("c")]
    sticky = stays(servers)
    chooser = group(servers, sticky=sticky)
    asking = with_cookie(sticky, servers[1])
    assert {chooser.choose(asking, 1.0).name for _ in range(5)} == {"b"}
    ban(servers[1], 1.0)
    assert {chooser.choose(asking, 1.0).name for _ in range(5)} == {"a", "c"}


def test_another_attempt_does_not_stay() -> None:
    servers = [server("a"), server("b")]
    sticky = stays(servers)
    chooser = group(servers, sticky=sticky)
    other = chooser.choose_other(with_cookie(sticky, servers[0]), 1.0, [servers[0]])
    assert other is servers[1]


# -- one more attempt


def test_each_attempt_is_at_another_server() -> None:
    servers = [server(name) for name in "abc"]
    chooser = group(servers)
    tried = [chooser.choose(GET, 1.0)]
    while (following := chooser.choose_other(GET, 1.0, tried)) is not None:
        tried.append(following)
        chooser.retried()
    assert sorted(one.name for one in tried) == ["a", "b", "c"]
    assert [one.state.active for one in servers] == [1, 1, 1]


def test_a_single_server_is_not_asked_again() -> None:
    one = server()
    assert group([one]).choose_other(GET, 1.0, [one]) is None
    assert one.state.active == 0


def test_another_attempt_may_be_a_backups_and_never_waits() -> None:
    first, second, backup = server("a"), server("b", limit=1), server("c", backup=True, limit=1)
    chooser = group([first, second, backup])
    assert chooser.choose_other(GET, 1.0, [first]) is second
    assert chooser.choose_other(GET, 1.0, [first]) is backup
    assert chooser.choose_other(GET, 1.0, [first]) is None


def test_a_budget_bounds_the_attempts_at_others() -> None:
    """Three are always allowed, then a share of the requests in progress."""
    one, other = server("a"), server("b")
    chooser = group([one, other], budget=20)
    assert [chooser.choose_other(GET, 1.0, [one]) is other for _ in range(4)] == [True] * 3 + [False]
    chooser.retried()
    assert chooser.choose_other(GET, 1.0, [one]) is other
    for _ in range(40):
        one.take(1.0)
    assert chooser.choose_other(GET, 1.0, [one]) is other


def test_an_attempt_that_nobody_could_make_costs_no_budget() -> None:
    one, other = server("a"), server("b", down=True)
    chooser = group([one, other], budget=0)
    assert [chooser.choose_other(GET, 1.0, [one]) for _ in range(10)] == [None] * 10
    other.down = False
    assert chooser.choose_other(GET, 1.0, [one]) is other
