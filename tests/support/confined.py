"""Starts a command where something is missing: rights, descriptors, standard streams, disk or watches.

`confined(...)` gives the words that go before a command. This file is then run as a program: it takes away
what they name and becomes the command, so the process keeps its number.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final

_PR_CAPBSET_DROP: Final = 24
_CAPABILITIES: Final = 64
_CLONE_NEWNS: Final = 0x00020000
_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWNET: Final = 0x40000000
_MS_REC: Final = 0x4000
_MS_PRIVATE: Final = 1 << 18


def confined(*words: str) -> list[str]:
    """The words before a command. Each of `words` is one of these:

    network: none but its own, in which ports below 1024 need a right; powerless: no right of root, so that
    it is refused what others are; descriptors=N: the hard limit of them; closed=N: descriptor N is closed;
    disk=PATH: a file system of its own, of 64 KiB, to be seen through `inside`; full=PATH: one that a file
    `filler` takes up; files=PATH: one in which no file can be made; watches: no inotify watch; instances: no
    inotify queue. What takes rights comes before `powerless`.
    """
    return [sys.executable, "-I", "-S", __file__, *words, "--"] if words else []


def inside(pid: int, path: os.PathLike[str]) -> str:
    """What the process `pid` sees at `path`, as a path for others."""
    return f"/proc/{pid}/root{os.fspath(path)}"


def _powerless(_: str) -> None:
    libc = ctypes.CDLL(None)
    for capability in range(_CAPABILITIES):
        # Numbers above the last one of this kernel are refused, and nobody can have them.
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)


def _descriptors(value: str) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(value), int(value)))


def _closed(value: str) -> None:
    os.close(int(value))


def _disk(path: str) -> None:
    _mount(path, "size=64k")


def _full(path: str) -> None:
    _mount(path, "size=64k")
    with open(os.path.join(path, "filler"), "wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(4096))


def _files(path: str) -> None:
    # The root of the file system is its only one.
    _mount(path, "nr_inodes=1")


def _mount(path: str, options: str) -> None:
    _unshare(_CLONE_NEWNS, needs_root=True)
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.mount(b"", b"/", None, _MS_REC | _MS_PRIVATE, None), "make mounts private")
    done = libc.mount(b"tmpfs", os.fsencode(path), b"tmpfs", 0, options.encode())
    _check(done, f"mount a file system at {path}")


def _network(_: str) -> None:
    _unshare(_CLONE_NEWNET, needs_root=True)


def _watches(_: str) -> None:
    _limit("max_inotify_watches")


def _instances(_: str) -> None:
    _limit("max_inotify_instances")


def _limit(name: str) -> None:
    _unshare(_CLONE_NEWUSER)
    with open(f"/proc/sys/user/{name}", "w") as limit:
        limit.write("0")


def _unshare(flags: int, needs_root: bool = False) -> None:
    user, group = os.geteuid(), os.getegid()
    if needs_root and user:
        flags |= _CLONE_NEWUSER
    _check(ctypes.CDLL(None, use_errno=True).unshare(flags), "make a namespace")
    if flags & _CLONE_NEWUSER:
        for name, text in (("uid_map", f"0 {user} 1"), ("setgroups", "deny"), ("gid_map", f"0 {group} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)


def _check(result: int, what: str) -> None:
    if result:
        reason = os.strerror(ctypes.get_errno())
        sys.exit(f"this test must {what}, and the system refuses it: {reason}. Run it as root.")


_ACTIONS: Final[dict[str, Callable[[str], None]]] = {
    "network": _network,
    "powerless": _powerless,
    "descriptors": _descriptors,
    "closed": _closed,
    "disk": _disk,
    "full": _full,
    "files": _files,
    "watches": _watches,
    "instances": _instances,
}


def _main() -> None:
    end = sys.argv.index("--")
    for word in sys.argv[1:end]:
        name, _, value = word.partition("=")
        _ACTIONS[name](value)
    command = sys.argv[end + 1 :]
    os.execvp(command[0], command)


if __name__ == "__main__":
    _main()
