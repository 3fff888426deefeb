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

    __slots__ = ("_fd", "_lock", "_rest", "_torn", "path", "target")

    def __init__(self, target: str) -> None:
        self.target = target
        self.path = None if target in STANDARD else target
        self._fd = _open(self.path) if self.path is not None else STANDARD[target]
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
