"""The circuit breaker: what opens it, who is let through as a probe, what closes it, what does not count."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sidecar.runtime import FakeClock
from sidecar.upstream.breaker import CLOSED, HALF_OPEN, OPEN, Breaker, BreakerOptions, Window


class Circuit:
    """A breaker, its clock and its events."""

    def __init__(self, **options: Any) -> None:
        self.events: list[tuple[str, dict[str, object]]] = []
        self.clock = FakeClock()
        self.breaker = Breaker(
            BreakerOptions(**options), lambda name, **fields: self.events.append((name, fields))
        )

    def begin(self) -> int:
        """A request that goes; its period."""
        assert self.breaker.allow(self.clock.now) == 0.0
        return self.breaker.period

    def wait(self) -> float:
        """What a request is told to wait."""
        return self.breaker.allow(self.clock.now)

    def end(self, period: int, failed: bool) -> None:
        self.breaker.observe(failed, self.clock.now, period)

    def serve(self, results: str) -> None:
        """Requests one after the other: `.` succeeds, `x` fails."""
        for result in results:
            self.end(self.begin(), result == "x")

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.events]


def opened(**options: Any) -> Circuit:
    circuit = Circuit(breaker_failures=1, **options)
    circuit.serve("x")
    assert circuit.breaker.state == OPEN
    return circuit


def half_open(**options: Any) -> tuple[Circuit, int]:
    """A circuit with its first probe."""
    circuit = opened(**options)
    circuit.clock.advance(10.0)
    return circuit, circuit.begin()


# What opens it ----------------------------------------------------------------------------------------------


def test_failures_in_a_row_open_it() -> None:
    circuit = Circuit(breaker_failures=3)
    circuit.serve("xx.xx.x")
    assert circuit.breaker.state == CLOSED
    circuit.serve("xx")
    assert circuit.breaker.state == OPEN
    assert circuit.events == [
        (
            "circuit_opened",
            {"cause": "failures", "failures_in_a_row": 3, "failures": 0, "requests": 0, "seconds": 10.0},
        )
    ]


def test_a_share_of_failures_opens_it_once_there_are_enough_requests() -> None:
    circuit = Circuit(breaker_errors=50, breaker_requests=10)
    circuit.serve(".x.x.x.x.")
    assert circuit.breaker.state == CLOSED
    circuit.serve("x")
    assert circuit.breaker.state == OPEN
    assert circuit.events == [
        (
            "circuit_opened",
            {"cause": "errors", "failures_in_a_row": 1, "failures": 5, "requests": 10, "seconds": 10.0},
        )
    ]


def test_a_smaller_share_does_not() -> None:
    circuit = Circuit(breaker_errors=50, breaker_requests=10)
    circuit.serve(".x..x.x" * 50)
    assert circuit.breaker.state == CLOSED


def test_failures_older_than_the_window_do_not_count() -> None:
    circuit = Circuit(breaker_errors=50, breaker_window=10.0, breaker_requests=4)
    circuit.serve("xxx")
    circuit.clock.advance(10.0)
    circuit.serve("x..")
    assert circuit.breaker.state == CLOSED
    circuit.serve("x")
    assert circuit.breaker.state == OPEN


def test_it_opens_by_a_failure_never_by_a_success() -> None:
    circuit = Circuit(breaker_errors=50, breaker_requests=4)
    circuit.serve("xxx.")
    assert circuit.breaker.state == CLOSED
    circuit.serve("x")
    assert circuit.breaker.state == OPEN


# While it is open -------------------------------------------------------------------------------------------


def test_an_open_circuit_says_how_long_it_is() -> None:
    circuit = opened()
    assert circuit.wait() == 10.0
    circuit.clock.advance(7.5)
    assert circuit.wait() == 2.5
    assert circuit.wait() == 2.5
    assert circuit.breaker.refused == 3


def test_results_of_requests_that_began_before_do_not_count() -> None:
    circuit = Circuit(breaker_failures=1)
    slow, slower, slowest = circuit.begin(), circuit.begin(), circuit.begin()
    circuit.serve("x")
    circuit.end(slow, failed=True)
    circuit.clock.advance(10.0)
    probe = circuit.begin()
    circuit.end(slower, failed=False)
    assert circuit.breaker.state == HALF_OPEN
    circuit.end(slower, failed=True)
    assert circuit.breaker.state == HALF_OPEN
    circuit.breaker.forget(slower)
    assert circuit.wait() > 0.0, "what is not a probe frees no place of a probe"
    circuit.end(probe, failed=False)
    circuit.end(slowest, failed=True)
    assert circuit.breaker.state == CLOSED


# Probes -----------------------------------------------------------------------------------------------------


def test_one_success_closes_it() -> None:
    circuit, probe = half_open()
    circuit.clock.advance(0.5)
    circuit.end(probe, failed=False)
    assert circuit.breaker.state == CLOSED
    assert circuit.names == ["circuit_opened", "circuit_half_open", "circuit_closed"]
    assert circuit.events[1][1] == {"probes": 1, "refused": 0, "seconds": 10.0}
    assert circuit.events[2][1] == {"refused": 0, "seconds": 10.5}


def test_after_closing_nothing_of_before_counts() -> None:
    circuit = Circuit(breaker_failures=4, breaker_errors=50, breaker_requests=5)
    circuit.serve("xxxx")
    circuit.clock.advance(10.0)
    circuit.serve(".xxx")
    assert circuit.breaker.state == CLOSED
    circuit.serve("x")
    assert circuit.breaker.state == OPEN


def test_a_probe_that_fails_opens_it_for_as_long_again() -> None:
    circuit, probe = half_open()
    circuit.clock.advance(0.5)
    circuit.end(probe, failed=True)
    assert circuit.breaker.state == OPEN
    assert circuit.wait() == 10.0
    name, fields = circuit.events[-1]
    assert (name, fields["cause"], fields["failures_in_a_row"]) == ("circuit_opened", "probe", 2)


def test_the_events_count_who_was_turned_away() -> None:
    circuit = opened()
    circuit.wait()
    circuit.clock.advance(10.0)
    circuit.end(circuit.begin(), failed=True)
    circuit.wait()
    circuit.clock.advance(10.0)
    circuit.end(circuit.begin(), failed=False)
    assert circuit.events[-1] == ("circuit_closed", {"refused": 2, "seconds": 20.0})
    circuit.serve("x")
    circuit.clock.advance(10.0)
    circuit.serve(".")
    assert circuit.events[-1] == ("circuit_closed", {"refused": 0, "seconds": 10.0})


def test_while_a_probe_runs_others_are_told_to_come_soon() -> None:
    circuit, probe = half_open()
    assert circuit.wait() == 1.0
    circuit.clock.advance(9.5)
    assert circuit.wait() == 0.5


def test_so_many_probes_go_at_one_time_and_so_many_successes_close_it() -> None:
    circuit, first = half_open(breaker_probes=3)
    second, third = circuit.begin(), circuit.begin()
    assert circuit.wait() > 0.0
    circuit.end(first, failed=False)
    circuit.end(second, failed=False)
    fourth = circuit.begin()
    assert circuit.breaker.state == HALF_OPEN
    circuit.end(fourth, failed=False)
    assert circuit.breaker.state == CLOSED
    circuit.end(third, failed=True)
    assert circuit.breaker.state == CLOSED


def test_a_probe_whose_client_left_gives_its_place_to_another() -> None:
    circuit, probe = half_open()
    circuit.breaker.forget(probe)
    circuit.end(circuit.begin(), failed=False)
    assert circuit.breaker.state == CLOSED


def test_a_probe_that_hangs_does_not_shut_the_others_out() -> None:
    circuit, hanging = half_open()
    circuit.clock.advance(10.0)
    second = circuit.begin()
    assert circuit.wait() > 0.0, "only one more for each breaker_timeout"
    circuit.breaker.forget(hanging)
    assert circuit.wait() > 0.0, "the place of the first one is gone already"
    circuit.end(second, failed=False)
    assert circuit.breaker.state == CLOSED


def test_a_slow_probe_still_counts_after_another_was_let_through() -> None:
    """Else a server that answers more slowly than breaker_timeout would never come back."""
    circuit, slow = half_open()
    circuit.clock.advance(12.0)
    circuit.begin()
    circuit.end(slow, failed=False)
    assert circuit.breaker.state == CLOSED


# Clocks -----------------------------------------------------------------------------------------------------


def test_a_clock_that_stands_still_keeps_it_open() -> None:
    circuit = opened()
    assert {circuit.wait() for _ in range(100)} == {10.0}


def test_a_clock_that_jumps_forward_asks_once() -> None:
    circuit = opened()
    circuit.clock.advance(1e9)
    circuit.begin()
    assert circuit.wait() == 1.0


@given(st.lists(st.tuples(st.floats(0.0, 4.0), st.booleans()), max_size=60))
def test_the_window_holds_what_a_list_would(steps: list[tuple[float, bool]]) -> None:
    """Against a deque of results, each with the tenth of the window that it fell into."""
    window, now, results = Window(10.0), 1_000.0, deque[tuple[int, bool]]()
    for step, failed in steps:
        now += step
        window.add(failed, now)
        results.append((int(now), failed))
        while results[0][0] <= int(now) - 10:
            results.popleft()
        assert window.requests == len(results)
        assert window.failures == sum(failed for _, failed in results)


def test_the_window_forgets_all_in_a_long_silence_and_when_told() -> None:
    window = Window(1.0)
    for _ in range(50):
        window.add(True, 100.0)
    window.add(False, 1e6)
    assert (window.requests, window.failures) == (1, 0)
    window.clear()
    window.add(True, 1e6)
    assert (window.requests, window.failures) == (1, 1)


class BreakerMachine(RuleBasedStateMachine):
    """Requests begin and end in any order and at any time, also much later than the circuit thinks."""

    @initialize(probes=st.integers(1, 3), failures=st.integers(0, 3), errors=st.sampled_from([0, 50]))
    def start(self, probes: int, failures: int, errors: int) -> None:
        self.circuit = Circuit(
            breaker_failures=failures, breaker_errors=errors, breaker_requests=3, breaker_probes=probes
        )
        self.probes = probes
        self.running: list[int] = []
        self.last_open = -1e9

    @rule()
    def ask(self) -> None:
        breaker = self.circuit.breaker
        before = breaker.state
        wait = self.circuit.wait()
        assert 0.0 <= wait <= 10.0
        if before == CLOSED:
            assert wait == 0.0
        if before == OPEN:
            assert (wait > 0.0) == (self.circuit.clock.now < self.last_open + 10.0)
        if wait == 0.0:
            self.running.append(breaker.period)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), result=st.sampled_from([True, False, None]))
    def end(self, data: st.DataObject, result: bool | None) -> None:
        period = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        before = self.circuit.breaker.state
        if result is None:
            self.circuit.breaker.forget(period)
            assert self.circuit.breaker.state == before
        else:
            self.circuit.end(period, result)
        if self.circuit.breaker.state == OPEN and before != OPEN:
            assert result is True
            self.last_open = self.circuit.clock.now
        if self.circuit.breaker.state == CLOSED and before != CLOSED:
            assert result is False

    @rule(seconds=st.sampled_from([0.0, 0.3, 4.0, 10.0, 1e6]))
    def pass_time(self, seconds: float) -> None:
        self.circuit.clock.advance(seconds)

    @invariant()
    def no_more_probes_than_allowed(self) -> None:
        breaker = getattr(self, "circuit", None) and self.circuit.breaker
        if breaker and breaker.state == HALF_OPEN:
            assert self.running.count(breaker.period) <= self.probes

    @invariant()
    def events_tell_the_way_to_this_state(self) -> None:
        if hasattr(self, "circuit"):
            last = self.circuit.names[-1:] or ["circuit_closed"]
            assert last == {
                CLOSED: ["circuit_closed"],
                OPEN: ["circuit_opened"],
                HALF_OPEN: ["circuit_half_open"],
            }.get(self.circuit.breaker.state)

    def teardown(self) -> None:
        """However bad it was, a server that works again is used again."""
        if not hasattr(self, "circuit"):
            return
        for _ in range(self.probes):
            if self.circuit.breaker.state != CLOSED:
                self.circuit.clock.advance(10.0)
                self.circuit.end(self.circuit.begin(), failed=False)
        assert self.circuit.breaker.state == CLOSED


TestBreakerMachine = BreakerMachine.TestCase


# Options ----------------------------------------------------------------------------------------------------


def test_it_is_off_by_default() -> None:
    circuit = Circuit()
    circuit.serve("x" * 1000)
    circuit.breaker.close()
    assert circuit.breaker.state == CLOSED
    assert repr(circuit.breaker) == "<Breaker closed failures=1000 probes=0>"


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        ({}, []),
        ({"breaker_failures": 5, "breaker_timeout": 1.0, "breaker_probes": 2}, []),
        ({"breaker_errors": 50, "breaker_timeout": 1.0, "breaker_window": 5.0, "breaker_requests": 5}, []),
        ({"breaker_timeout": 1.0, "breaker_probes": 2}, ["breaker_timeout", "breaker_probes"]),
        (
            {"breaker_failures": 5, "breaker_window": 5.0, "breaker_requests": 5},
            ["breaker_window", "breaker_requests"],
        ),
    ],
)
def test_details_of_what_is_off_do_nothing(options: dict[str, Any], keys: list[str]) -> None:
    assert [key for key, _ in BreakerOptions(**options).breaker_idle()] == keys
