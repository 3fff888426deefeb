# cython: language_level=3, annotation_typing=False
"""The circuit breaker of an upstream: when it fails too often, requests are refused at once for a while.

closed: requests go, results are counted · open: none goes until `breaker_timeout` is over · half-open: a few
go as probes; they close the circuit or open it again. The time open does not grow: a probe costs one request,
and a longer pause would only delay the return.

Law: whoever was allowed reads `period` at once and hands it back, exactly once, by `observe` (there was a
result) or `forget` (there was none: the client left). The period tells a probe from a request that began
before the circuit opened: what such a request met says nothing about the server now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from ..config.kinds import TIMEOUT, integer, or_off, percent
from ..config.schema import option

CLOSED: Final = "closed"
OPEN: Final = "open"
HALF_OPEN: Final = "half_open"

_BUCKETS: Final = 10
_SOON: Final = 1.0  # seconds; while a probe runs, its result may come at any moment


@dataclass(frozen=True)
class BreakerOptions:
    """When an upstream is left alone. Times in seconds, shares in percent."""

    breaker_failures: int = option(
        0,
        integer(0, 10_000),
        "Failures in a row, of all servers together, that open the circuit, counted as by eject_errors. 0: "
        "any number is borne.",
    )
    breaker_errors: int = option(
        0,
        or_off(percent(1, 100), 0),
        "Share of failures within breaker_window that opens the circuit.",
    )
    breaker_window: float = option(10.0, TIMEOUT, "How far back breaker_errors looks.")
    breaker_requests: int = option(
        20, integer(1, 1_000_000), "Fewest requests within breaker_window for breaker_errors to count."
    )
    breaker_timeout: float = option(
        10.0, TIMEOUT, "How long an open circuit refuses all requests before it lets probes through."
    )
    breaker_probes: int = option(
        1,
        integer(1, 1000),
        "Requests that go at one time as probes after that; as many successes close the circuit.",
    )

    def breaker_idle(self) -> Iterator[tuple[str, str]]:
        """Details of what is off, each the key and why; `[defaults upstream]` may have them."""
        if not self.breaker_errors:
            for key in ("breaker_window", "breaker_requests"):
                if getattr(self, key) != getattr(BreakerOptions, key):
                    yield key, "has no use without breaker_errors: write breaker_errors = 50%, or drop it"
        if not self.breaker_errors and not self.breaker_failures:
            for key in ("breaker_timeout", "breaker_probes"):
                if getattr(self, key) != getattr(BreakerOptions, key):
                    yield key, "has no use without breaker_failures or breaker_errors: write one, or drop it"


class Window:
    """Results of the last `seconds`, to a tenth of them: always the same ten pairs of numbers."""

    __slots__ = ("_bucket", "_failures", "_requests", "_width", "failures", "requests")

    def __init__(self, seconds: float) -> None:
        self._width = seconds / _BUCKETS
        self._bucket = 0  # the number, counted from the clock's beginning, of the one that is filled
        self._requests = [0] * _BUCKETS
        self._failures = [0] * _BUCKETS
        self.requests = 0
        self.failures = 0

    def add(self, failed: bool, now: float) -> None:
        """One result."""
        bucket = int(now / self._width)
        if bucket > self._bucket:
            self._move(bucket)
        place = self._bucket % _BUCKETS
        self._requests[place] += 1
        self.requests += 1
        if failed:
            self._failures[place] += 1
            self.failures += 1

    def _move(self, bucket: int) -> None:
        """Forget what is too old; a jump of the clock forgets all."""
        for old in range(max(self._bucket + 1, bucket - _BUCKETS + 1), bucket + 1):
            place = old % _BUCKETS
            self.requests -= self._requests[place]
            self.failures -= self._failures[place]
            self._requests[place] = self._failures[place] = 0
        self._bucket = bucket

    def clear(self) -> None:
        """Forget all."""
        self._requests = [0] * _BUCKETS
        self._failures = [0] * _BUCKETS
        self.requests = self.failures = 0


class Breaker:
    """The circuit of one upstream. `changed` gets the name and the fields of an event."""

    __slots__ = (
        "_before",
        "_errors",
        "_event",
        "_failures",
        "_first",
        "_limit",
        "_moved",
        "_most",
        "_opened",
        "_probes",
        "_requests",
        "_successes",
        "_timeout",
        "_window",
        "period",
        "refused",
        "state",
    )

    def __init__(self, options: BreakerOptions, changed: Callable[..., None]) -> None:
        self._limit = options.breaker_failures
        self._errors = options.breaker_errors
        self._requests = options.breaker_requests
        self._timeout = options.breaker_timeout
        self._most = options.breaker_probes
        self._event = changed
        self._window = Window(options.breaker_window)
        self.state = CLOSED
        self.period = 0  # what is allowed now belongs to it
        self._first = 0  # the period in which this state began
        self.refused = 0  # requests, since the start
        self._before = 0  # of them, before the trouble began
        self._failures = 0  # in a row
        self._successes = 0  # of probes
        self._probes = 0  # of this period, in progress
        self._moved = 0.0  # when the circuit opened last, or a probe was let through last
        self._opened = 0.0  # when the trouble began

    def __repr__(self) -> str:
        return f"<Breaker {self.state} failures={self._failures} probes={self._probes}>"

    def allow(self, now: float) -> float:
        """0.0 when a request may go, else the seconds until it is worth asking again."""
        if self.state == CLOSED:
            return 0.0
        was_open = self.state == OPEN
        wait = self._moved + self._timeout - now if was_open else self._busy_for(now)
        if wait > 0.0:
            self.refused += 1
            return wait
        if was_open:
            self._enter(HALF_OPEN)
        self._probes += 1
        self._moved = now
        if was_open:
            self._event(
                "circuit_half_open",
                probes=self._most,
                refused=self._turned_away(),
                seconds=now - self._opened,
            )
        return 0.0

    def _busy_for(self, now: float) -> float:
        if self._probes < self._most:
            return 0.0
        left = self._moved + self._timeout - now
        if left > 0.0:
            return min(left, _SOON)
        # Probes that take this long may hang. Others get their places, or one slow answer would shut all out;
        # when the first ones do answer, that still counts.
        self.period += 1
        self._probes = 0
        return 0.0

    def observe(self, failed: bool, now: float, period: int) -> None:
        """The result of what was allowed in `period`; the caller decides what counts as a failure."""
        if period < self._first:
            return
        if self.state == CLOSED:
            self._count(failed, now)
        else:
            self.forget(period)
            self._judge(failed, now)

    def forget(self, period: int) -> None:
        """What was allowed in `period` ended without a result: its place as a probe is free again."""
        if period == self.period and self._probes > 0:
            self._probes -= 1

    def _count(self, failed: bool, now: float) -> None:
        if self._errors:
            self._window.add(failed, now)
        if not failed:
            self._failures = 0
            return
        self._failures += 1
        if 0 < self._limit <= self._failures:
            self._open("failures", now)
        elif self._errors and self._is_share_reached():
            self._open("errors", now)

    def _is_share_reached(self) -> bool:
        window = self._window
        return window.requests >= self._requests and window.failures * 100 >= self._errors * window.requests

    def _judge(self, failed: bool, now: float) -> None:
        if failed:
            self._failures += 1
            self._open("probe", now)
            return
        self._successes += 1
        if self._successes >= self._most:
            self._close(now)

    def _open(self, cause: str, now: float) -> None:
        if self.state == CLOSED:
            self._opened = now
            self._before = self.refused
        window = self._window
        failures, errors, requests = self._failures, window.failures, window.requests
        self._enter(OPEN)
        self._moved = now
        self._event(
            "circuit_opened",
            cause=cause,
            failures_in_a_row=failures,
            failures=errors,
            requests=requests,
            seconds=self._timeout,
        )

    def _close(self, now: float) -> None:
        self._enter(CLOSED)
        self._failures = 0
        self._window.clear()
        self._event("circuit_closed", refused=self._turned_away(), seconds=now - self._opened)

    def _turned_away(self) -> int:
        """Requests refused since the circuit left the closed state."""
        return self.refused - self._before

    def _enter(self, state: str) -> None:
        self.state = state
        self.period += 1
        self._first = self.period
        self._probes = self._successes = 0

    def close(self) -> None:
        """Nothing is held; this is for `Kept`."""
