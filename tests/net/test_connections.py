"""The bound on connections: it holds, it moves, and it is told without being a chatterbox."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from gevent.event import Event
from hypothesis import given
from hypothesis import strategies as st

from sidecar.net.channel import Channel
from sidecar.net.connections import Connections, unread
from tests.support.streams import TIMEOUT, tcp_pair


class Crowd:
    """Connections that stay until the test lets them go."""

    def __init__(self, size: int) -> None:
        self.told: list[bool] = []
        self.pool = Connections(size, self.told.append)
        self._ends: list[tuple[Any, Event]] = []

    def come(self) -> None:
        end = Event()
        self._ends.append((self.pool.spawn(end.wait), end))

    def leave(self) -> None:
        greenlet, end = self._ends.pop(0)
        end.set()
        greenlet.join(TIMEOUT)
        gevent.sleep(0)  # what hangs on a greenlet's end runs after it

    def places(self) -> int:
        """How many may come: the count that stops listeners, and the semaphore that lets greenlets in."""
        assert self.pool.free_count() == self.pool._semaphore.counter
        return self.pool.free_count()

    def end(self) -> None:
        self.pool.kill(timeout=TIMEOUT)


def test_the_bound_is_told_when_it_is_reached_and_when_there_is_room_again() -> None:
    crowd = Crowd(2)
    crowd.come()
    assert crowd.told == []
    crowd.come()
    assert crowd.told == [True]
    crowd.leave()
    assert crowd.told == [True, False]
    crowd.end()


def test_coming_and_going_at_the_bound_is_no_news() -> None:
    crowd = Crowd(20)
    for _ in range(20):
        crowd.come()
    for _ in range(10):
        crowd.leave()
        crowd.come()
    assert crowd.told == [True]
    crowd.leave()
    crowd.leave()
    assert crowd.told == [True, False]
    crowd.end()


def test_a_lower_bound_lets_nobody_in_until_enough_have_left() -> None:
    crowd = Crowd(3)
    for _ in range(3):
        crowd.come()
    crowd.pool.resize(1)
    for _ in range(2):
        assert crowd.pool.full()
        crowd.leave()
    assert crowd.pool.full()
    crowd.leave()
    assert crowd.places() == 1
    crowd.end()


def test_a_higher_bound_tells_those_who_wait() -> None:
    crowd = Crowd(1)
    crowd.come()
    woken: list[object] = []
    crowd.pool._semaphore.rawlink(woken.append)
    crowd.pool.resize(2)
    gevent.sleep(0)
    assert woken
    assert crowd.told == [True, False]
    crowd.end()


def test_the_same_bound_again_changes_nothing() -> None:
    crowd = Crowd(1)
    crowd.come()
    crowd.pool.resize(1)
    assert crowd.pool.full()
    assert crowd.told == [True]
    crowd.end()


#: A reload is rare beside those who come and go, else no state lasts long enough to go wrong.
STEPS: list[str | int] = ["come"] * 4 + ["leave"] * 4 + [1, 2, 5]


@given(st.integers(1, 5), st.lists(st.sampled_from(STEPS), max_size=40))
def test_places_are_what_the_bound_leaves_whatever_came_before(size: int, steps: list[str | int]) -> None:
    crowd = Crowd(size)
    for step in steps:
        if isinstance(step, int):
            size = step
            crowd.pool.resize(size)
        elif step == "come" and not crowd.pool.full():
            crowd.come()
        elif step == "leave" and len(crowd.pool):
            crowd.leave()
        assert crowd.places() == max(0, size - len(crowd.pool))
    assert all(one != other for one, other in zip([False, *crowd.told], crowd.told, strict=False))
    crowd.end()


@pytest.mark.parametrize("size", [1, 2, 9, 10, 1000])
def test_an_empty_pool_always_has_room(size: int) -> None:
    crowd = Crowd(size)
    crowd.pool.resize(1)
    crowd.come()
    crowd.leave()
    assert crowd.told == ([True, False])
    crowd.end()


def test_what_nobody_has_read_yet_is_counted() -> None:
    peer, sock = tcp_pair()
    channel = Channel(sock.detach())
    assert unread(channel) == 0
    peer.sendall(b"hello")
    assert unread(channel) == 5
    channel.read(2, TIMEOUT)
    assert unread(channel) == 0
    channel.close()
    assert unread(channel) == 0
    peer.close()
