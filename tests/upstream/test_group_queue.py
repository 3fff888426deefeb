"""The line before a group's servers: in order, bounded, and nobody who leaves it takes room along."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.errors import Failure
from sidecar.message import Request, connection
from sidecar.runtime import FakeClock
from sidecar.upstream.balance.round_robin import RoundRobin
from sidecar.upstream.group import Group, Queue, QueueOptions
from sidecar.upstream.server import Server
from tests.support.streams import TIMEOUT, ScriptedPeer, now, outcome, settle, start, wait_until
from tests.support.upstreams import SOON, ban, group, refusal, request_of, server

pytestmark = pytest.mark.usefixtures("no_leaks")

GET = request_of()


def queued(limit: int = 1, *, room: int = 100, wait: float = 10.0, **more: Any) -> tuple[Group, Server]:
    one = server("a", limit=limit)
    return group([one], options=QueueOptions(queue=room, queue_timeout=wait), **more), one


def test_who_finds_no_room_waits_until_there_is_some() -> None:
    chooser, one = queued()
    chooser.choose(GET, now())
    waiting = start(chooser.choose, GET, now())
    settle()
    assert not waiting.dead
    one.give_back()
    assert outcome(waiting) is one
    assert one.state.active == 1


def test_first_come_first_served() -> None:
    queue = Queue()
    chooser, one = queued(queue=queue)
    chooser.choose(GET, now())
    served: list[int] = []

    def ask(number: int) -> None:
        chooser.choose(GET, now())
        served.append(number)

    asking = [start(ask, number) for number in range(5)]
    settle()
    assert len(queue) == 5
    for count in range(1, 6):
        one.give_back()
        wait_until(lambda count=count: len(served) == count)
    assert served == [0, 1, 2, 3, 4]
    assert (len(queue), one.state.active) == (0, 1)
    for each in asking:
        outcome(each)


def test_who_comes_just_when_there_is_room_overtakes_nobody() -> None:
    """The next request of a quick client must not take the room before the one who waits has woken."""
    queue = Queue()
    chooser, one = queued(queue=queue)
    chooser.choose(GET, now())
    order: list[str] = []

    def wait() -> None:
        chooser.choose(GET, now())
        order.append("first")

    def ask_again() -> None:
        one.give_back()
        chooser.choose(GET, now())
        order.append("second")

    waiting = start(wait)
    settle()
    again = start(ask_again)
    outcome(waiting)
    settle()
    assert (order, len(queue)) == (["first"], 1)
    one.give_back()
    outcome(again)
    assert order == ["first", "second"]


def test_room_that_came_without_the_end_of_an_attempt_goes_to_who_waits_first() -> None:
    clock = FakeClock()
    busy, banned = server("a", limit=1), server("b")
    chooser = group([busy, banned], clock=clock.monotonic)
    ban(banned, clock.now)
    chooser.choose(GET, clock.now)
    first = start(chooser.choose, GET, clock.now)
    settle()
    clock.advance(10.1)
    second = start(chooser.choose, GET, clock.now)
    # The probe after a ban is the first one's, and the second one waits for a place.
    assert outcome(first) is banned
    settle()
    assert not second.dead
    busy.give_back()
    assert outcome(second) is busy


def test_the_line_is_bounded() -> None:
    chooser, one = queued(room=2)
    chooser.choose(GET, now())
    waiting = [start(chooser.choose, GET, now()) for _ in range(2)]
    settle()
    assert refusal(chooser) == ("upstream_overloaded", "the queue is full", True)
    for each in waiting:
        one.give_back()
        outcome(each)


def test_without_a_line_nobody_waits() -> None:
    chooser, _ = queued(room=0)
    chooser.choose(GET, now())
    assert refusal(chooser) == ("upstream_overloaded", "the queue is full", True)


@pytest.mark.parametrize("wait", [0.0, SOON])
def test_who_waits_too_long_leaves_no_trace(wait: float) -> None:
    queue = Queue()
    chooser, one = queued(wait=wait, queue=queue)
    chooser.choose(GET, now())
    assert refusal(chooser) == ("upstream_overloaded", "no server in time", True)
    assert (len(queue), one.state.active) == (0, 1)
    one.give_back()
    assert chooser.choose(GET, now()) is one


def test_who_is_killed_while_waiting_leaves_no_trace() -> None:
    queue = Queue()
    chooser, one = queued(queue=queue)
    chooser.choose(GET, now())
    first, second = (start(chooser.choose, GET, now()) for _ in range(2))
    settle()
    first.kill()
    assert len(queue) == 1
    one.give_back()
    assert outcome(second) is one
    assert one.state.active == 1


def test_who_is_killed_with_the_room_in_hand_passes_it_on() -> None:
    chooser, one = queued()
    chooser.choose(GET, now())
    first, second = (start(chooser.choose, GET, now()) for _ in range(2))
    settle()
    first.kill(block=False)
    one.give_back()
    assert outcome(second) is one
    assert one.state.active == 1


def test_the_last_one_who_is_killed_with_the_room_in_hand_gives_it_back() -> None:
    chooser, one = queued()
    chooser.choose(GET, now())
    waiting = start(chooser.choose, GET, now())
    settle()
    waiting.kill(block=False)
    one.give_back()
    assert one.state.active == 1
    settle()
    assert one.state.active == 0
    assert chooser.choose(GET, now()) is one


def test_who_waits_for_a_server_that_fails_hears_so_at_once() -> None:
    busy, other = server("a", limit=1), server("b", down=True)
    queue = Queue()
    chooser = group([busy, other], queue=queue)
    chooser.choose(GET, now())
    waiting = [start(chooser.choose, GET, now()) for _ in range(3)]
    settle()
    busy.failed(now())
    busy.give_back()
    for each in waiting:
        with pytest.raises(Failure) as caught:
            outcome(each)
        assert caught.value.reason == "no_server"
    assert len(queue) == 0


def test_nobody_waits_for_servers_that_are_banned() -> None:
    busy, banned = server("a", limit=1), server("b", limit=1)
    chooser = group([busy, banned])
    moment = now()
    chooser.choose(GET, moment)
    ban(banned, moment)
    ban(busy, moment)
    assert refusal(chooser, moment)[0] == "no_server"


def test_who_waits_gets_a_server_that_is_new() -> None:
    chooser, one = queued()
    chooser.choose(GET, now())
    waiting = start(chooser.choose, GET, now())
    settle()
    new = server("b", limit=1)
    chooser.replace([one, new], RoundRobin)
    assert outcome(waiting) is new
    assert (one.state.active, new.state.active) == (1, 1)


def test_a_queue_that_is_closed_lets_all_go() -> None:
    queue = Queue()
    chooser, one = queued(queue=queue)
    chooser.choose(GET, now())
    waiting = [start(chooser.choose, GET, now()) for _ in range(3)]
    settle()
    queue.close()
    for each in waiting:
        with pytest.raises(Failure) as caught:
            outcome(each)
        assert caught.value.reason == "upstream_overloaded"
    assert (len(queue), one.state.active) == (0, 1)


def test_generations_stand_in_one_line() -> None:
    """The old one's limit still counts for its requests; those of the new one pass where they may."""
    queue = Queue()
    old, one = queued(queue=queue)
    old.choose(GET, now())
    waiting = start(old.choose, GET, now())
    settle()
    new_one = server("a", limit=2, state=one.state)
    new = group([new_one], queue=queue)
    assert new.choose(GET, now()) is new_one
    assert len(queue) == 1
    new_one.give_back()
    settle()
    assert not waiting.dead
    one.give_back()
    assert outcome(waiting) is one


