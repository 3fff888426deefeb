"""Log lines on their way out: gathered in memory, written in batches by a thread.

`write` never blocks and never raises. Lines that nobody takes are held up to a bound, then dropped and
counted. All methods belong to the hub's thread; a Writer is made after the fork of the process that uses it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

import gevent
from gevent.event import Event
from gevent.threadpool import ThreadPool

from .sink import Outcome, Sink

MAX_PENDING: Final = 8 * 1024 * 1024  # bytes
INTERVAL: Final = 0.2  # seconds
_BATCH: Final = 256 * 1024  # bytes that are worth a write before the interval is over
_RETRY: Final = 1.0  # seconds until a target that failed is tried again; twice as many after each failure …
_LONGEST_RETRY: Final = 16.0  # … up to this
_CLOSED: Final = -1  # the mark that every line passes


class OnProblem(Protocol):
    """Told about the log itself, with names of `events.EVENTS`; must not block or raise."""

    def __call__(self, name: str, /, **fields: object) -> None:
        """Take one event."""


class Scheduler(Protocol):
    """One timer and one thread."""

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Call once, later; replaces what was asked for before."""

    def cancel(self) -> None:
        """Forget the call."""

    def run(self, work: Callable[[], Outcome], done: Callable[[Outcome | None], None]) -> None:
        """Do `work` in the thread, then call `done` in the hub; with None when the work itself broke."""

    def close(self, busy: bool) -> None:
        """No more calls; `busy`: the thread is still at work and is left to the end of the process."""


