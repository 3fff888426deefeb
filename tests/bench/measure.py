"""What a tree of processes costs, read from /proc: CPU time, memory, memory per idle connection."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .process import BenchError

_PROC = Path("/proc")
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
#: Memory is settled when two looks, this many seconds apart, differ by no more than this many bytes.
_SETTLE_PAUSE = 0.25
_SETTLE_BYTES = 32 * 1024
_SETTLE_TIMEOUT = 10.0


def tree(root: int) -> list[int]:
    """The process `root` and all its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                children.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def _stat(pid: int) -> list[str]:
    # The name of the command, in parentheses, may hold anything; what follows it starts with the state.
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


@dataclass(frozen=True, slots=True)
class CpuTime:
    """CPU time of a tree since its start, in nanoseconds, by two accounts of the kernel.

    `ticks` is user and system time of /proc/PID/stat with that of children that ended; it is whole but told
    in clock ticks. `scheduled` is the sum of /proc/PID/task/*/schedstat; it is exact but forgets threads that
    ended, and is zero on kernels that do not keep it.
    """

    ticks: int
    scheduled: int
    processes: int


def cpu_time(root: int) -> CpuTime:
    """CPU time of the tree under `root` until now."""
    ticks = scheduled = 0
    pids = tree(root)
    for pid in pids:
        with contextlib.suppress(OSError):
            ticks += sum(int(value) for value in _stat(pid)[11:15]) * _TICK_NS
            for task in (_PROC / str(pid) / "task").iterdir():
                with contextlib.suppress(OSError):
                    scheduled += int((task / "schedstat").read_text().split()[0])
    return CpuTime(ticks, scheduled, len(pids))


def spent(before: CpuTime, after: CpuTime) -> tuple[int, str]:
    """Nanoseconds between two readings, and the account they are from.

    The exact account is taken if it agrees with the whole one as far as that one can tell.
    """
    ticks = after.ticks - before.ticks
    scheduled = after.scheduled - before.scheduled
    # User and system time are each rounded down to a tick, in each process, in both readings.
    tolerance = 4 * _TICK_NS * max(before.processes, after.processes) + ticks // 50
    if abs(scheduled - ticks) <= tolerance and scheduled > 0:
        return scheduled, "schedstat"
    return ticks, "stat"


def pss(root: int) -> int:
    """Memory of the tree under `root` now, in bytes; a page that n processes map counts as a part of n.

    Raises `BenchError` if it may not be read.
    """
    texts = (_memory_file(pid, "smaps_rollup") for pid in tree(root))
    return sum(_kilobytes(line) for text in texts for line in text.splitlines() if line.startswith("Pss:"))


def settled_pss(root: int) -> int:
    """The same when it has stopped moving, or after ten seconds."""
    deadline = time.monotonic() + _SETTLE_TIMEOUT
    last = pss(root)
    while True:
        time.sleep(_SETTLE_PAUSE)
        now = pss(root)
        if abs(now - last) <= _SETTLE_BYTES or time.monotonic() > deadline:
            return now
        last = now


def pss_alone(root: int) -> int:
    """What `pss` would be if nothing outside the tree mapped the same files, in bytes.

    Raises `BenchError` if it may not be read.
    """
    return alone([_memory_file(pid, "smaps") for pid in tree(root)])


def alone(maps: list[str]) -> int:
    """The same from the text of /proc/PID/smaps of each process of the tree.

    A file's pages count at least as often as the process that has most of them has them. Pages without a
    file are shared within the tree only, so their PSS stands.
    """
    total = 0
    shares: dict[str, int] = {}
    whole: dict[str, int] = {}
    for text in maps:
        resident: dict[str, int] = {}
        for file, sizes in _mappings(text):
            total += sizes["Pss:"]
            if file:
                private = sizes["Anonymous:"]  # pages of the file that were written to are the process's own
                shares[file] = shares.get(file, 0) + max(sizes["Pss:"] - private, 0)
                resident[file] = resident.get(file, 0) + sizes["Rss:"] - private
        for file, size in resident.items():
            whole[file] = max(whole.get(file, 0), size)
    return total + sum(max(size - shares[file], 0) for file, size in whole.items())


def _mappings(text: str) -> Iterator[tuple[str, dict[str, int]]]:
    # A mapping starts with addresses, permissions, offset, device, inode, path. Its sizes follow.
    file = ""
    sizes: dict[str, int] = {}
    for line in text.splitlines():
        key = line.partition(" ")[0]
        if not key.endswith(":"):
            if sizes:
                yield file, sizes
            device, inode = line.split()[3:5]
            file, sizes = ("" if inode == "0" else f"{device} {inode}"), {}
        elif key in {"Pss:", "Rss:", "Anonymous:"}:
            sizes[key] = _kilobytes(line)
    if sizes:
        yield file, sizes


def _kilobytes(line: str) -> int:
    return int(line.split()[1]) * 1024


def _memory_file(pid: int, name: str) -> str:
    try:
        return (_PROC / str(pid) / name).read_text()
    except PermissionError as failure:
        raise BenchError(f"the memory of process {pid} may not be read: {failure}") from failure
    except (FileNotFoundError, ProcessLookupError):
        return ""  # it ended meanwhile


@contextlib.contextmanager
def idle_connections(port: int, count: int, path: str, size: int) -> Iterator[list[socket.socket]]:
    """Hold `count` connections on each of which one GET of `path` was answered with a body of `size`.

    Raises `BenchError` if an answer is not a success or a connection does not stay open.
    """
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        held = []
        for _ in range(count):
            held.append(stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10)))
            held[-1].sendall(request)
            _read_answer(held[-1], size)
        yield held
        poll = select.poll()
        for connection in held:
            poll.register(connection, select.POLLIN)
        if closed := len(poll.poll(0)):
            raise BenchError(f"{closed} of {count} idle connections were closed")


def _read_answer(connection: socket.socket, size: int) -> None:
    received = b""
    while True:
        head, separator, body = received.partition(b"\r\n\r\n")
        if separator and len(body) >= size:
            break
        part = connection.recv(65536)
        if not part:
            raise BenchError(f"a connection was closed before its answer was whole: {received[:200]!r}")
        received += part
    if b" 200 " not in head.partition(b"\r\n")[0]:
        raise BenchError(f"an answer was not a success: {head[:200]!r}")
