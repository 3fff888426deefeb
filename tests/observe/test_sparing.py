"""Events that a stranger can cause at will."""

from __future__ import annotations

from sidecar.observe.sparing import MOST, PERIOD, Sparing
from sidecar.runtime import FakeClock


def sparing() -> tuple[Sparing, FakeClock, list[tuple[str, dict[str, object]]]]:
    clock = FakeClock()
    events: list[tuple[str, dict[str, object]]] = []
    return Sparing(lambda name, **fields: events.append((name, fields)), clock.monotonic), clock, events


def test_a_few_are_told_as_they_are() -> None:
    tell, _, events = sparing()
    for number in range(MOST):
        tell("refused", number=number)
    assert events == [("refused", {"number": number}) for number in range(MOST)]


def test_of_a_flood_some_are_told_and_the_next_one_says_how_many_were_not() -> None:
    tell, clock, events = sparing()
    for _ in range(1000):
        tell("refused")
    assert len(events) == MOST
    clock.advance(PERIOD)
    tell("refused", peer="a")
    tell("refused", peer="b")
    assert events[MOST:] == [("refused", {"peer": "a", "left_out": 1000 - MOST}), ("refused", {"peer": "b"})]


def test_one_kind_does_not_silence_another() -> None:
    tell, _, events = sparing()
    for _ in range(MOST + 1):
        tell("refused")
    tell("failed")
    assert events[-1] == ("failed", {})


def test_a_long_flood_is_told_of_in_each_period() -> None:
    tell, clock, events = sparing()
    for _ in range(5):
        for _ in range(100):
            tell("refused")
        clock.advance(PERIOD)
    assert len(events) == 5 * MOST
    assert sum(int(str(fields.get("left_out", 0))) for _, fields in events) == 4 * (100 - MOST)
