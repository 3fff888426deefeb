"""Notices that files may say something else than before: the drop-ins, or those that they name.

Law: no change is lost. What cannot be told apart from a change counts as one.

The kernel reports changes of directories (inotify). Which directories matter follows from the paths and the
links on them, so it is found out anew after every change. Where the kernel cannot report, contents are
compared every few seconds.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable, Iterator
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, Protocol

import gevent
from gevent.event import Event

from .config.ini import printable
from .paths import Scan, is_drop_in
from .runtime import Tasks

#: Seconds between two comparisons where the kernel does not report changes.
POLL_INTERVAL: Final = 2.0

#: Seconds a new file is given to be written and closed, so that half a file is not read.
_HOLD: Final = 0.5

_PAUSE: Final = 0.05  # seconds after a change: whatever happens in the directory, scans cost little
_ROUNDS: Final = 8  # scans until two agree; a directory that is still in motion gets another round

# Constants of <sys/inotify.h>.
_ATTRIB: Final = 0x4
_CLOSE_WRITE: Final = 0x8
_MOVED: Final = 0x40 | 0x80
_CREATE: Final = 0x100
_DELETE: Final = 0x200
_SELF: Final = 0x400 | 0x800  # deleted, moved
_UNMOUNT: Final = 0x2000
_OVERFLOW: Final = 0x4000
_ONLYDIR: Final = 0x1000000
_MASK_ADD: Final = 0x20000000

_ON_THE_WAY: Final = _MOVED | _CREATE | _DELETE | _SELF | _ONLYDIR | _MASK_ADD
_VITAL: Final = _ON_THE_WAY | _CLOSE_WRITE | _ATTRIB
_OWN_CHANGE: Final = _SELF | _UNMOUNT | _ATTRIB

_EVENT: Final = struct.Struct("iIII")  # watch, mask, cookie, length of the name that follows
_READ_SIZE: Final = 65536

#: Another scan finds out what became of a directory that is gone.
_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


class _Inotify:
    """One queue of the kernel. Every method raises OSError."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        if not hasattr(self._libc, "inotify_init1"):
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        self.descriptor = self._checked(self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))

    @staticmethod
    def _checked(result: int) -> int:
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return result

    def add(self, directory: str, mask: int) -> int:
        """Watch a directory, or add to what is watched in it; the number of the watch."""
        path = ctypes.c_char_p(os.fsencode(directory))
        return self._checked(self._libc.inotify_add_watch(self.descriptor, path, ctypes.c_uint32(mask)))

    def remove(self, watch: int) -> None:
        """End a watch; one that the kernel has ended is none of our business."""
        self._libc.inotify_rm_watch(self.descriptor, watch)

    def read(self) -> bytes:
        """What is queued, as far as it fits."""
        try:
            return os.read(self.descriptor, _READ_SIZE)
        except BlockingIOError:
            return b""


def _events(data: bytes) -> Iterator[tuple[int, int, str]]:
    """Watch, mask and name of each event. The name is empty for the directory itself."""
    at = 0
    while at < len(data):
        watch, mask, _cookie, length = _EVENT.unpack_from(data, at)
        at += _EVENT.size
        yield watch, mask, os.fsdecode(data[at : at + length].rstrip(b"\0"))
        at += length


# Watching --------------------------------------------------------------------------------------------------


class _News(IntEnum):
    """What is known of a change. The greater says more."""

    NONE = 0
    CREATED = 1  # something new that may still be written
    CHANGED = 2


class Watched(Protocol):
    """What may change: `paths.DropIns` or `paths.Files`. Its methods block."""

    name: str  # for people

    def scan(self) -> Scan:
        """Everything that it depends on."""

    def contents(self) -> bytes:
        """A digest: another one when it has changed."""


