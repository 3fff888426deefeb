"""Notices that the drop-in directory may say something else than before.

Law: no change is lost. What cannot be told apart from a change counts as one.

The kernel reports changes of directories (inotify). Which directories matter follows from the path of the
drop-in directory and the links in it, so it is found out anew after every change. Where the kernel cannot
report, contents are compared every few seconds.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import stat
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, NamedTuple

import gevent
from gevent.event import Event

from .config.ini import MAX_FILE_SIZE, printable
from .runtime import Tasks

#: Seconds between two comparisons where the kernel does not report changes.
POLL_INTERVAL: Final = 2.0

#: Seconds a new file is given to be written and closed, so that half a file is not read.
_HOLD: Final = 0.5

_PAUSE: Final = 0.05  # seconds after a change: whatever happens in the directory, scans cost little
_ROUNDS: Final = 8  # scans until two agree; a directory that is still in motion gets another round
_MAX_LINKS: Final = 40  # in one path, as the kernel allows

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

#: File systems on which others make changes that this kernel does not see. The overlay of a container is
#: not one of them: what is changed through it is reported, and nobody may change what lies under it.
_BLIND: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "9p", "afs", "ceph", "gfs2", "lustre", "ocfs2"}
    | {"prl_fs", "vboxsf", "virtiofs", "vmhgfs"}
)


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


# What to watch ---------------------------------------------------------------------------------------------


class _Scan(NamedTuple):
    """The directories that matter, by their real paths."""

    names: dict[str, set[str]]  # directory → the entries that matter in it
    vital: set[str]  # directories that hold drop-ins, links on the way, or the place of something missing
    home: str  # the drop-in directory; empty: there is none
    blind: str  # file system that does not report every change; empty: all do


def _is_drop_in(name: str) -> bool:
    return name.endswith(".ini") and name[0] != "."


class _Scanner:
    """Follows paths and remembers what they depend on."""

    def __init__(self) -> None:
        self.names: dict[str, set[str]] = {}
        self.vital: set[str] = set()

    def scan(self, directory: str) -> _Scan:
        """Everything that `directory`, an absolute path, and its drop-ins depend on."""
        home = self.follow(directory)
        try:
            entries = sorted(os.listdir(home)) if home else []
        except OSError:
            entries, home = [], home if os.path.isdir(home) else ""
        if home:
            self._need(home)
        for name in entries:
            if _is_drop_in(name) and os.path.islink(os.path.join(home, name)):
                self.follow(os.path.join(home, name))
        return _Scan(self.names, self.vital, home, _blind(self.vital))

    def follow(self, path: str) -> str:
        """The real path; empty when it leads nowhere."""
        parts = deque(part for part in path.split("/") if part)
        here, links = "/", 0
        while parts:
            name = parts.popleft()
            if name in (".", ".."):
                here = os.path.dirname(here) if name == ".." else here
                continue
            self.names.setdefault(here, set()).add(name)
            full = os.path.join(here, name)
            target = _target(full)
            if target is None or links > _MAX_LINKS:
                self._need(here)
                return ""
            if target:
                links += 1
                self._need(here)
                parts.extendleft(reversed([part for part in target.split("/") if part]))
                here = "/" if target.startswith("/") else here
            elif parts and not os.path.isdir(full):
                self._need(here)
                return ""
            else:
                here = full
        self._need(os.path.dirname(here))
        return here

    def _need(self, directory: str) -> None:
        self.names.setdefault(directory, set())
        self.vital.add(directory)


def _target(path: str) -> str | None:
    """What a link points to; empty when it is no link; None when there is nothing to see."""
    try:
        return os.readlink(path) if stat.S_ISLNK(os.lstat(path).st_mode) else ""
    except OSError:
        return None


def _blind(directories: Iterable[str]) -> str:
    """The name of the first file system among those of `directories` that does not report every change."""
    kinds = _file_systems()
    for directory in sorted(directories):
        try:
            kind = kinds.get(os.stat(directory).st_dev, "")
        except OSError:
            continue
        if kind in _BLIND or (kind.startswith("fuse") and kind != "fuseblk"):
            return kind
    return ""


def _file_systems() -> dict[int, str]:
    """Device number → name of the file system, of all that is mounted; empty where nobody tells."""
    found = {}
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:
        return {}
    for line in lines:
        before, _, after = line.partition(b" - ")
        major, _, minor = before.split()[2].partition(b":")
        found[os.makedev(int(major), int(minor))] = os.fsdecode(after.split()[0])
    return found


def _contents(directory: str) -> bytes:
    """A digest of the names and bytes of the drop-ins, or of why they cannot be read."""
    digest = hashlib.sha256()
    try:
        names = sorted(filter(_is_drop_in, os.listdir(directory)))
    except OSError as error:
        return str(error.errno).encode()
    for name in names:
        digest.update(b"%d:%b" % (len(os.fsencode(name)), os.fsencode(name)))
        digest.update(_content(os.path.join(directory, name)))
    return digest.digest()


def _content(path: str) -> bytes:
    try:
        # Without O_NONBLOCK a FIFO with a matching name would stop the comparison for good.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return b"no file"
            return hashlib.sha256(file.read(MAX_FILE_SIZE + 1)).digest()
    except OSError as error:
        return str(error.errno).encode()


# Watching --------------------------------------------------------------------------------------------------


class _News(IntEnum):
    """What is known of a change. The greater says more."""

    NONE = 0
    CREATED = 1  # something new that may still be written
    CHANGED = 2


class Watch:
    """Calls `on_change()` when the drop-ins of `directory` may have changed, and once at the start.

    It is called in a task. `event(name, **fields)` is told of `watch_degraded`: contents are compared every
    `interval` seconds, too, because the kernel does not report every change.
    """

    def __init__(
        self,
        directory: Path,
        on_change: Callable[[], None],
        event: Callable[..., None],
        interval: float = POLL_INTERVAL,
    ) -> None:
        self._directory = os.path.abspath(directory)
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
                self._seen = _in_thread(_contents, self._directory)
            self._on_change()
            gevent.sleep(_PAUSE)
            self._await_news()

    def _await_news(self) -> None:
        while self._news is not _News.CHANGED:
            if self._wake.wait(self._patience()):
                self._wake.clear()
            elif self._news is _News.CREATED or _in_thread(_contents, self._directory) != self._seen:
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
            scan = _in_thread(_Scanner().scan, self._directory)
            if scan == before:
                return
            cause = self._place(scan)
            if cause and not self._cause:
                name = printable(Path(self._directory))
                self._event("watch_degraded", directory=name, cause=cause, interval=self._interval)
            self._cause = cause
            before = scan
        self._news = _News.CHANGED

    def _place(self, scan: _Scan) -> str:
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
        if name not in names and not (watch == self._home and _is_drop_in(name)):
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
