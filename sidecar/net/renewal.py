"""What is made of files and renewed with them: looked at when they may have changed, used when it is whole.

Law: reading blocks, so it happens in a thread; what is in use goes on until what replaces it is whole.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

import gevent
from gevent.lock import BoundedSemaphore

from ..runtime import Clock
from .agenda import Agenda, Plan
from .certificate_files import Flaw, Flawed

#: Seconds in which one of several files may be replaced without the others before that is a mistake.
GRACE: Final = 2.0


def in_thread(function: Callable[..., Any], *args: Any) -> Any:
    """What it returns. Disks may be slow, and so is the arithmetic of keys."""
    return gevent.get_hub().threadpool.apply(function, args)


class Marked(Protocol):
    """What is made of files."""

    @property
    def mark(self) -> bytes:
        """The same as long as the files are."""


T = TypeVar("T", bound=Marked)


class Renewed(ABC, Generic[T]):
    """Something made of files, and what is to be done when they are others."""

    def __init__(self, made: T, clock: Clock, agenda: Agenda) -> None:
        """`made`: of what the files say now."""
        self._made = made
        self._clock = clock
        self._agenda = agenda
        self._looking = BoundedSemaphore(1)
        self._is_closed = False
        self._later: Plan | None = None  # another look
        self._failed = b""  # the mark of files that could not be used, and since when
        self._failed_at = 0.0
        self._told = b""  # the mark of those whose refusal was told

    @property
    @abstractmethod
    def files(self) -> tuple[str, ...]:
        """All files that it is made of."""

    @abstractmethod
    def _read(self, seen: bytes) -> T | Flawed | None:
        """What the files make (blocks; in a thread); None when their mark is `seen`."""

    @abstractmethod
    def _take(self, made: T) -> None:
        """This is in use now."""

    @abstractmethod
    def _refuse(self, flaw: Flaw) -> None:
        """The files cannot be used, and that lasts. Told once for what they say."""

    def look(self) -> None:
        """Take into use what the files say, if that is new and whole (waits)."""
        with self._looking:
            made = in_thread(self._read, self._made.mark)
            if self._is_closed:
                return
            if isinstance(made, Flawed):
                self._weigh(made)
                return
            self._failed = self._told = b""
            if made is not None:
                self._made = made
                self._take(made)

    def close(self) -> None:
        """It is of no more use: nothing is taken or told from now on."""
        self._is_closed = True
        if self._later is not None:
            self._later.cancel()
            self._later = None

    def _weigh(self, flawed: Flawed) -> None:
        if flawed.mark == self._told:
            return
        now = self._clock.monotonic()
        if flawed.mark != self._failed:
            # Often the first of two files; the other one follows, and brings another look.
            self._failed, self._failed_at = flawed.mark, now
        seconds = self._failed_at + GRACE - now
        if seconds <= 0:
            self._told = flawed.mark
            self._refuse(flawed.flaw)
        elif self._later is None:
            self._later = self._agenda.plan(seconds, self._look_again)

    def _look_again(self) -> None:
        self._later = None
        self.look()


# Watching --------------------------------------------------------------------------------------------------


class Watching(Protocol):
    """A `watch.Watch`."""

    def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """End; nothing is called any more."""


#: (files, what to call when they may have changed) → what watches them.
Follow = Callable[[Sequence[str], Callable[[], None]], Watching]


class FileWatch:
    """Watches the files of all that counts now. A value for `Kept`."""

    def __init__(self, follow: Follow) -> None:
        self._follow = follow
        self._all: tuple[Renewed[Any], ...] = ()
        self._files: tuple[str, ...] = ()
        self._watch: Watching | None = None
        self._looking = BoundedSemaphore(1)
        self._asked = self._begun = 0

    def serve(self, ones: Iterable[Renewed[Any]]) -> None:
        """These are what counts from now on."""
        self._all = tuple(ones)
        files = tuple(sorted({path for one in self._all for path in one.files}))
        if files != self._files:
            self._stop()
            self._files = files
            if files:
                self._watch = self._follow(files, self.look)
                self._watch.start()

    def look(self) -> None:
        """Take into use what is new in the files (waits)."""
        self._asked += 1
        number = self._asked
        with self._looking:
            # A look that begins after it was asked for is good for all who asked until then.
            if self._begun < number:
                self._begun = self._asked
                for one in self._all:
                    one.look()

    def close(self) -> None:
        """Watch nothing any more."""
        self._all = self._files = ()
        self._stop()

    def _stop(self) -> None:
        if self._watch is not None:
            self._watch.stop()
            self._watch = None