class Watch:
    """Calls `on_change()` when `watched` may have changed, and once at the start.

    It is called in a task. `event(name, **fields)` is told of `watch_degraded`: contents are compared every
    `interval` seconds, too, because the kernel does not report every change.
    """

    def __init__(
        self,
        watched: Watched,
        on_change: Callable[[], None],
        event: Callable[..., None],
        interval: float = POLL_INTERVAL,
    ) -> None:
        self._subject = watched
        self._on_change = on_change
        self._event = event
        self._interval = interval
        self._tasks = Tasks(lambda task, error: event("task_died", task=task, exc_info=error))
        self._inotify: _Inotify | None = None
        self._readable: Any = None  # the loop's watcher of the queue
        self._watched: dict[int, set[str]] = {}  # watch → the entries that matter
        self._home = 0  # the watch of the directory itself; 0: there is none
        self._news = _News.NONE
        self._wake = Event()
        self._cause = ""  # why contents are compared; empty: the kernel reports everything
        self._seen = b""  # what was compared last

    def start(self) -> None:
        """Begin, on the hub of this thread. Whatever changes from now on is noticed."""
        self._tasks.spawn("watch", self._run)

    def stop(self) -> None:
        """End; nothing is called any more."""
        self._tasks.stop()
        if self._inotify:
            self._readable.stop()
            self._readable.close()
            os.close(self._inotify.descriptor)
            self._inotify = None

    def _run(self) -> None:
        while True:
            self._news = _News.NONE
            self._settle()
            if self._cause:
                self._seen = _in_thread(self._subject.contents)
            self._on_change()
            gevent.sleep(_PAUSE)
            self._await_news()

    def _await_news(self) -> None:
        while self._news is not _News.CHANGED:
            if self._wake.wait(self._patience()):
                self._wake.clear()
            elif self._news is _News.CREATED or _in_thread(self._subject.contents) != self._seen:
                return

    def _patience(self) -> float | None:
        if self._news is _News.CREATED:
            return _HOLD
        return self._interval if self._cause else None

    # -- placing watches

    def _settle(self) -> None:
        """Watch what matters. A change between the look and the watch shows in a second look."""
        before = None
        for _ in range(_ROUNDS):
            scan = _in_thread(self._subject.scan)
            if scan == before:
                return
            cause = self._place(scan)
            if cause and not self._cause:
                name = self._subject.name
                self._event("watch_degraded", directory=name, cause=cause, interval=self._interval)
            self._cause = cause
            before = scan
        self._news = _News.CHANGED

    def _place(self, scan: Scan) -> str:
        """Put the watches where `scan` wants them; why some changes will not be reported, or nothing."""
        try:
            inotify = self._inotify or self._open()
        except OSError as error:
            return f"inotify is not available: {_advice(error)}"
        cause = f"{scan.blind} does not report every change" if scan.blind else ""
        watched: dict[int, set[str]] = {}
        self._home = 0
        for directory, names in scan.names.items():
            is_vital = directory in scan.vital
            try:
                watch = inotify.add(directory, _VITAL if is_vital else _ON_THE_WAY)
            except OSError as error:
                # A directory that may be passed but not listed is common on the way, and nobody swaps it.
                if error.errno not in _GONE and (is_vital or error.errno != errno.EACCES):
                    cause = f"{printable(Path(directory))} cannot be watched: {_advice(error)}"
                continue
            # Two paths may be one directory, mounted twice.
            watched.setdefault(watch, set()).update(names)
            self._home = watch if directory == scan.home else self._home
        for watch in self._watched.keys() - watched.keys():
            inotify.remove(watch)
        self._watched = watched
        return cause

    def _open(self) -> _Inotify:
        self._inotify = _Inotify()
        self._readable = gevent.get_hub().loop.io(self._inotify.descriptor, 1)
        self._readable.start(self._read)
        return self._inotify

    # -- reading events, on the hub

    def _read(self) -> None:
        data = self._inotify.read() if self._inotify else b""
        news = max((self._weigh(*event) for event in _events(data)), default=_News.NONE)
        if news > self._news:
            self._news = news
            self._wake.set()

    def _weigh(self, watch: int, mask: int, name: str) -> _News:
        if mask & _OVERFLOW:
            return _News.CHANGED
        names = self._watched.get(watch)
        if names is None:
            return _News.NONE
        if not name:
            return _News.CHANGED if mask & _OWN_CHANGE else _News.NONE
        if name not in names and not (watch == self._home and is_drop_in(name)):
            return _News.NONE
        return _News.CREATED if mask & _CREATE else _News.CHANGED


def _in_thread(function: Callable[..., Any], *args: Any) -> Any:
    # A file system that does not answer must not stop the proxy.
    return gevent.get_hub().threadpool.apply(function, args)


def _advice(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return "no watches are left: raise fs.inotify.max_user_watches"
    if error.errno == errno.EMFILE:
        return "too many are in use: raise fs.inotify.max_user_instances"
    return error.strerror or str(error)
