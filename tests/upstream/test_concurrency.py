"""The limit of requests in progress: fixed, and as the latency of simulated servers allows."""

from __future__ import annotations

import heapq
import random
from collections import deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sidecar.config.schema import options
from sidecar.runtime import FakeClock
from sidecar.upstream.concurrency import Concurrency, ConcurrencyOptions, Gradient, concurrency


def adaptive(least: int = 1, most: int = 1000) -> Concurrency:
    return Concurrency(0, Gradient(least, most))


class Server:
    """`capacity` requests at one time, each for `service` seconds or that on average; more wait in line."""

    def __init__(self, limit: Concurrency, capacity: int, service: float, seed: int | None = None) -> None:
        self.limit = limit
        self.capacity = capacity
        self.service = service
        self.chance = None if seed is None else random.Random(seed)
        self.clock = FakeClock()
        self.running: list[tuple[float, float]] = []  # when it ends, when it began
        self.line: deque[float] = deque()
        self.done = self.refused = 0
        self.limits: list[int] = []
        self.latencies: list[float] = []

    def load(self, rate: float, seconds: float) -> None:
        """`rate` requests a second, evenly spaced, whether they are taken or not."""
        self.done = self.refused = 0
        self.limits, self.latencies = [], []
        start = self.clock.now
        for number in range(int(rate * seconds)):
            arrival = start + number / rate
            while self.running and self.running[0][0] <= arrival:
                self._finish()
            self.clock.now = arrival
            if self.limit.enter(arrival):
                self.line.append(arrival)
                self._work()
            else:
                self.refused += 1
            self.limits.append(self.limit.limit)

    def _finish(self) -> None:
        now, began = heapq.heappop(self.running)
        self.clock.now = now
        self.limit.leave(now - began, now)
        self.done += 1
        self.latencies.append(now - began)
        self._work()

    def _work(self) -> None:
        while self.line and len(self.running) < self.capacity:
            took = self.service if self.chance is None else self.chance.expovariate(1.0 / self.service)
            heapq.heappush(self.running, (self.clock.now + took, self.line.popleft()))

    @property
    def rate(self) -> float:
        """Requests a second that the server can do."""
        return self.capacity / self.service

    @property
    def usual_limit(self) -> float:
        """The middle one of the later half of the load."""
        later = sorted(self.limits[len(self.limits) // 2 :])
        return later[len(later) // 2]

    @property
    def usual_latency(self) -> float:
        """The middle one, in service times."""
        return sorted(self.latencies)[len(self.latencies) // 2] / self.service


# A fixed limit ----------------------------------------------------------------------------------------------


def test_a_number_is_the_limit() -> None:
    limit = Concurrency(2)
    assert [limit.enter(0.0) for _ in range(4)] == [True, True, False, False]
    limit.leave(None, 0.0)
    limit.leave(9.0, 0.0)
    assert [limit.enter(0.0) for _ in range(3)] == [True, True, False]
    assert (limit.active, limit.limit, limit.refused) == (2, 2, 3)


def test_more_ends_than_beginnings_do_not_count_below_zero() -> None:
    limit = Concurrency(1)
    limit.leave(None, 0.0)
    assert limit.active == 0
    assert [limit.enter(0.0) for _ in range(2)] == [True, False]


# Where it comes to rest -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capacity", "service"),
    [(1, 0.02), (2, 0.02), (2, 0.3), (5, 0.02), (5, 0.3), (10, 0.3), (50, 0.02), (50, 0.3), (150, 0.02)],
)
def test_under_too_much_load_the_limit_finds_the_capacity(capacity: int, service: float) -> None:
    """Then the server is busy all the time, and nobody waits long. Small slow ones take longest."""
    server = Server(adaptive(), capacity, service)
    server.load(1.5 * server.rate, max(20.0, 800 * service))
    assert capacity <= server.usual_limit <= 1.6 * capacity + 5
    server.load(1.5 * server.rate, 100 * service)
    assert server.done >= 0.9 * server.rate * 100 * service
    assert server.usual_latency <= 1.6 + 5 / capacity


@pytest.mark.parametrize("capacity", [4, 20, 80])
def test_service_times_that_vary_do_not_mislead_it(capacity: int) -> None:
    server = Server(adaptive(), capacity, 0.05, seed=capacity)
    server.load(1.5 * server.rate, 60.0)
    assert capacity <= server.usual_limit <= 2.0 * capacity + 8
    assert server.done >= 0.9 * server.rate * 60.0


def test_it_gets_there_in_few_windows() -> None:
    """From 20, in a window of a tenth of a second each."""
    server = Server(adaptive(), 100, 0.02)
    server.load(2.0 * server.rate, 1.0)
    assert server.limit.limit >= 100


def test_it_follows_a_capacity_that_goes_and_comes_back() -> None:
    server = Server(adaptive(), 50, 0.05)
    server.load(1500.0, 20.0)
    assert 50 <= server.usual_limit <= 85
    server.capacity = 10
    server.load(1500.0, 20.0)
    assert 10 <= server.usual_limit <= 32
    server.capacity = 50
    server.load(1500.0, 20.0)
    assert 50 <= server.usual_limit <= 85
    assert server.done >= 0.9 * 1000 * 20.0


def test_a_server_that_becomes_slow_by_itself_is_not_starved() -> None:
    """Four times the latency at any load: fewer requests would not make it faster."""
    server = Server(adaptive(), 20, 0.05)
    server.load(600.0, 20.0)
    server.service = 0.2
    server.load(600.0, 40.0)
    assert 20 <= server.usual_limit <= 40
    assert server.done >= 0.85 * 100 * 40.0


def test_a_base_measured_while_the_server_stood_still_is_corrected() -> None:
    server = Server(adaptive(), 20, 0.05)
    server.load(600.0, 20.0)
    gradient = server.limit._gradient
    assert gradient is not None
    gradient.base = 10.0
    gradient._due = server.clock.now
    server.load(600.0, 30.0)
    assert 20 <= server.limit.limit <= 40


# What is not too much ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_load_that_the_server_can_bear_is_not_refused(share: float) -> None:
    server = Server(adaptive(), 20, 0.05)
    server.load(share * server.rate, 120.0)
    assert server.refused == 0


def test_an_idle_upstream_keeps_its_limit() -> None:
    server = Server(adaptive(), 20, 0.05)
    server.load(600.0, 20.0)
    before = server.limit.limit
    server.load(5.0, 60.0)
    server.clock.advance(1e6)
    server.load(5.0, 10.0)
    assert abs(server.limit.limit - before) <= before / 2
    assert server.refused == 0


def test_waits_below_a_millisecond_are_no_queue() -> None:
    """The machine itself is not more exact than that."""
    limit = adaptive()
    now, random_ = 0.0, random.Random(3)
    for _ in range(20_000):
        while limit.enter(now):
            pass
        now += 0.0005
        limit.leave(random_.uniform(0.0001, 0.0009), now)
    assert limit.limit == 1000


def test_what_failed_or_was_given_up_teaches_nothing() -> None:
    limit = adaptive()
    for number in range(10_000):
        limit.enter(number / 100)
        limit.leave(None, number / 100)
    assert limit.limit == 20


def test_requests_that_hang_stop_a_measure_not_the_traffic() -> None:
    """They hold more than half of the limit, so the halved limit of a measure would let nobody in."""
    server = Server(adaptive(most=20), 1000, 0.05)
    for _ in range(12):
        assert server.limit.enter(server.clock.now)
    server.load(100.0, 300.0)
    assert server.refused <= 0.01 * 100 * 300


# Laws -------------------------------------------------------------------------------------------------------


class ConcurrencyMachine(RuleBasedStateMachine):
    """Requests begin and end at any time and report any latency."""

    @initialize(least=st.integers(1, 30), more=st.integers(0, 100))
    def start(self, least: int, more: int) -> None:
        self.least, self.most = least, least + more
        self.limit = adaptive(self.least, self.most)
        self.now = 0.0
        self.active = 0

    @rule(count=st.integers(1, 50))
    def begin(self, count: int) -> None:
        for _ in range(count):
            entered = self.limit.enter(self.now)
            assert entered or self.active >= self.least
            self.active += entered

    @precondition(lambda self: self.active)
    @rule(data=st.data(), seconds=st.one_of(st.none(), st.floats(0.0, 100.0), st.just(0.01)))
    def end(self, data: st.DataObject, seconds: float | None) -> None:
        for _ in range(data.draw(st.integers(1, self.active))):
            self.limit.leave(seconds, self.now)
            self.active -= 1

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.1, 0.2, 5.0, 1e7]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def stays_within_its_bounds(self) -> None:
        if hasattr(self, "limit"):
            assert self.least <= self.limit.limit <= self.most
            assert 0 <= self.limit.active == self.active <= self.most
            assert repr(self.limit).startswith(f"<Concurrency {self.active} of {self.limit.limit}, ")


TestConcurrencyMachine = ConcurrencyMachine.TestCase
TestConcurrencyMachine.settings = settings(max_examples=60, stateful_step_count=80)


@given(
    st.integers(1, 30),
    st.integers(0, 200),
    st.lists(st.floats(0.0, 10.0), min_size=1, max_size=40),
)
@settings(max_examples=50)
def test_no_latency_moves_it_out_of_its_bounds(least: int, more: int, latencies: list[float]) -> None:
    """As busy as it can be, so that every window changes the limit."""
    limit, now = adaptive(least, least + more), 0.0
    for number in range(2_000):
        while limit.enter(now):
            pass
        now += 0.02
        limit.leave(latencies[number % len(latencies)], now)
        assert least <= limit.limit <= least + more


# Options ----------------------------------------------------------------------------------------------------


def test_the_options_say_which_it_is() -> None:
    assert concurrency(ConcurrencyOptions()) is None
    fixed = concurrency(ConcurrencyOptions(concurrency_limit=7))
    assert fixed is not None
    assert fixed.limit == 7
    found = concurrency(ConcurrencyOptions(concurrency_limit=-1, concurrency_min=30, concurrency_max=40))
    assert found is not None
    assert found.limit == 30
    found.close()


@pytest.mark.parametrize(("text", "value"), [("off", 0), ("adaptive", -1), ("1", 1), ("1000000", 1_000_000)])
def test_the_limit_is_shown_as_it_is_read(text: str, value: int) -> None:
    kind = options(ConcurrencyOptions)["concurrency_limit"].kind  # type: ignore[arg-type]
    assert kind.parse(text) == value
    assert kind.show(value) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", "0 is not between 1 and 1000000, or adaptive, or off"),
        ("-1", "-1 is not between 1 and 1000000, or adaptive, or off"),
        (
            "auto",
            "'auto' is not a whole number: write one between 1 and 1000000, or adaptive, or off",
        ),
    ],
)
def test_what_is_no_limit_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        options(ConcurrencyOptions)["concurrency_limit"].kind.parse(text)  # type: ignore[arg-type]
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("given_", "keys"),
    [
        ({}, []),
        ({"concurrency_limit": -1, "concurrency_min": 5, "concurrency_max": 5}, []),
        (
            {"concurrency_limit": 9, "concurrency_min": 6, "concurrency_max": 7},
            ["concurrency_min", "concurrency_max"],
        ),
        ({"concurrency_max": 7}, ["concurrency_max"]),
    ],
)
def test_bounds_of_what_is_fixed_do_nothing(given_: dict[str, Any], keys: list[str]) -> None:
    options_ = ConcurrencyOptions(**given_)
    assert [key for key, _ in options_.concurrency_idle()] == keys
    assert list(options_.concurrency_mistakes()) == []


def test_bounds_that_cross_are_a_mistake() -> None:
    options_ = ConcurrencyOptions(concurrency_limit=-1, concurrency_min=6, concurrency_max=5)
    assert [key for key, _ in options_.concurrency_mistakes()] == ["concurrency_min"]
    assert list(options_.concurrency_idle()) == []