class GeventScheduler:
    """A timer of the loop and a gevent thread pool of one.

    Its own pool: a pipe that nobody reads must not take a thread from password hashing, nor wait for one.
    """

    def __init__(self) -> None:
        self._loop = gevent.get_hub().loop
        self._timer: Any = None
        self._pool = ThreadPool(1)
        self._pool.size = 1  # the thread now, not when the machine has none left

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Call once, later; replaces what was asked for before."""
        self.cancel()
        self._timer = self._loop.timer(seconds, ref=False)
        self._timer.start(call)

    def cancel(self) -> None:
        """Forget the call."""
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None

    def run(self, work: Callable[[], Outcome], done: Callable[[Outcome | None], None]) -> None:
        """Do `work` in the thread, then call `done` in the hub; with None when the work itself broke."""
        # Never waits: the pool has a place when nothing is in flight, and a Writer has one write in flight.
        self._pool.spawn(work).rawlink(partial(_hand_over, done))

    def close(self, busy: bool) -> None:
        """No more calls; `busy`: the thread is still at work and is left to the end of the process."""
        self.cancel()
        if not busy:
            self._pool.kill()


def _hand_over(done: Callable[[Outcome | None], None], result: Any) -> None:
    done(result.value if result.successful() else None)


class Writer:
    """The way out for lines to one target: "stdout", "stderr" or a path.

    `max_pending` bytes are held at most, those being written included; `interval` seconds is the longest a
    line waits when the target takes it. Raises OSError when the target cannot be opened.
    """

    __slots__ = (
        "_armed",
        "_busy",
        "_closed",
        "_dropping",
        "_dropping_from",
        "_failing",
        "_failing_from",
        "_finished",
        "_flush_at",
        "_handed",
        "_handed_lines",
        "_interval",
        "_lines",
        "_mark",
        "_max_pending",
        "_on_problem",
        "_owed_lines",
        "_reopen",
        "_retry",
        "_scheduler",
        "_sink",
        "_size",
        "dropped",
        "failed",
        "is_terminal",
        "target",
    )

    def __init__(
        self,
        target: str,
        *,
        max_pending: int = MAX_PENDING,
        interval: float = INTERVAL,
        on_problem: OnProblem,
        scheduler: Scheduler | None = None,
    ) -> None:
        self._sink = Sink(target)
        self.target = target
        self.is_terminal = self._sink.is_terminal
        self.dropped = 0  # lines that nobody will see
        self.failed = 0  # writes that ended in an error
        self._scheduler: Scheduler = scheduler or GeventScheduler()
        self._on_problem = on_problem
        self._interval = interval
        self._max_pending = max_pending
        self._flush_at = min(_BATCH, max_pending // 2)
        self._lines: list[bytes] = []
        self._size = 0  # bytes not known to be written
        self._mark = 0  # the size above which `write` has more to do than to append
        self._handed = 0  # bytes the thread has to write
        self._handed_lines = 0
        self._owed_lines = 0  # lines a failed write left in the sink
        self._armed = False
        self._busy = False
        self._closed = False
        self._failing = False
        self._failing_from = 0  # `dropped` when the failing began
        self._retry = _RETRY
        self._reopen = False
        self._dropping = False
        self._dropping_from = 0  # `dropped` when the dropping began
        self._finished = Event()

    def write(self, line: bytes) -> None:
        """Take one complete line, its newline included."""
        self._lines.append(line)
        self._size = size = self._size + len(line)
        if size > self._mark:
            self._pass_mark()

    def reopen(self) -> None:
        """Open the path again, after a rotation; what pends goes to the new file. Not for stdout, stderr."""
        if self._sink.path is None or self._closed:
            return
        self._reopen = True
        if not self._busy:
            self._flush()

    def close(self, timeout: float) -> bool:
        """Write what pends and take no more; True when all was written within `timeout` seconds.

        Lines that are lost by that are told of.
        """
        if self._closed:
            return self._size == 0
        self._closed = True
        dropped = self._dropping_from if self._dropping else self.dropped
        if not self._busy:
            self._flush()
        self._mark = _CLOSED
        self._finished.wait(timeout)
        self._scheduler.close(self._busy)
        self.dropped += len(self._lines) + (self._handed_lines if self._busy else self._owed_lines)
        self._lines.clear()
        if not self._busy:
            self._sink.close()
        if self.dropped > dropped:
            self._tell_dropped(dropped)
        return self._size == 0

    def withdraw(self) -> None:
        """Take no more, and leave no empty file behind that was not there before."""
        if self._size or self._busy or self._closed:
            self.close(0.0)
            return
        self._closed = True
        self._mark = _CLOSED
        self._scheduler.close(busy=False)
        self._sink.withdraw()

    def _pass_mark(self) -> None:
        """The rare part of `write`: the first line of a batch, a full batch, or no room."""
        if self._closed or self._size > self._max_pending:
            self._drop_last()
            return
        if not self._armed:
            self._arm(self._interval)
        if self._size > self._flush_at:
            self._flush()

    def _drop_last(self) -> None:
        self._size -= len(self._lines.pop())
        self.dropped += 1
        if self._closed or self._dropping:
            return
        self._dropping = True
        self._dropping_from = self.dropped - 1
        self._on_problem("log_dropped", target=self.target, state="started", pending=self._size)

    def _arm(self, seconds: float) -> None:
        self._armed = True
        self._scheduler.after(seconds, self._flush)
        self._mark = self._max_pending if self._failing else self._flush_at

    def _flush(self) -> None:
        """Hand all that pends to the thread."""
        self._scheduler.cancel()
        self._armed = False
        self._busy = True
        self._mark = _CLOSED if self._closed else self._max_pending
        lines, self._lines = self._lines, []
        reopen, self._reopen = self._reopen, False
        self._handed = self._size
        self._handed_lines = len(lines) + self._owed_lines
        self._scheduler.run(partial(self._sink.put, lines, reopen), partial(self._done, self.dropped))

    def _done(self, dropped_before: int, outcome: Outcome | None) -> None:
        """The thread is free again. Decide what comes next, and only then tell: telling may write."""
        outcome = outcome or Outcome(lost=self._handed_lines, error="the writing thread broke")
        was_failing, was_dropping = self._failing, self._dropping
        self._busy = False
        if not was_failing:
            self._failing_from, self._retry = self.dropped, _RETRY
        self._size += outcome.owed - self._handed
        self._owed_lines = outcome.owed_lines
        self._failing = bool(outcome.error)
        # A batch that went out while no line was dropped: the target keeps up again.
        self._dropping = was_dropping and (self._failing or self.dropped > dropped_before)
        self.dropped += outcome.lost
        self.failed += self._failing
        self._go_on()
        self._tell(outcome, was_failing)
        if was_dropping and not self._dropping and not self._closed:
            self._tell_dropped(self._dropping_from)

    def _tell_dropped(self, before: int) -> None:
        count = self.dropped - before
        self._on_problem("log_dropped", target=self.target, state="ended", dropped=count)

    def _go_on(self) -> None:
        """Write more now, later, or when a line comes."""
        if self._reopen or (not self._failing and self._size > (0 if self._closed else self._flush_at)):
            self._flush()
        elif self._closed:
            self._finished.set()
        elif self._size:
            self._arm(self._retry if self._failing else self._interval)
            self._retry = min(2 * self._retry, _LONGEST_RETRY)
        else:
            self._mark = 0

    def _tell(self, outcome: Outcome, was_failing: bool) -> None:
        """One event when the target begins to fail, one when it works again, one for a file opened anew."""
        if outcome.reopened:
            self._on_problem("log_reopened", target=self.target, lost=outcome.lost)
        if outcome.refusal:
            self._on_problem("log_failed", target=self.target, doing="reopen", error=outcome.refusal)
        if self._failing and not was_failing:
            self._on_problem("log_failed", target=self.target, doing="write", error=outcome.error)
        if was_failing and not self._failing:
            dropped = self.dropped - self._failing_from
            self._on_problem("log_recovered", target=self.target, failed=self.failed, dropped=dropped)
