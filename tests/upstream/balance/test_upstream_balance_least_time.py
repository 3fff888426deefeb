"""Least time: what is learned from answers, and who is asked for it."""

from __future__ import annotations

import random
from collections import Counter
from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.upstream.balance.least_time import LeastTime, observe
from sidecar.upstream.server import Server
from tests.upstream.balance.fleet import ANY, NOBODY, NOW, fleet, name


def measured(*times: float, weights: tuple[int, ...] = ()) -> list[Server]:
    """Servers whose answers took so long just now; 0 for one that nobody asked yet."""
    servers = fleet(*(weights or [1] * len(times)))
    for server, seconds in zip(servers, times, strict=True):
        if seconds:
            observe(server, seconds, NOW)
    return servers


def chosen(servers: list[Server], now: float = NOW) -> str:
    """The names of all that are chosen in twenty tries."""
    balance = LeastTime(servers, random.Random(5))
    return " ".join(sorted({name(balance.pick(ANY, now, NOBODY)) for _ in range(20)}))


def test_the_first_answer_is_the_time() -> None:
    (server,) = measured(0.2)
    assert (server.state.time, server.state.timed) == (0.2, NOW)


def test_a_peak_counts_at_once_and_in_full() -> None:
    (server,) = measured(0.2)
    observe(server, 3.0, NOW + 0.001)
    assert server.state.time == 3.0


def test_faster_answers_win_it_back_within_ten_seconds_to_a_third() -> None:
    (server,) = measured(1.1)
    observe(server, 0.1, NOW + 10.0)
    assert server.state.time == pytest.approx(0.1 + exp(-1.0))


def test_many_answers_count_no_more_than_few_in_the_same_time() -> None:
    few, many = measured(1.1, 1.1)
    observe(few, 0.1, NOW + 5.0)
    for step in range(1, 501):
        observe(many, 0.1, NOW + step / 100)
    assert few.state.time == pytest.approx(many.state.time)


@given(st.lists(st.tuples(st.floats(0.0, 100.0), st.floats(0.0, 30.0)), min_size=1))
def test_the_time_is_always_between_the_fastest_and_the_slowest(answers: list[tuple[float, float]]) -> None:
    (server,) = fleet(1)
    now, seen = NOW, []
    for seconds, passed in answers:
        now += passed
        seen.append(seconds)
        observe(server, seconds, now)
        assert min(seen) * 0.999999 <= server.state.time <= max(seen) * 1.000001


def test_the_faster_of_two_is_asked() -> None:
    assert chosen(measured(0.1, 0.2)) == "1"
    assert chosen(measured(0.2, 0.1)) == "2"


def test_what_it_has_to_do_counts() -> None:
    servers = measured(0.1, 0.25)
    servers[0].state.active = 1
    assert chosen(servers) == "1"
    servers[0].state.active = 2
    assert chosen(servers) == "2"


def test_the_weight_counts() -> None:
    assert chosen(measured(0.1, 0.25, weights=(1, 3))) == "2"
    assert chosen(measured(0.1, 0.35, weights=(1, 3))) == "1"


def test_of_three_the_slowest_is_left_alone() -> None:
    assert chosen(measured(0.1, 0.1, 0.9)) == "1 2"


def test_a_new_server_is_asked_once_and_then_waited_for() -> None:
    servers = measured(0.001, 0.0)
    assert chosen(servers) == "2"
    servers[1].take(NOW)
    assert chosen(servers) == "1"
    observe(servers[1], 0.5, NOW)
    servers[1].give_back()
    assert chosen(servers) == "1"


def test_new_servers_are_asked_by_what_they_have_to_do() -> None:
    servers = measured(0.0, 0.0)
    balance = LeastTime(servers, random.Random(5))
    for _ in range(20):
        picked = balance.pick(ANY, NOW, NOBODY)
        assert picked is not None
        picked.take(NOW)
    assert [server.state.active for server in servers] == [10, 10]


def test_one_that_was_slow_is_asked_again() -> None:
    """The other stays as fast as it is; what was learned about this one fades while nobody asks it."""
    servers = measured(0.01, 1.0)
    later = NOW + 40.0
    observe(servers[0], 0.01, later)
    assert chosen(servers, later) == "1"
    later = NOW + 50.0
    observe(servers[0], 0.01, later)
    assert chosen(servers, later) == "2"


def test_after_a_long_silence_the_less_busy_is_asked() -> None:
    servers = measured(0.01, 0.02)
    servers[0].state.active = 1
    assert chosen(servers, NOW + 100_000.0) == "2"


def test_a_server_twice_as_fast_gets_more_of_the_requests() -> None:
    """Ten requests at any time; a server takes as long for one as it has requests, times its speed."""
    servers = measured(0.1, 0.2)
    balance = LeastTime(servers, random.Random(5))
    seen: Counter[str] = Counter()
    running: list[tuple[float, int, Server]] = []
    now = NOW
    for number in range(2000):
        if len(running) == 10:
            running.sort(key=lambda one: one[:2])
            now, _, ended = running.pop(0)
            observe(ended, 0.1 if ended is servers[0] else 0.2, now)
            ended.give_back()
        picked = balance.pick(ANY, now, NOBODY)
        assert picked is not None
        picked.take(now)
        seen[picked.name] += 1
        running.append((now + (0.1 if picked is servers[0] else 0.2), number, picked))
    assert 2.5 < seen["1"] / seen["2"] < 6.0
