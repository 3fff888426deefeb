"""What a path depends on: the directories and links it leads through, and what the files there say.

Law: a path that leads nowhere depends on something, too: the directory where its next part would appear.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from .config.ini import MAX_FILE_SIZE, printable

_MAX_LINKS: Final = 40  # in one path, as the kernel allows

#: File systems on which others make changes that this kernel does not see. The overlay of a container is
#: not one of them: what is changed through it is reported, and nobody may change what lies under it.
_BLIND: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "9p", "afs", "ceph", "gfs2", "lustre", "ocfs2"}
    | {"prl_fs", "vboxsf", "virtiofs", "vmhgfs"}
)


class Scan(NamedTuple):
    """The directories that matter, by their real paths."""

    names: dict[str, set[str]]  # directory → the entries that matter in it
    vital: set[str]  # directories that hold files, links on the way, or the place of something missing
    home: str  # the directory in which new drop-ins matter, too; empty: there is none
    blind: str  # file system that does not report every change; empty: all do


def is_drop_in(name: str) -> bool:
    """Whether a file of this name is read."""
    return name.endswith(".ini") and name[0] != "."


class DropIns:
    """A directory and the drop-ins in it."""

    def __init__(self, directory: Path) -> None:
        self._directory = os.path.abspath(directory)
        self.name = printable(Path(self._directory))

    def scan(self) -> Scan:
        """Everything that the directory and its drop-ins depend on."""
        way = _Way()
        home = way.follow(self._directory)
        try:
            entries = sorted(os.listdir(home)) if home else []
        except OSError:
            entries, home = [], home if os.path.isdir(home) else ""
        if home:
            way.need(home)
        for name in entries:
            if is_drop_in(name) and os.path.islink(os.path.join(home, name)):
                way.follow(os.path.join(home, name))
        return Scan(way.names, way.vital, home, _blind(way.vital))

    def contents(self) -> bytes:
        """A digest of the names and bytes of the drop-ins, or of why they cannot be read."""
        digest = hashlib.sha256()
        try:
            names = sorted(filter(is_drop_in, os.listdir(self._directory)))
        except OSError as error:
            return str(error.errno).encode()
        for name in names:
            digest.update(b"%d:%b" % (len(os.fsencode(name)), os.fsencode(name)))
            digest.update(_content(os.path.join(self._directory, name)))
        return digest.digest()


class Files:
    """Some files, wherever they are. `name`: what they are, for people."""

    def __init__(self, paths: Iterable[str], name: str) -> None:
        self._paths = tuple(os.path.abspath(path) for path in paths)
        self.name = name

    def scan(self) -> Scan:
        """Everything that the paths depend on."""
        way = _Way()
        for path in self._paths:
            way.follow(path)
        return Scan(way.names, way.vital, "", _blind(way.vital))

    def contents(self) -> bytes:
        """A digest of the bytes of the files, or of why they cannot be read."""
        return hashlib.sha256(b" ".join(map(_content, self._paths))).digest()


class _Way:
    """Follows paths and remembers what they depend on."""

    def __init__(self) -> None:
        self.names: dict[str, set[str]] = {}
        self.vital: set[str] = set()

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
                self.need(here)
                return ""
            if target:
                links += 1
                self.need(here)
                parts.extendleft(reversed([part for part in target.split("/") if part]))
                here = "/" if target.startswith("/") else here
            elif parts and not os.path.isdir(full):
                self.need(here)
                return ""
            else:
                here = full
        self.need(os.path.dirname(here))
        return here

    def need(self, directory: str) -> None:
        """What happens in this directory matters."""
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


def _content(path: str) -> bytes:
    try:
        # Without O_NONBLOCK a FIFO with a matching name would stop the comparison for good.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return b"no file"
            return hashlib.sha256(file.read(MAX_FILE_SIZE + 1)).digest()
    except OSError as error:
        return str(error.errno).encode()