# -- clients that give up


def client_of(peer: ScriptedPeer) -> Request:
    request = request_of()
    request.client_channel = peer.channel
    return request


def left(greenlet: Any) -> str:
    with pytest.raises(Failure) as caught:
        outcome(greenlet)
    return caught.value.reason


@pytest.mark.parametrize("how", [ScriptedPeer.finish, ScriptedPeer.reset])
def test_a_client_that_leaves_gives_its_place_back_at_once(how: Callable[[ScriptedPeer], None]) -> None:
    queue = Queue()
    chooser, one = queued(room=2, queue=queue)
    chooser.choose(GET, now())
    with ScriptedPeer() as gone, ScriptedPeer() as stays:
        first = start(chooser.choose, client_of(gone), now())
        second = start(chooser.choose, client_of(stays), now())
        settle()
        how(gone)
        assert left(first) == "client_gone"
        assert (len(queue), one.state.active) == (1, 1)
        # There is room in the line again, and the next turn is the other one's.
        third = start(chooser.choose, GET, now())
        settle()
        assert len(queue) == 2
        one.give_back()
        assert outcome(second) is one
        assert not third.dead
        one.give_back()
        assert outcome(third) is one
        assert stays.channel.parked is None


def test_a_client_that_has_left_already_does_not_wait() -> None:
    queue = Queue()
    chooser, one = queued(queue=queue)
    chooser.choose(GET, now())
    with ScriptedPeer() as gone:
        gone.channel.park(lambda channel: None, 0.0)
        gone.finish()
        wait_until(lambda: gone.channel.peer_finished)
        gone.channel.unpark()
        assert left(start(chooser.choose, client_of(gone), now())) == "client_gone"
        gone.channel.close()
        assert left(start(chooser.choose, client_of(gone), now())) == "client_gone"
    assert (len(queue), one.state.active) == (0, 1)


