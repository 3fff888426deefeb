# cython: language_level=3, annotation_typing=False
"""How many retries an upstream bears at one time, so that a server in trouble is not asked twice as much.

The bound is Envoy's retry budget, max(3, a share of the requests in progress), with savings: a server that
dies takes all that it has in hand with it at once, of three servers a third of the requests in progress. That
is more than any share that bounds the load well. So requests that needed no retry save their share for such a
moment; over time retries stay the same share of the requests.

Law: each `take` that gave True is followed by one `give_back`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..config.kinds import or_off, percent
from ..config.schema import option

_UNBOUNDED: Final = -1
_ALWAYS: Final = 3  # retries at one time that a quiet upstream may have (Envoy's min_retry_concurrency)
_MOST_SAVED: Final = 1000  # retries


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
    """The retries of one upstream. `share` in percent; below 0: no bound."""

    __slots__ = ("_saved", "refused", "retries", "share")

    def __init__(self, share: int) -> None:
        self.share = share
        self.retries = 0  # in progress
        self.refused = 0  # retries, since the start
        self._saved = 0  # hundredths of retries

    def earn(self, requests: int) -> None:
        """So many requests have begun since the last time."""
        if self.share > 0:
            self._saved = min(self._saved + requests * self.share, _MOST_SAVED * 100)

    def take(self, requests: int = 0) -> bool:
        """Whether one more retry may begin while `requests` are in progress; it counts from now on if so."""
        # Whole numbers: 29% of 100 are 29, which 0.29 * 100 is not.
        more = self.retries + 1
        is_within = more <= _ALWAYS or self.share < 0 or more * 100 <= self.share * requests
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
