"""What is kept of servers by address: a new generation finds it again, and what is gone is closed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sidecar.config.addresses import Address
from sidecar.upstream.pool import ServerPool
from sidecar.upstream.roster import Check, Member, Roster
from sidecar.upstream.server import State
from tests.support.streams import TIMEOUT, FakeServer, outcome, settle, start, wait_until
from tests.support.upstreams import OK

pytestmark = pytest.mark.usefixtures("no_leaks")

A, B = (Address("127.0.0.1", 1),), (Address("127.0.0.1", 2),)


class Watcher:
    """A checker that only remembers; `log` is shared, to see the order."""

    def __init__(self, name: str, log: list[str]) -> None:
        self._name = name
        self._log = log
        log.append(f"make {name}")

    def start(self) -> None:
        self._log.append(f"start {self._name}")

    def close(self) -> None:
        self._log.append(f"close {self._name}")


def check(name: str, log: list[str]) -> Check:
    return Check(name, lambda: Watcher(name, log))  # type: ignore[arg-type, return-value]


Spot = tuple[Address, ...]


def at(
    roster: Roster, spot: Spot, keepalive: int = 4, rest: float = 60.0, state: Callable[[], State] = State
) -> Member:
    return roster.member(spot, lambda: ServerPool(spot[0], keepalive, rest, *spot[1:]), state)


def member(roster: Roster, spot: Spot = A) -> Member:
    return at(roster, spot)


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    made = FakeServer(*[[OK]] * 5)
    yield made
    made.close()
    settle()


def resting(pool: Any, count: int) -> None:
    connections = [pool.dial(TIMEOUT) for _ in range(count)]
    for connection in connections:
        pool.release(connection)


# -- members


def test_an_address_has_one_member() -> None:
    roster = Roster()
    one = member(roster)
    assert member(roster) is one
    assert member(roster, B) is not one
    roster.close()


def test_a_server_in_both_families_is_one_member_whichever_answers(fake: FakeServer) -> None:
    roster = Roster()
    nobody = Address("::1", fake.address.port)
    one = at(roster, (nobody, fake.address))
    assert member(roster, (nobody,)) is not one
    resting(one.pool, 1)
    assert len(one.pool.pool.items) == 1
    roster.close()


def test_what_was_built_before_members_went_can_tell() -> None:
    roster = Roster()
    member(roster, A)
    member(roster, B)
    roster.keep({A: None, B: None}, 4, 60.0)
    assert roster.departures == 0
    roster.keep({A: None}, 4, 60.0)
    assert roster.departures == 1
    roster.close()


def test_how_many_are_left_is_asked_of_who_serves_now() -> None:
    roster = Roster()
    count = roster.count_left
    assert count() == 0
    roster.left = lambda: 7
    assert count() == 7


def test_a_generation_finds_the_state_and_the_connections_of_the_one_before(fake: FakeServer) -> None:
    roster = Roster()
    one = at(roster, (fake.address,))
    roster.keep({(fake.address,): None}, 4, 60.0)
    resting(one.pool, 2)
    one.state.fails = 3
    again = at(roster, (fake.address,))
    roster.keep({(fake.address,): None}, 4, 60.0)
    assert again is one
    assert (again.state.fails, len(again.pool.pool.items)) == (3, 2)
    roster.close()


def test_a_generation_that_is_being_built_changes_nothing(fake: FakeServer) -> None:
    roster = Roster()
    one = at(roster, (fake.address,))
    roster.keep({(fake.address,): None}, 4, 60.0)
    resting(one.pool, 2)
    at(roster, (fake.address,), 0, 1.0)
    member(roster, B)
    assert (len(one.pool.pool.items), one.pool.pool.maxsize, one.pool.rest.longest) == (2, 4, 60.0)
    roster.close()


def test_what_a_generation_that_never_served_added_goes_with_the_next(fake: FakeServer) -> None:
    roster = Roster()
    abandoned = member(roster, B)
    member(roster, A)
    roster.keep({A: None}, 4, 60.0)
    assert abandoned.pool.pool.is_closed
    assert member(roster, B) is not abandoned
    roster.close()


def test_an_address_that_is_gone_is_closed_and_begins_anew(fake: FakeServer) -> None:
    roster = Roster()
    one = at(roster, (fake.address,))
    roster.keep({(fake.address,): None}, 4, 60.0)
    resting(one.pool, 2)
    busy = one.pool.dial(TIMEOUT)
    one.state.fails = 3
    roster.keep({A: None}, 4, 60.0)
    assert one.pool.pool.items == []
    # What is on its way is not cut off; it comes back to a closed pool.
    assert not busy.channel.peer_finished
    one.pool.release(busy)
    wait_until(lambda: not fake.open_connections)
    assert at(roster, (fake.address,)).state.fails == 0
    roster.close()


def test_other_bounds_for_kept_connections_hold_at_once(fake: FakeServer) -> None:
    roster = Roster()
    one = at(roster, (fake.address,))
    resting(one.pool, 2)
    roster.keep({(fake.address,): None}, 1, 7.0)
    assert (len(one.pool.pool.items), one.pool.pool.maxsize, one.pool.rest.longest) == (1, 1, 7.0)
    roster.close()


def test_a_new_member_starts_as_the_generation_wants_it() -> None:
    def pending() -> State:
        state = State()
        state.healthy = False
        return state

    roster = Roster()
    assert not at(roster, A, state=pending).state.healthy
    assert not at(roster, A).state.healthy
    roster.close()


def test_one_place_is_two_for_two_names_that_must_be_proven() -> None:
    roster = Roster()
    one = roster.member((*A, "one.example"), lambda: ServerPool(A[0], 4, 60.0), State)
    other = roster.member((*A, "two.example"), lambda: ServerPool(A[0], 4, 60.0), State)
    assert one is not other
    roster.close()


def test_with_other_trust_nothing_that_rests_is_taken_again(fake: FakeServer) -> None:
    roster = Roster()
    one = at(roster, (fake.address,))
    resting(one.pool, 2)
    busy = one.pool.dial(TIMEOUT)
    roster.refresh()
    one.pool.release(busy)
    wait_until(lambda: not fake.open_connections)
    resting(one.pool, 1)
    taken = one.pool.acquire(0.0)
    assert taken is not None
    taken.close()
    roster.close()


# -- checkers


def test_a_check_begins_when_its_generation_serves_and_goes_on_in_the_next() -> None:
    roster, log = Roster(), []
    for _ in range(3):
        member(roster)
        roster.keep({A: check("one", log)}, 4, 60.0)
    assert log == ["make one", "start one"]
    roster.close()
    assert log == ["make one", "start one", "close one"]


def test_another_check_takes_the_place_of_the_old_one_which_ends_first() -> None:
    roster, log = Roster(), []
    member(roster)
    roster.keep({A: check("one", log)}, 4, 60.0)
    roster.keep({A: check("two", log)}, 4, 60.0)
    assert log == ["make one", "start one", "close one", "make two", "start two"]
    roster.close()


def test_the_same_check_of_two_addresses_is_two() -> None:
    roster, log = Roster(), []
    roster.keep({A: check("one", log), B: check("one", log)}, 4, 60.0)
    assert log == ["make one", "start one"] * 2
    roster.keep({A: check("one", log), B: None}, 4, 60.0)
    assert log[4:] == ["close one"]
    roster.close()


def test_a_check_of_an_address_that_is_gone_ends() -> None:
    roster, log = Roster(), []
    roster.keep({A: check("one", log)}, 4, 60.0)
    roster.keep({B: None}, 4, 60.0)
    assert log[-1] == "close one"
    roster.close()


# -- the end


def test_when_the_upstream_is_gone_nobody_waits_for_it(fake: FakeServer) -> None:
    roster = Roster()
    one = at(roster, (fake.address,))
    resting(one.pool, 1)
    waiting = start(roster.queue.wait, lambda: None, TIMEOUT)
    settle()
    roster.close()
    assert outcome(waiting) is None
    assert one.pool.pool.is_closed
    wait_until(lambda: not fake.open_connections)
