# cython: language_level=3, annotation_typing=False
"""How many requests of an upstream may be in progress at one time: a number, or what its latency allows.

A server that does all it can puts further requests into a queue: they take longer, and no more get done.
So its latency tells how many are enough. After every window, 0.1 s or two latencies long,

    limit' = limit x gradient + sqrt(limit)      gradient = allowed / median, between 1/2 and 1

where `median` is the latency in the window and `allowed` a little more than the base, the latency without a
queue. The root lets the limit grow as long as growing costs nothing. For a server that does C requests at one
time it comes to rest between C and 1.5 C and a few more: a short queue keeps the server busy. The limit stays
as it is while less than half of it is in use: then it decides nothing.

The base cannot be seen under load, so it is measured now and then: at a moment when half of the limit is
enough anyway, else with the limit halved, or lower where it is small, for some latencies. Half of what a base
too high leads to shows a lower one, so a base that was taken under load shrinks to the true one: at once for
quick servers; for one that does two requests of half a second at one time it takes minutes.

After the gradient controller of Envoy's adaptive concurrency filter (the root, 25% above the base, the median
latency, a base measured anew, also after five windows at the bottom) and Gradient2 of Netflix'
concurrency-limits (smoothing, no change while little is in use). Different from both: a measure takes half of
the limit, not a handful of requests, since what it refuses are requests of clients; and the next one comes
soon as long as they disagree.

Law: each `enter` that gave True is followed by one `leave`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt
from typing import Final

from ..config.kinds import integer
from ..config.schema import Kind, option

_ADAPTIVE: Final = -1
_FIRST: Final = 20  # the limit before anything is known
_FEWEST: Final = 20  # samples of a window
_FEWER: Final = 10  # samples of a measure, which is dear
_MOST: Final = 256  # samples that are kept of a window, the latest
_SHORTEST: Final = 0.1  # seconds of a window
_TOLERANCE: Final = 1.25  # latency above the base that is no queue yet
_SLACK: Final = 0.001  # seconds above the base that are noise of the machine, not a queue
_SMOOTHING: Final = 0.5
_SINKING: Final = 0.1  # how fast a base follows a lower median; a few quick errors must not define it
_AT_BOTTOM: Final = 5  # windows in a row with the lowest gradient after which the base is doubted
_UNIT: Final = 1.0  # seconds from a measure to the next while they disagree …
_UNITS: Final = 8.0  # … and at least so many latencies, of which a measure takes about five
_LONGEST: Final = 16  # units, to which the pause doubles while they agree


_NUMBER: Final = integer(1, 1_000_000)


def _parse(text: str) -> int:
    if text in ("off", "adaptive"):
        return _ADAPTIVE if text == "adaptive" else 0
    try:
        return _NUMBER.parse(text)
    except ValueError as error:
        raise ValueError(f"{error}, or adaptive, or off") from None


_WORDS: Final = {_ADAPTIVE: "adaptive", 0: "off"}

#: A number, -1 for adaptive, 0 for off.
LIMIT: Final[Kind[int]] = Kind(
    f"{_NUMBER.name} | adaptive | off", _parse, lambda value: _WORDS.get(value) or str(value)
)


@dataclass(frozen=True)
class ConcurrencyOptions:
    """How much an upstream works on at one time."""

    concurrency_limit: int = option(
        0,
        LIMIT,
        "Requests in progress at one time; adaptive: as many as the latency shows that the servers can bear.",
    )
    concurrency_min: int = option(1, integer(1, 1_000_000), "Lowest limit that adaptive may choose.")
    concurrency_max: int = option(1000, integer(1, 1_000_000), "Highest limit that adaptive may choose.")

    def concurrency_mistakes(self) -> Iterator[tuple[str, str]]:
        """Bounds that cross."""
        if self.concurrency_limit == _ADAPTIVE and self.concurrency_min > self.concurrency_max:
            yield "concurrency_min", f"is above concurrency_max, {self.concurrency_max}: write at most that"

    def concurrency_idle(self) -> Iterator[tuple[str, str]]:
        """Bounds of what is fixed, each the key and why; `[defaults upstream]` may have them."""
        if self.concurrency_limit != _ADAPTIVE:
            for key in ("concurrency_min", "concurrency_max"):
                if getattr(self, key) != getattr(ConcurrencyOptions, key):
                    yield key, "has no use without concurrency_limit = adaptive: write that, or drop it"


class Gradient:
    """The limit that the latency allows, between `least` and `most`."""

    __slots__ = (
        "_at_bottom",
        "_count",
        "_due",
        "_ends",
        "_estimate",
        "_from",
        "_is_measuring",
        "_is_new",
        "_least",
        "_median",
        "_most",
        "_pause",
        "_samples",
        "_until",
        "base",
        "limit",
        "peak",
    )

    def __init__(self, least: int, most: int) -> None:
        self._least = least
        self._most = most
        self._estimate = float(min(max(_FIRST, least), most))
        self.limit = int(self._estimate)  # while measuring, about half of the estimate
        self.peak = 0  # most requests in progress at one time in this window; the caller's word
        self._samples = [0.0] * _MOST
        self._count = 0  # samples of this window
        self._from = 0.0  # when samples begin to count
        self._ends = 0.0  # the earliest end of this window
        self._median = 0.0  # seconds; of the last window
        self.base = -1.0  # seconds without a queue; below 0: not measured yet
        self._pause = 1  # units between measures
        self._due = 0.0  # when the next one begins
        self._until = 0.0  # when the one in progress has failed
        self._is_measuring = False
        self._is_new = True  # no window was too slow so far: the limit doubles instead of creeping
        self._at_bottom = 0

    def __repr__(self) -> str:
        what = " measuring" if self._is_measuring else ""
        return f"<Gradient limit={self.limit} base={self.base:.6f} median={self._median:.6f}{what}>"

    def sample(self, seconds: float, active: int, now: float) -> None:
        """One latency; `active` are in progress without it."""
        if now < self._from:
            return
        if self._count == 0 and self._ends == 0.0:
            self._open(now, self.peak)
        self._samples[self._count % _MOST] = seconds
        self._count += 1
        if now >= self._ends and self._count >= (_FEWER if self._is_measuring else _FEWEST):
            self._close(now, active)

    def expire(self, active: int, now: float) -> bool:
        """Give up a measure that comes to nothing; whether there was one. The limit is the old one again.

        Either it takes too long, or requests that hang leave no room to measure others.
        """
        if not self._is_measuring or now < (self._from if active > self.limit else self._until):
            return False
        self._pause = min(self._pause * 2, _LONGEST)
        self._due = now + self._pause * max(_UNIT, _UNITS * self.base)
        self._resume()
        self._open(now, self.peak)
        return True

    def _open(self, now: float, active: int) -> None:
        """A window begins."""
        self._count = 0
        self.peak = active
        self._from = now
        self._ends = now + max(_SHORTEST, 2.0 * self._median)

    def _close(self, now: float, active: int) -> None:
        kept = sorted(self._samples[: min(self._count, _MOST)])
        self._median = kept[len(kept) // 2]
        if self._is_measuring:
            self._resume()
            self._measured(now)
        elif self.base < 0.0:
            self._measured(now)
        elif 2 * self.peak > self.limit:
            self._adapt()
            if now >= self._due or self._at_bottom >= _AT_BOTTOM:
                self._measure(now)
                return
        elif now >= self._due:
            self._measured(now)
        self._open(now, active)

    def _adapt(self) -> None:
        """The window was a busy one: the limit follows its latency."""
        median = self._median
        if median < self.base:
            self.base += (median - self.base) * _SINKING
        allowed = self.base * _TOLERANCE + _SLACK
        gradient = max(0.5, allowed / median) if median > allowed else 1.0
        self._is_new = self._is_new and gradient == 1.0
        self._at_bottom = self._at_bottom + 1 if gradient == 0.5 else 0
        old = self._estimate
        wanted = old * gradient + (old if self._is_new else sqrt(old))
        self._estimate = min(max(old + (wanted - old) * _SMOOTHING, self._least), self._most)
        self.limit = int(self._estimate)

    def _measure(self, now: float) -> None:
        """Begin a measure, where what is in progress now does not count."""
        old = self._estimate
        self._is_measuring = True
        self.limit = max(self._least, int(min(old / 2.0, old - 2.0 * sqrt(old))))
        self._count = 0
        self._from = now + 2.0 * self._median
        self._ends = self._from + 2.0 * self._median
        self._until = self._from + 12.0 * self._median + _SHORTEST

    def _resume(self) -> None:
        """The limit from before the measure."""
        self._is_measuring = False
        self._at_bottom = 0
        self.limit = int(self._estimate)

    def _measured(self, now: float) -> None:
        """The median of the last window is the latency without a queue."""
        old, base = self.base, self._median
        self.base = base
        if old < 0.0 or abs(base - old) > old * (_TOLERANCE - 1.0) + _SLACK:
            # Lower: the next one may go lower still. Higher: the server may just have stood still.
            self._pause = 1
        else:
            self._pause = min(self._pause * 2, _LONGEST)
        # Not the higher one, which may be a standstill that is over.
        self._due = now + self._pause * max(_UNIT, _UNITS * min(old, base))


class Concurrency:
    """The requests of one upstream in progress, and their limit."""

    __slots__ = ("_gradient", "active", "limit", "refused")

    def __init__(self, limit: int, gradient: Gradient | None = None) -> None:
        self._gradient = gradient
        self.limit = gradient.limit if gradient is not None else limit
        self.active = 0
        self.refused = 0  # since the start

    def __repr__(self) -> str:
        return f"<Concurrency {self.active} of {self.limit}, refused={self.refused} {self._gradient or ''}>"

    def enter(self, now: float) -> bool:
        """Whether a request may begin; it is in progress from now on if so."""
        if self.active >= self.limit and not self._is_expired(now):
            self.refused += 1
            return False
        self.active += 1
        gradient = self._gradient
        if gradient is not None and self.active > gradient.peak:
            gradient.peak = self.active
        return True

    def _is_expired(self, now: float) -> bool:
        """Whether the limit was low for a measure that is given up now, and has room again."""
        gradient = self._gradient
        if gradient is None or not gradient.expire(self.active, now):
            return False
        self.limit = gradient.limit
        return self.active < self.limit

    def leave(self, seconds: float | None, now: float) -> None:
        """A request is no longer in progress. `seconds` since `enter`, when they tell about the load.

        They do when a response began, and when a timeout struck: it took at least so long. None: it failed
        quickly, or the client left. With an adaptive limit this is the moment when the response begins, not
        when its body ends: a body's pace is the client's, and streams would hold all places and tell nothing.
        """
        if self.active > 0:
            self.active -= 1
        gradient = self._gradient
        if gradient is not None and seconds is not None:
            gradient.sample(seconds, self.active, now)
            self.limit = gradient.limit

    def close(self) -> None:
        """Nothing is held; this is for `Kept`."""


def concurrency(options: ConcurrencyOptions) -> Concurrency | None:
    """What counts for these options; None when there is no limit."""
    limit = options.concurrency_limit
    if limit == _ADAPTIVE:
        return Concurrency(0, Gradient(options.concurrency_min, options.concurrency_max))
    return Concurrency(limit) if limit else None
