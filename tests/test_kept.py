"""What survives a reload, and what is closed when."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from hypothesis import given
from hypothesis import strategies as st

from sidecar.kept import Kept


class Thing:
    """Something that can be closed, once."""

    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


class Empty(Thing):
    """Something that is false while it holds nothing, as a cache may be."""

    def __len__(self) -> int:
        return 0


def never() -> Thing:
    raise AssertionError("made again")


def round_of(kept: Kept, *keys: Hashable, make: Callable[[], Thing] = Thing) -> list[Thing]:
    kept.begin()
    claimed = [kept.claim(key, make) for key in keys]
    kept.sweep()
    return claimed


def test_a_value_claimed_again_is_the_same_and_stays_open() -> None:
    kept = Kept()
    (first,) = round_of(kept, "a")
    (second,) = round_of(kept, "a", make=never)
    assert second is first
    assert not first.closed


def test_two_claims_of_one_round_share_the_value() -> None:
    one, two = round_of(Kept(), "a", "a")
    assert one is two


def test_a_value_that_nobody_claims_is_closed_once() -> None:
    kept = Kept()
    (first,) = round_of(kept, ("server", "a", 64))
    (second,) = round_of(kept, ("server", "a", 32))
    assert second is not first
    round_of(kept)
    assert (first.closed, second.closed) == (1, 1)


def test_an_abandoned_round_closes_what_it_made_and_keeps_what_was_there() -> None:
    kept = Kept()
    (old,) = round_of(kept, "old")
    kept.begin()
    assert kept.claim("old", never) is old
    made = kept.claim("new", Thing)
    kept.abandon()
    assert (old.closed, made.closed) == (0, 1)
    assert round_of(kept, "old", make=never) == [old]
    assert not old.closed


def test_what_an_earlier_generation_made_is_known() -> None:
    kept = Kept()
    kept.begin()
    kept.claim("a", Thing)
    assert not kept.has("a")
    kept.sweep()
    assert kept.has("a") and not kept.has("b")


def test_a_value_that_is_false_is_kept_all_the_same() -> None:
    kept = Kept()
    one, two = round_of(kept, "a", "a", make=Empty)
    assert one is two
    assert round_of(kept, "a", make=never)[0] is one
    round_of(kept)
    assert one.closed == 1


@given(st.lists(st.tuples(st.frozensets(st.integers(0, 5)), st.booleans()), max_size=12))
def test_whatever_the_rounds_each_value_is_open_exactly_while_it_is_kept(
    rounds: list[tuple[frozenset[int], bool]],
) -> None:
    kept = Kept()
    made: list[Thing] = []
    alive: dict[int, Thing] = {}

    def make() -> Thing:
        made.append(Thing())
        return made[-1]

    for keys, succeeds in rounds:
        kept.begin()
        claimed = {key: kept.claim(key, make) for key in keys}
        assert all(claimed[key] is alive[key] for key in keys & alive.keys())
        if succeeds:
            kept.sweep()
            alive = claimed
        else:
            kept.abandon()
        assert {id(thing) for thing in made if not thing.closed} == {id(t) for t in alive.values()}
        assert all(thing.closed <= 1 for thing in made)
