"""Events that a stranger can cause at will."""

from __future__ import annotations

import pytest

from sidecar.observe.sparing import MOST, PERIOD, Sparing
from sidecar.runtime import FakeClock

SPARED = "http2_refused"


def sparing() -> tuple[Sparing, FakeClock, list[tuple[str, dict[str, object]]]]:
    clock = FakeClock()
    events: list[tuple[str, dict[str, object]]] = []
    return Sparing(lambda name, **fields: events.append((name, fields)), clock.monotonic), clock, events


def test_a_few_are_told_as_they_are() -> None:
    tell, _, events = sparing()
    for number in range(MOST):
        tell(SPARED, number=number)
    assert events == [(SPARED, {"number": number}) for number in range(MOST)]


def test_of_a_flood_some_are_told_and_the_next_one_says_how_many_were_not() -> None:
    tell, clock, events = sparing()
    for _ in range(1000):
        tell(SPARED)
    assert len(events) == MOST
    clock.advance(PERIOD)
    tell(SPARED, peer="a")
    tell(SPARED, peer="b")
    assert events[MOST:] == [(SPARED, {"peer": "a", "left_out": 1000 - MOST}), (SPARED, {"peer": "b"})]


def test_one_kind_does_not_silence_another() -> None:
    tell, _, events = sparing()
    for _ in range(MOST + 1):
        tell(SPARED)
    tell("tls_handshake_failed")
    assert events[-1] == ("tls_handshake_failed", {})


def test_one_listener_does_not_silence_another() -> None:
    tell, _, events = sparing()
    for _ in range(MOST + 1):
        tell(SPARED, listener="public")
    tell(SPARED, listener="internal")
    assert events[-1] == (SPARED, {"listener": "internal"})


def test_what_strangers_cannot_cause_is_told_always() -> None:
    tell, _, events = sparing()
    for _ in range(10 * MOST):
        tell("server_down")
    assert len(events) == 10 * MOST


def test_a_name_that_is_not_declared_is_a_mistake_of_ours() -> None:
    tell, _, _ = sparing()
    with pytest.raises(LookupError):
        tell("refused")


def test_a_long_flood_is_told_of_in_each_period() -> None:
    tell, clock, events = sparing()
    for _ in range(5):
        for _ in range(100):
            tell(SPARED)
        clock.advance(PERIOD)
    assert len(events) == 5 * MOST
    assert sum(int(str(fields.get("left_out", 0))) for _, fields in events) == 4 * (100 - MOST)
