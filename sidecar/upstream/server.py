# cython: language_level=3, annotation_typing=False
"""A server of an upstream as requests meet it: its connections, its load, and what is known of its health.

Two halves. `Server` belongs to a generation: the settings of one configuration. `State` survives reloads: it
is what was learned about an address of an upstream. Law: whoever takes a server gives it back, exactly once,
however the attempt ends; until then it counts as active.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from .pool import AnyPool

#: From here on a status says that the server failed; for `max_fails` it counts only when it is configured to.
_SERVER_ERROR: Final = 500


class State:
    """What was learned about one address of one upstream. Moments are of the monotonic clock, 0: never."""

    __slots__ = (
        "accessed",
        "active",
        "checked",
        "ejected_until",
        "fails",
        "healthy",
        "recovered",
        "time",
        "timed",
    )

    def __init__(self) -> None:
        self.active = 0  # attempts in progress, tunnels included
        self.fails = 0  # failures that count, as nginx counts them
        self.accessed = 0.0  # the last failure
        self.checked = 0.0  # the last failure, or the probe after a ban
        self.healthy = True  # the word of the active checks
        self.ejected_until = 0.0  # by the outlier detection
        self.recovered = 0.0  # when it became usable again: slow start counts from here
        self.time = 0.0  # seconds, peak EWMA of the time to the first byte
        self.timed = 0.0  # when `time` was last changed

    def close(self) -> None:
        """Nothing is held; this is for `Kept`."""


class Server:
    """One server in one generation."""

    __slots__ = (
        "backup",
        "credit",
        "down",
        "effective",
        "fail_timeout",
        "key",
        "limit",
        "max_fails",
        "name",
        "observer",
        "on_free",
        "pool",
        "slow_start",
        "state",
        "weight",
    )

    def __init__(self, name: str, pool: AnyPool, state: State, weight: int = 1) -> None:
        self.name = name  # as the log and the configuration name it
        self.pool = pool
        self.state = state
        self.weight = weight
        self.effective = weight  # the weight less what failures took, as nginx has it
        self.credit = 0  # of smooth weighted round robin
        self.key: Any = name  # by what hashing places it
        self.limit = 0  # attempts at one time; 0: no limit
        self.max_fails = 1  # 0: failures do not count
        self.fail_timeout = 10.0  # seconds
        self.slow_start = 0.0  # seconds
        self.backup = False
        self.down = False
        self.on_free: Callable[[], None] | None = None  # told when an attempt is over
        #: Told how an attempt went: (server, whether it failed or None, seconds to the head of the response).
        self.observer: Observer | None = None

    def is_usable(self, now: float) -> bool:
        """Whether a request may be sent to it at this moment."""
        limit = self.limit
        if limit and self.state.active >= limit:
            return False
        return self.is_fit(now)

    def has_room(self) -> bool:
        """Whether it is below its limit."""
        return not self.limit or self.state.active < self.limit

    def is_fit(self, now: float) -> bool:
        """Whether it would do if it had room."""
        state = self.state
        if self.down or not state.healthy or state.ejected_until > now:
            return False
        return not self.max_fails or not self.is_banned(now)

    def is_banned(self, now: float) -> bool:
        """Whether it failed too often of late. After a ban one request tries it; the others wait for that."""
        state = self.state
        return 0 < self.max_fails <= state.fails and now - state.checked <= self.fail_timeout

    def failed(self, now: float, seconds: float = 0.0) -> None:
        """An attempt failed through its fault."""
        state = self.state
        state.fails += 1
        state.accessed = state.checked = now
        if self.max_fails:
            self.effective = max(0, self.effective - self.weight // self.max_fails)
        if self.observer is not None:
            self.observer(self, True, seconds)

    def succeeded(self, now: float, status: int, seconds: float) -> None:
        """It answered. Failures are forgotten after their window: this was the probe after a ban, say."""
        state = self.state
        if state.fails and state.accessed < state.checked:
            if 0 < self.max_fails <= state.fails:
                state.recovered = now
            state.fails = 0
        if self.observer is not None:
            self.observer(self, status >= _SERVER_ERROR, seconds)

    def take(self, now: float) -> None:
        """An attempt begins."""
        state = self.state
        state.active += 1
        if now - state.checked > self.fail_timeout:
            state.checked = now

    def give_back(self) -> None:
        """The attempt is over, with its body or tunnel."""
        self.state.active -= 1
        if self.on_free is not None:
            self.on_free()


Observer = Callable[[Server, bool | None, float], None]
