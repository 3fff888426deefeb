# cython: language_level=3, annotation_typing=False
"""How many retries an upstream bears at one time, so that a server in trouble is not asked twice as much.

The bound is Envoy's retry budget, max(3, a share of the requests in progress), with savings: a server that
dies takes all that it has in hand with it at once, of three servers a third of the requests in progress. That
is more than any share that bounds the load well. So requests that needed no retry save their share for such a
moment; over time retries stay the same share of the requests.

Law: each `begin` is followed by one `end`, and each `take` that gave True by one `give_back`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ..config.kinds import or_off
from ..config.schema import Kind, option, quoted

_UNBOUNDED: Final = -1
_ALWAYS: Final = 3  # retries at one time that a quiet upstream may have (Envoy's min_retry_concurrency)
_MOST_SAVED: Final = 1000  # retries

_PERCENT: Final = re.compile(r"([0-9]{1,3})%")


def percent(lo: int, hi: int) -> Kind[int]:
    """A share in whole percent between `lo` and `hi`, both included."""

    def parse(text: str) -> int:
        found = _PERCENT.fullmatch(text)
        if found is None:
            raise ValueError(
                f"{quoted(text)} is not a share: write whole percent, like {max(lo, min(20, hi))}%"
            )
        value = int(found[1])
        if not lo <= value <= hi:
            raise ValueError(f"{text} is not between {lo}% and {hi}%")
        return value

    return Kind(f"{lo}% … {hi}%", parse, lambda value: f"{value}%")


@dataclass(frozen=True)
class BudgetOptions:
    """How much may be tried again."""

    retry_budget: int = option(
        20,
        or_off(percent(0, 100), _UNBOUNDED),
        "Largest share of the requests that may be retries; what is not used is saved for the moment when a "
        "server dies, up to 1000 retries, and 3 at one time are always allowed; off: any number.",
    )


class Budget:
    """Requests and retries in progress of one upstream. `share` in percent; below 0: no bound."""

    __slots__ = ("_saved", "refused", "requests", "retries", "share")

    def __init__(self, share: int) -> None:
        self.share = share
        self.requests = 0  # in progress, each once, however often it is tried
        self.retries = 0  # in progress
        self.refused = 0  # retries, since the start
        self._saved = 0  # hundredths of retries

    def earn(self, requests: int) -> None:
        """So many requests have begun since the last time."""
        if self.share > 0:
            self._saved = min(self._saved + requests * self.share, _MOST_SAVED * 100)

    def begin(self) -> None:
        """A request begins."""
        self.requests += 1

    def end(self) -> None:
        """A request is over."""
        if self.requests > 0:
            self.requests -= 1

    def take(self) -> bool:
        """Whether one more retry may begin; it counts from now on if so."""
        # Whole numbers: 29% of 100 are 29, which 0.29 * 100 is not.
        more = self.retries + 1
        is_within = more <= _ALWAYS or self.share < 0 or more * 100 <= self.share * self.requests
        if not is_within and self._saved < 100:
            self.refused += 1
            return False
        # Each costs savings while there are any, or a long trouble would have the share twice.
        self._saved = max(0, self._saved - 100)
        self.retries = more
        return True

    def give_back(self) -> None:
        """A retry is over."""
        if self.retries > 0:
            self.retries -= 1

    def close(self) -> None:
        """Nothing is held; this is for `Kept`."""
