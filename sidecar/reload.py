"""Reloads: when the configuration is read again, and what is said about the result.

Law: one reload at a time, and a reload that fails changes nothing. A request that comes during a reload is
answered by one more afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import gevent

from .errors import ConfigurationError
from .runtime import Clock, Tasks

#: Seconds without a further request after which a reload begins, and the longest it is put off.
QUIET: Final = 0.1
LONGEST_WAIT: Final = 0.5

#: The reason of a request that nobody made by hand: it gets no answer when there is nothing new to say.
WATCH: Final = "inotify"
HUP: Final = "HUP"

CallLater = Callable[[float, Callable[[], None]], object]


class Configured(Protocol):
    """What `load` makes."""

    @property
    def fingerprint(self) -> str:
        """The same as long as what was read is the same."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a reload ended."""

    outcome: Literal["applied", "refused", "unchanged"]
    reason: str  # what asked for it; several are joined with ", "
    at: float  # seconds since 1970
    mistakes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why a reload failed. Equal refusals are one piece of news."""

    mistakes: tuple[str, ...]
    fingerprint: str  # of what could not be applied; empty when it could not be read


def later(tasks: Tasks) -> CallLater:
    """A `call_later` for `Reloader`: waits in a task, so that the reload may block."""

    def wait(seconds: float, function: Callable[[], None]) -> None:
        gevent.sleep(seconds)
        function()

    return lambda seconds, function: tasks.spawn("reload", wait, seconds, function)


class Reloader:
    """Gathers requests and reloads: `load` reads and checks, `apply` starts what was read.

    `events(name, **fields)` is told of `reload_applied`, `reload_refused` and `reload_unchanged`.
    `call_later(seconds, function)` calls `function` once, later, where it may block. Both `load` and
    `apply` may raise ConfigurationError; whatever else they raise is reported too, as `exc_info`.
    """

    def __init__(
        self,
        load: Callable[[], Configured],
        apply: Callable[[Any], None],
        events: Callable[..., None],
        clock: Clock,
        call_later: CallLater,
    ) -> None:
        self._load = load
        self._apply = apply
        self._event = events
        self._clock = clock
        self._call_later = call_later
        self._first = 0.0
        self._due = 0.0
        self._reasons: dict[str, None] = {}  # of the requests that wait, in their order
        self._is_waiting = False  # a call is on its way
        self._is_running = False
        self._is_stopped = False
        self._refusal: _Refusal | None = None  # the one that was reported and still stands
        self.fingerprint = ""  # of the generation that serves; set it when the first one was applied by hand
        self.applied = 0
        self.refused = 0
        self.last: Result | None = None

    def request(self, reason: str) -> None:
        """Ask for a reload; it comes soon. `reason` is WATCH, HUP or another word for the log."""
        if self._is_stopped:
            return
        now = self._clock.monotonic()
        if not self._reasons:
            self._first = now
        self._reasons[reason] = None
        self._due = min(now + QUIET, self._first + LONGEST_WAIT)
        self._wait()

    def stop(self) -> None:
        """Begin no reload any more; one that runs goes on."""
        self._is_stopped = True
        self._reasons.clear()

    def _wait(self) -> None:
        if self._reasons and not self._is_waiting and not self._is_running:
            self._is_waiting = True
            self._call_later(max(0.0, self._due - self._clock.monotonic()), self._wake)

    def _wake(self) -> None:
        self._is_waiting = False
        if self._reasons and self._clock.monotonic() >= self._due:
            reasons = list(self._reasons)
            self._reasons.clear()
            self._is_running = True
            try:
                self._reload(reasons)
            finally:
                self._is_running = False
        self._wait()

    def _reload(self, reasons: list[str]) -> None:
        started = self._clock.monotonic()
        fingerprint = ""
        try:
            configuration = self._load()
            fingerprint = configuration.fingerprint
            if fingerprint == self.fingerprint:
                self._unchanged(reasons)
                return
            self._apply(configuration)
        except ConfigurationError as error:
            self._refuse(reasons, _Refusal(tuple(error.mistakes), fingerprint))
        except Exception as error:  # noqa: BLE001 - a bug in a new generation must not end the one that serves
            text = f"{type(error).__name__}: {error}"
            self._refuse(reasons, _Refusal((text,), fingerprint), exc_info=error)
        else:
            self.fingerprint = fingerprint
            self.applied += 1
            self._refusal = None
            self._event(
                "reload_applied",
                reason=self._end("applied", reasons),
                seconds=round(self._clock.monotonic() - started, 3),
            )

    def _unchanged(self, reasons: list[str]) -> None:
        # Worth a word to the one who asked, and to the one who takes back a change that was refused.
        if reasons == [WATCH] and self._refusal is None:
            return
        self._refusal = None
        self._event("reload_unchanged", reason=self._end("unchanged", reasons))

    def _refuse(self, reasons: list[str], refusal: _Refusal, **fields: object) -> None:
        if reasons == [WATCH] and refusal == self._refusal:
            return
        self._refusal = refusal
        self.refused += 1
        reason = self._end("refused", reasons, refusal.mistakes)
        self._event("reload_refused", reason=reason, mistakes=list(refusal.mistakes), **fields)

    def _end(
        self,
        outcome: Literal["applied", "refused", "unchanged"],
        reasons: list[str],
        mistakes: tuple[str, ...] = (),
    ) -> str:
        self.last = Result(outcome, ", ".join(reasons), self._clock.time(), mistakes)
        return self.last.reason
