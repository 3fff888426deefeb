"""One descriptor that takes log lines; the blocking half of a Writer, run in a thread of its own.

A line that was begun is continued, or the file it was begun in is left behind: no file ever holds the tail
of a line without its beginning. Nothing here touches the hub, and one call at a time is in progress.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple

from gevent import monkey

STANDARD: Final = {"stdout": 1, "stderr": 2}

_MODE: Final = 0o640
#: Not blocking: the open of a FIFO that nobody reads must fail, not hang.
_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_POLL_MS: Final = 1000

# The patched ones would make a hub in the writing thread.
_poll: Final = monkey.get_original("select", "poll")
_allocate_lock: Final = monkey.get_original("_thread", "allocate_lock")

#: (device, inode) → lock: stdout and stderr of one process are often the same pipe.
_locks: dict[tuple[int, int], Any] = {}
# A thread that holds one does not exist in a forked process, and would hold it there for ever.
os.register_at_fork(after_in_child=_locks.clear)


_NO_ROOM: Final = "has no room: free some on its file system, or name another file"
_ADVICE: Final = {
    errno.EBADF: "is closed: open it (>/dev/null throws it away), or write off or a path",
    errno.ENOENT: "is in a directory that does not exist: make it first, or name another file",
    errno.ENOTDIR: "is below something that is not a directory: name another file",
    errno.EISDIR: "is a directory: name a file in it",
    errno.EROFS: "is on a read-only file system: make that writable, or name another file",
    errno.ENXIO: "is a FIFO or socket that nobody reads: start its reader first",
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: _NO_ROOM,
}


def open_advice(error: OSError) -> str:
    """What is wrong with a target that cannot be had, and what would be right."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"uid {os.geteuid()} may not write it: change the permissions of it or of its directory"
    return _ADVICE.get(error.errno or 0, f"cannot be opened: {error.strerror or error}: name another file")


def obstacle(target: str) -> str:
    """What `open_advice` would say of a target, as far as a look can tell; or nothing. It makes no file."""
    if target in STANDARD:
        return ""
    is_there = os.path.exists(target)
    place = target if is_there else os.path.dirname(target) or "."
    try:
        code = _obstacle(place, is_there)
    except OSError as error:
        return open_advice(error)
    return open_advice(OSError(code, os.strerror(code))) if code else ""


def _obstacle(place: str, is_there: bool) -> int:
    """The errno that opening a file at `place`, or making one in it, would end with; 0: none."""
    if stat.S_ISDIR(os.stat(place).st_mode) == is_there:
        return errno.EISDIR if is_there else errno.ENOTDIR
    if os.statvfs(place).f_flag & os.ST_RDONLY:
        return errno.EROFS
    if not os.access(place, os.W_OK if is_there else os.W_OK | os.X_OK):
        return errno.EACCES
    return 0


class Outcome(NamedTuple):
    """What became of one `put`."""

    owed: int = 0  # bytes kept for the next `put`
    owed_lines: int = 0  # lines in them, a begun one included
    lost: int = 0  # lines given up because their beginning is in another file
    error: str = ""  # why the writing stopped
    reopened: bool = False
    refusal: str = ""  # why the file could not be opened again; the old one stays


