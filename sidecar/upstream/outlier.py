"""Outlier ejection: a server that does worse than it may, by what real requests meet, rests for a while.

Law: never more than the configured share of the servers is ejected at one time, and never the last one that
could take a request. Nothing happens by itself: time is what requests bring along.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, fields
from statistics import median
from typing import TYPE_CHECKING, Final

from ..config.kinds import TIMEOUT, integer, or_off, percent
from ..config.schema import Kind, option, quoted

if TYPE_CHECKING:
    from .server import Server, State

#: Seconds between two comparisons of the servers.
_TURN: Final = 1.0

#: Seconds within which a request comes to count a third: what is compared is about the last ten.
_MEMORY: Final = 10.0

#: Requests that a server must have had in that time to be judged by rate or latency.
_ENOUGH: Final = 20.0

#: Seconds by which a slow server must be slower than the others: a factor alone would make much of nothing.
_NOTICEABLE: Final = 0.01

#: How often eject_time is multiplied at most.
_MOST_TIMES: Final = 10

_FACTOR: Final = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,2})?)x")


def _parse_factor(text: str) -> float:
    found = _FACTOR.fullmatch(text)
    if found is None:
        raise ValueError(f"{quoted(text)} is not a factor: write 3x or 2.5x")
    value = float(found[1])
    if not 1.1 <= value <= 100.0:
        raise ValueError(f"{quoted(text)} is not between 1.1x and 100x")
    return value


#: A whole percentage, 1 to 100.
PERCENT: Final[Kind[int]] = percent(1, 100)

#: A number of times.
FACTOR: Final[Kind[float]] = Kind("1.1x … 100x", _parse_factor, lambda value: f"{value:g}x")


@dataclass(frozen=True)
class OutlierOptions:
    """Options of an upstream. Times in seconds, shares in percent; 0 is off."""

    eject_errors: int = option(
        0,
        or_off(integer(1, 1000), 0),
        "After how many failures in a row a server is ejected: no answer, a broken one, a status of 5xx, "
        "or a call of gRPC that it ends at once with the like.",
    )
    eject_error_rate: int = option(
        0,
        or_off(PERCENT, 0),
        "From which share of failures on a server is ejected, among 20 requests or more in about 10 seconds.",
    )
    eject_latency: float = option(
        0.0,
        or_off(FACTOR, 0.0),
        "How many times the median of the others the average time to a server's answer may be, among 20 "
        "requests or more in about 10 seconds; a slower one is ejected.",
    )
    eject_time: float = option(
        30.0,
        TIMEOUT,
        "How long a server is ejected the first time; the next times in a row 2, 3 … 10 times as long.",
    )
    eject_max: int = option(
        50, PERCENT, "The largest share of the servers that may be ejected at one time, rounded down."
    )

    @property
    def ejects(self) -> bool:
        """Whether anything can lead to ejection."""
        return bool(self.eject_errors or self.eject_error_rate or self.eject_latency)

    @property
    def eject_key(self) -> Hashable:
        """What gives the history of the servers its meaning."""
        return tuple(getattr(self, key) for key in _KEYS)

    def eject_idle(self) -> Iterator[tuple[str, str]]:
        """Options that do nothing beside the others, each the key and why; `[defaults upstream]` may."""
        if not self.ejects:
            for key in ("eject_time", "eject_max"):
                if getattr(self, key) != _DEFAULTS[key]:
                    yield (
                        key,
                        "does nothing without eject_errors, eject_error_rate or eject_latency: add one of "
                        "them, or remove this",
                    )


_KEYS: Final = tuple(field.name for field in fields(OutlierOptions))
_DEFAULTS: Final = {key: getattr(OutlierOptions(), key) for key in _KEYS}


class _Record:
    """What requests met at one server. The three sums fade with time."""

    __slots__ = ("failed", "is_out", "returned", "server", "streak", "succeeded", "time", "times")

    def __init__(self, server: Server) -> None:
        self.server = server
        self.streak = 0  # failures since the last success
        self.failed = 0.0
        self.succeeded = 0.0
        self.time = 0.0  # seconds, of those that succeeded
        self.is_out = False
        self.times = 0  # ejections, less what good conduct took off
        self.returned = 0.0

    def forget(self) -> None:
        """Begin anew."""
        self.streak = 0
        self.failed = self.succeeded = self.time = 0.0

    def fade(self, rest: float) -> None:
        """Let what was count only as `rest` of what it counted."""
        self.failed *= rest
        self.succeeded *= rest
        self.time *= rest

    def would_do(self, now: float) -> bool:
        """Whether nothing but its ejection keeps the server from being used."""
        server = self.server
        return server.state.healthy and not server.down and not server.is_banned(now)

    @property
    def rate(self) -> float:
        """The share of failures; 0 as long as too little is known."""
        total = self.failed + self.succeeded
        return self.failed / total if total >= _ENOUGH else 0.0

    @property
    def latency(self) -> float:
        """Seconds on average; 0 as long as too little is known."""
        return self.time / self.succeeded if self.succeeded >= _ENOUGH else 0.0


class Outlier:
    """The judge of one upstream's servers. A value for `Kept`: with the same settings it survives a reload.

    `serve` tells it the servers of the generation that serves, when older judges are closed.
    """

    __slots__ = (
        "_allowed",
        "_due",
        "_errors",
        "_event",
        "_faded",
        "_options",
        "_out",
        "_records",
        "_upstream",
    )

    def __init__(self, upstream: str, options: OutlierOptions, event: Callable[..., None]) -> None:
        self._upstream = upstream
        self._options = options
        self._event = event
        self._errors = options.eject_errors
        self._records: dict[State, _Record] = {}
        self._out = 0  # how many are ejected
        self._allowed = 0  # … and may be
        self._due = 0.0  # monotonic moment of the next look at all servers
        self._faded = 0.0  # … of the last

    def serve(self, servers: Sequence[Server], now: float) -> None:
        """Judge these from now on. What is known of those that stay is kept."""
        before = self._records
        self._records = {}
        for server in servers:
            record = before.pop(server.state, None) or _Record(server)
            record.server = server
            self._records[server.state] = record
        for record in before.values():
            record.server.state.ejected_until = 0.0
        self._out = sum(record.is_out for record in self._records.values())
        self._allowed = sum(not server.down for server in servers) * self._options.eject_max // 100
        self._heed_share(now)

    def close(self) -> None:
        """Nobody is judged any more: all are back."""
        for state, record in self._records.items():
            if record.is_out:
                state.ejected_until = 0.0
        self._records = {}
        self._out = 0

    def observe(self, server: Server, failed: bool, seconds: float, now: float) -> None:
        """An attempt is over: whether it failed, and how long the server took to begin its answer."""
        if now >= self._due:
            self._look(now)
        record = self._records.get(server.state)
        # Of another generation; or sent before it was ejected, which says nothing new.
        if record is None or record.is_out:
            return
        if failed:
            record.failed += 1.0
            record.streak += 1
            if record.streak == self._errors:
                record.streak = 0
                self._eject(record, "consecutive_errors", f"{self._errors} in a row", now)
        else:
            record.streak = 0
            record.succeeded += 1.0
            record.time += seconds

    def relent(self, now: float) -> bool:
        """No server is usable: bring back one that is ejected, since others went away after it did.

        Returns whether there is one that a request may be sent to.
        """
        self._heed_share(now)
        return self._left(now) > 0

    # -- once a second

    def _look(self, now: float) -> None:
        """Bring back whose time is over, and compare the others."""
        records = self._records.values()
        for record in records:
            if record.is_out and record.server.state.ejected_until <= now:
                self._return(record, now)
        elapsed = now - self._faded
        if elapsed >= _TURN:
            self._faded = now
            # After a silence what is known is old before it is looked at.
            self._fade(elapsed - _TURN)
            self._compare_rates(now)
            self._compare_latencies(now)
            self._fade(_TURN)
        returns = [record.server.state.ejected_until for record in records if record.is_out]
        self._due = min(returns + [self._faded + _TURN])

    def _fade(self, seconds: float) -> None:
        rest = math.exp(-seconds / _MEMORY)
        for record in self._records.values():
            record.fade(rest)

    def _compare_rates(self, now: float) -> None:
        limit = self._options.eject_error_rate
        if not limit:
            return
        worst_first = sorted(self._judged(), key=lambda record: record.rate, reverse=True)
        for record in worst_first:
            rate = 100.0 * record.rate
            if rate < limit:
                break
            total = record.failed + record.succeeded
            if not self._eject(record, "error_rate", f"{rate:.0f}% of about {total:.0f}", now):
                break

    def _compare_latencies(self, now: float) -> None:
        factor = self._options.eject_latency
        if not factor:
            return
        known = [record for record in self._judged() if record.latency]
        known.sort(key=lambda record: record.latency)
        while len(known) > 1:
            slowest = known.pop()
            usual = median(record.latency for record in known)
            if slowest.latency <= max(usual * factor, usual + _NOTICEABLE):
                break
            detail = f"{1000 * slowest.latency:.0f} ms, the others {1000 * usual:.0f} ms"
            if not self._eject(slowest, "latency", detail, now):
                break

    def _judged(self) -> list[_Record]:
        return [record for record in self._records.values() if not record.is_out]

    # -- out and back

    def _left(self, now: float) -> int:
        return sum(record.server.is_fit(now) for record in self._records.values())

    def _eject(self, record: _Record, reason: str, detail: str, now: float) -> bool:
        """Leave a server alone; False: the law forbids it."""
        if self._out >= self._allowed:
            return False
        server, options = record.server, self._options
        left = self._left(now) - server.is_fit(now)
        if left < 1:
            return False
        good = int((now - record.returned) / options.eject_time) if record.times else 0
        record.times = min(max(record.times - good, 0) + 1, _MOST_TIMES)
        seconds = options.eject_time * record.times
        record.is_out = True
        self._out += 1
        record.forget()
        server.state.ejected_until = now + seconds
        self._due = min(self._due, now + seconds)
        self._event(
            "server_ejected",
            upstream=self._upstream,
            server=server.name,
            reason=reason,
            detail=detail,
            seconds=seconds,
            left=left,
        )
        return True

    def _return(self, record: _Record, now: float) -> None:
        state = record.server.state
        # Its slow start counts from the moment it could be chosen, which may be a while ago.
        record.returned = state.recovered = min(state.ejected_until, now)
        state.ejected_until = 0.0
        record.is_out = False
        self._out -= 1
        record.forget()
        self._event(
            "server_returned", upstream=self._upstream, server=record.server.name, left=self._left(now)
        )

    def _heed_share(self, now: float) -> None:
        """With fewer servers fewer may be out, and never all: who would come back first does so now."""
        out = [record for record in self._records.values() if record.is_out]
        out.sort(key=lambda record: record.server.state.ejected_until)
        while len(out) > self._allowed:
            self._return(out.pop(0), now)
        if out and not self._left(now):
            useful = next((record for record in out if record.would_do(now)), None)
            if useful is not None:
                self._return(useful, now)