def test_a_client_that_sends_more_stays_in_the_line_and_nothing_of_it_is_lost() -> None:
    chooser, one = queued()
    chooser.choose(GET, now())
    with ScriptedPeer() as peer:
        waiting = start(chooser.choose, client_of(peer), now())
        settle()
        peer.send(b"next")
        settle()
        assert not waiting.dead
        one.give_back()
        assert outcome(waiting) is one
        assert peer.channel.read(4, TIMEOUT) == b"next"


def test_who_leaves_with_the_room_in_hand_has_it_until_it_is_given_back() -> None:
    """The caller sees that nobody is there; here it must only not be lost."""
    chooser, one = queued()
    chooser.choose(GET, now())
    with ScriptedPeer() as peer:
        waiting = start(chooser.choose, client_of(peer), now())
        settle()
        peer.finish()
        one.give_back()
        assert outcome(waiting) is one
        assert one.state.active == 1


def test_who_is_killed_while_waiting_leaves_its_client_alone() -> None:
    queue = Queue()
    chooser, _ = queued(queue=queue)
    chooser.choose(GET, now())
    with ScriptedPeer() as peer:
        waiting = start(chooser.choose, client_of(peer), now())
        settle()
        waiting.kill()
        assert (len(queue), peer.channel.parked) == (0, None)


def test_a_tcp_client_may_end_its_side_and_wait() -> None:
    chooser, one = queued()
    chooser.choose(GET, now())
    with ScriptedPeer() as peer:
        request = connection("192.0.2.7", "edge")
        request.client_channel = peer.channel
        waiting = start(chooser.choose, request, now())
        settle()
        peer.finish()
        settle()
        assert not waiting.dead
        one.give_back()
        assert outcome(waiting) is one


def test_a_request_waits_no_longer_than_it_may_itself() -> None:
    queue = Queue()
    chooser, one = queued(queue=queue)
    chooser.choose(GET, now())
    with pytest.raises(Failure, match="upstream_overloaded: no server in time"):
        chooser.choose(GET, now(), SOON)
    assert (len(queue), one.state.active) == (0, 1)


@settings(max_examples=50)
@given(st.lists(st.sampled_from(["ask", "end", "kill"]), max_size=40), st.integers(1, 3))
def test_whatever_happens_no_room_is_lost_and_none_is_given_twice(steps: list[str], limit: int) -> None:
    queue = Queue()
    chooser, one = queued(limit, queue=queue)
    served: list[int] = []
    waiting: dict[int, Any] = {}

    def ask(number: int) -> None:
        chooser.choose(GET, now())
        served.append(number)
        del waiting[number]

    held = 0
    for number, step in enumerate(steps):
        if step == "ask":
            waiting[number] = start(ask, number)
        elif step == "end" and len(served) > held:
            held += 1
            one.give_back()
        elif step == "kill" and waiting:
            waiting.pop(next(iter(waiting))).kill(block=False)
        if number % 3:
            settle()
    settle()
    assert one.state.active == len(served) - held == min(limit, len(served) - held + len(waiting))
    assert len(queue) == len(waiting)
    assert served == sorted(served)
    for each in list(waiting.values()):
        each.kill()
    assert len(queue) == 0
