"""The garbage collector: what it may look through, and that nothing is lost to it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from sidecar import collector
from sidecar.collector import settle, undisturbed


class Node:
    """Refers to another, or to itself."""

    def __init__(self) -> None:
        self.other: Node | None = None


def _cycle() -> Node:
    node = Node()
    node.other = node
    return node


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    thresholds, settled = gc.get_threshold(), collector._settled
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)
    collector._settled = settled


def _is_set_aside(thing: object) -> bool:
    return all(thing is not other for other in gc.get_objects())


def test_what_is_made_undisturbed_is_set_aside() -> None:
    with undisturbed():
        assert not gc.isenabled()
        made = Node()
    assert gc.isenabled()
    assert _is_set_aside(made)


def test_what_fails_is_disturbed_again() -> None:
    with pytest.raises(ZeroDivisionError), undisturbed():
        raise ZeroDivisionError
    assert gc.isenabled()


def test_what_was_set_aside_is_freed_as_soon_as_nobody_uses_it() -> None:
    with undisturbed():
        made = Node()
    gone = weakref.ref(made)
    del made
    assert gone() is None


def test_settling_frees_cycles_and_sets_the_rest_aside() -> None:
    cycle, stays = _cycle(), Node()
    gone = weakref.ref(cycle)
    del cycle
    settle()
    assert gone() is None
    assert _is_set_aside(stays)


def test_cycles_that_load_by_load_were_set_aside_are_freed_once_they_are_many() -> None:
    settle()
    cycle = _cycle()
    gone = weakref.ref(cycle)
    with undisturbed():
        pass
    del cycle
    with undisturbed():
        pass
    assert gone() is not None, "the few are not worth a look"
    collector._settled = gc.get_freeze_count() // 3
    with undisturbed():
        pass
    assert gone() is None
    assert collector._settled > gc.get_freeze_count() // 2, "that is what the next ones are compared with"


def test_settled_a_look_at_the_young_is_short_and_nothing_waits_for_long() -> None:
    settle()
    young, stayed, old = gc.get_threshold()
    assert 700 <= young <= 5000
    assert young * stayed * old <= 500_000


def test_what_was_set_aside_does_not_put_off_the_look_at_what_was_not() -> None:
    """Python waits until what is new is a quarter of all that it looked through last."""
    many = [[] for _ in range(200_000)]
    settle()
    del many
    gone = weakref.ref(_cycle())
    looks = gc.get_stats()[2]["collections"]
    young = [[] for _ in range(400_000)]
    assert gc.get_stats()[2]["collections"] > looks
    assert gone() is None
    del young
