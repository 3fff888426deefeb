"""Events that strangers can cause at will (`is_spared`), told sparingly: some, then the number left out.

Law: the first of a kind is always told, and none is forgotten in the count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from .events import EVENTS

#: Events of one kind in one period, and its length in seconds.
MOST: Final = 10
PERIOD: Final = 10.0


class Sparing:
    """`event(name, **fields)`; of one that is spared at most MOST in PERIOD at each listener.

    `now` gives monotonic seconds.
    """

    __slots__ = ("_event", "_kinds", "_now")

    def __init__(self, event: Callable[..., None], now: Callable[[], float]) -> None:
        self._event = event
        self._now = now
        self._kinds: dict[tuple[str, object], tuple[float, int, int]] = {}  # since when, told, left out

    def __call__(self, name: str, /, **fields: object) -> None:
        """Tell it, or count it. What was left out before is told with the next as `left_out`.

        Raises LookupError for a name that is not declared.
        """
        if not EVENTS[name].is_spared:
            self._event(name, **fields)
            return
        kind = name, fields.get("listener")
        since, told, left_out = self._kinds.get(kind, (-PERIOD, 0, 0))
        now = self._now()
        if now - since >= PERIOD:
            since, told = now, 0
        if told >= MOST:
            self._kinds[kind] = (since, told, left_out + 1)
            return
        self._kinds[kind] = (since, told + 1, 0)
        if left_out:
            fields["left_out"] = left_out
        self._event(name, **fields)