class Sink:
    """stdout, stderr or a file opened for appending. Raises OSError when `target` cannot be had."""

    __slots__ = ("_fd", "_is_new", "_lock", "_rest", "_torn", "path", "target")

    def __init__(self, target: str) -> None:
        self.target = target
        self.path = None if target in STANDARD else target
        self._is_new = False
        if self.path is None:
            self._fd = _standard(target)
        else:
            self._fd, self._is_new = _open_or_make(self.path)
        self._lock = _lock_of(self._fd)
        self._rest = b""
        self._torn = False  # the rest begins inside a line

    @property
    def is_terminal(self) -> bool:
        """Whether a person looks at it."""
        return os.isatty(self._fd)

    def put(self, lines: Sequence[bytes], reopen: bool = False) -> Outcome:
        """Write what an earlier call left and then `lines`; blocks as long as the target does.

        With `reopen` the path is opened anew first. An error ends the writing; the rest is kept.
        """
        refusal, lost = self._reopen() if reopen else ("", 0)
        data = b"".join((self._rest, *lines))
        with _alone(self._fd, self._lock):
            written, error = _write(self._fd, data)
        if written:
            self._torn = data[written - 1] != 0x0A
        self._rest = data[written:]
        return Outcome(
            owed=len(self._rest),
            owed_lines=self._rest.count(b"\n"),
            lost=lost,
            error=error,
            reopened=reopen and not refusal,
            refusal=refusal,
        )

    def close(self) -> None:
        """Close the file; stdout and stderr stay open."""
        if self.path is not None:
            os.close(self._fd)

    def withdraw(self) -> None:
        """Close, and remove the file if it was made by this and nothing was written to it."""
        if self.path is not None and self._is_new:
            with suppress(OSError):
                if os.fstat(self._fd).st_size == 0 and os.path.samestat(
                    os.fstat(self._fd), os.stat(self.path)
                ):
                    os.unlink(self.path)
        self.close()

    def _reopen(self) -> tuple[str, int]:
        """(why it was refused or "", lines lost)."""
        assert self.path is not None
        lost = 0
        try:
            fd = _open(self.path)
        except OSError as error:
            return _text_of(error), 0
        if self._torn and not os.path.sameopenfile(fd, self._fd):
            self._rest = self._rest.partition(b"\n")[2]
            self._torn = False
            lost = 1
        os.close(self._fd)
        self._fd = fd
        self._lock = _lock_of(fd)
        return "", lost


def _open(path: str) -> int:
    return os.open(path, _FLAGS, _MODE)


def _open_or_make(path: str) -> tuple[int, bool]:
    """The descriptor, and whether the file was not there before."""
    try:
        return os.open(path, _FLAGS | os.O_EXCL, _MODE), True
    except FileExistsError:
        return _open(path), False


def _standard(target: str) -> int:
    fd = STANDARD[target]
    # What was closed when the process began is held by a descriptor that cannot be written. For stderr there
    # is nobody to tell.
    if fd == STANDARD["stdout"] and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return fd


def _write(fd: int, data: bytes) -> tuple[int, str]:
    """(bytes written, why no more or "")."""
    view = memoryview(data)
    at = 0
    try:
        while at < len(view):
            try:
                at += os.write(fd, view[at:])
            except BlockingIOError:
                _wait_until_writable(fd)
    except OSError as error:
        return at, _text_of(error)
    return at, ""


def _wait_until_writable(fd: int) -> None:
    poll = _poll()
    poll.register(fd, select.POLLOUT)
    poll.poll(_POLL_MS)


def _text_of(error: OSError) -> str:
    return f"{errno.errorcode.get(error.errno or 0, 'error')}: {error.strerror}"


def _lock_of(fd: int) -> Any:
    """A lock for what does not append as one piece; None for a file, where O_APPEND does it."""
    state = os.fstat(fd)
    if stat.S_ISREG(state.st_mode):
        return None
    return _locks.setdefault((state.st_dev, state.st_ino), _allocate_lock())


@contextmanager
def _alone(fd: int, lock: Any) -> Iterator[None]:
    """Keep out the other writers of a pipe: beyond PIPE_BUF bytes the kernel mixes what they write.

    The lock is for the threads of this process, the record lock for the other workers.
    """
    if lock is None:
        yield
        return
    with lock:
        locked = False
        with suppress(OSError):  # not every file can be locked, and the kernel may suspect a deadlock
            fcntl.lockf(fd, fcntl.LOCK_EX)
            locked = True
        try:
            yield
        finally:
            if locked:
                with suppress(OSError):
                    fcntl.lockf(fd, fcntl.LOCK_UN)
