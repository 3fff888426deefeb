"""Reads the INI dialect of `conf.d/*.ini` into entries that know their file and line.

Law: nothing is guessed, and a mistake stops nothing: whatever the bytes, the result is entries and mistakes.

The dialect: UTF-8; `[kind]` or `[kind name]`; `key = value`; whole-line comments with `#` or `;`; an indented
line continues the value above it, over comments but not over an empty line.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from .schema import header, quoted

MAX_FILE_SIZE: Final = 1 << 20  # bytes
MAX_MISTAKES: Final = 100  # in one file; what has more is not a configuration

_HEADER: Final = re.compile(r"\[\s*([a-z][a-z0-9_]*)(?:\s+(\S+))?\s*\]")
_SECTION_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_CONTROL_BUT_NEWLINE: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


class Origin(NamedTuple):
    """Where something is written. Line 0 is a file, or a directory, as a whole."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


class Mistake(NamedTuple):
    """Something wrong at a place. `section` is a header and, like `key`, may be empty."""

    origin: Origin
    section: str
    key: str
    text: str

    def __str__(self) -> str:
        where = f"{self.section} {self.key}".strip()
        return f"{self.origin}: {where}: {self.text}" if where else f"{self.origin}: {self.text}"


class Entry(NamedTuple):
    """One `key = value`, as written: stripped, not yet expanded, continued lines joined with newlines."""

    key: str
    value: str
    file: str
    line: int

    @property
    def origin(self) -> Origin:
        """Where its key is written."""
        # Made when asked for: nearly nobody asks, and there is an entry for each line.
        return Origin(self.file, self.line)


@dataclass(slots=True)
class Block:
    """One section of one file. A header that is repeated in a file continues the same block."""

    kind: str
    name: str  # empty for `[kind]`
    origin: Origin
    entries: dict[str, Entry] = field(default_factory=dict)

    @property
    def header(self) -> str:
        """As it is written."""
        return header(self.kind, self.name)


class _Enough(Exception):
    """A file has so many mistakes that the rest of it is not read."""


_BROKEN: Final = ""  # stands for the key when the value that a line continues is a mistake already reported


class _Reader:
    """Takes the lines of one file, one after the other."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.number = 0
        self.blocks: dict[tuple[str, str], Block] = {}
        self.mistakes: list[Mistake] = []
        self._block: Block | None = None
        self._is_lost = False  # inside a section whose header was a mistake
        self._key: str | None = None  # of the value that an indented line continues; None: of no value
        self._lines: list[str] = []  # of that value

    def read(self, text: str) -> None:
        """Read lines without control characters. Raises _Enough."""
        for line in text.split("\n"):
            self.number += 1
            self._take(line)

    def read_raw(self, data: bytes) -> None:
        """Read lines of any bytes. Raises _Enough."""
        for raw in data.split(b"\n"):
            self.number += 1
            try:
                line = raw.decode().removesuffix("\r")
            except UnicodeDecodeError as error:
                self._wrong(f"byte {error.start + 1} of the line is not UTF-8: save the file as UTF-8")
                continue
            if found := _CONTROL.search(line):
                self._wrong(f"the line holds the control character U+{ord(found[0]):04X}: remove it")
            else:
                self._take(line)

    def end_value(self) -> None:
        """The value that was being read has no more lines."""
        if self._block and self._key and len(self._lines) > 1:
            entry = self._block.entries[self._key]
            self._block.entries[self._key] = entry._replace(value="\n".join(self._lines).strip())
        self._key = None

    def _take(self, line: str) -> None:
        text = line.strip()
        if not text:
            self.end_value()
        elif line[0].isspace():
            if text[0] not in "#;":
                self._continue(text)
        elif text[0] == "[":
            self._open(text)
        elif text[0] not in "#;":
            self._assign(text)

    def _wrong(self, text: str, key: str = "") -> None:
        self.end_value()
        self._key = _BROKEN
        section = self._block.header if self._block else ""
        origin = Origin(self.file, self.number)
        self.mistakes.append(Mistake(origin, section, key, text))
        if len(self.mistakes) >= MAX_MISTAKES:
            self.mistakes.append(Mistake(origin, "", "", "too many mistakes: what follows is not read"))
            raise _Enough

    def _lose_section(self, text: str) -> None:
        self.end_value()
        self._block, self._is_lost = None, True
        self._wrong(text)

    def _open(self, text: str) -> None:
        found = _HEADER.fullmatch(text)
        if found is None:
            self._lose_section(f"{quoted(text)} is not a section: write [kind] or [kind name], in lower case")
            return
        kind, name = found[1], found[2] or ""
        if name and not _SECTION_NAME.fullmatch(name):
            self._lose_section(
                f"{quoted(name)} is not a name: write up to 64 letters, digits, '_', '-' or '.'"
            )
            return
        self.end_value()
        self._is_lost = False
        block = Block(kind, name, Origin(self.file, self.number))
        self._block = self.blocks.setdefault((kind, name), block)

    def _continue(self, text: str) -> None:
        if _HEADER.fullmatch(text):
            self._lose_section(f"{quoted(text)} looks like a section: remove the spaces before it")
        elif self._key:
            self._lines.append(text)
        elif self._key is None and not self._is_lost:
            self._wrong(f"{quoted(text)} is indented, and there is no value to continue: remove the spaces")

    def _assign(self, text: str) -> None:
        self.end_value()
        self._key = _BROKEN
        before, equals, after = text.partition("=")
        key = before.strip()
        if not equals:
            self._wrong(f"{quoted(text)} has no '=': write key = value")
        elif not key or len(key.split()) > 1:
            self._wrong(f"{quoted(key)} is not a key: write one word before the '='")
        elif self._block is not None:
            self._add(self._block, key, after.strip())
        elif not self._is_lost:
            self._wrong(f"{quoted(key)} stands before any section: write a [section] line above it")

    def _add(self, block: Block, key: str, value: str) -> None:
        first = block.entries.get(key)
        if first:
            self._wrong(f"is given in line {first.line} already: keep one", key)
        else:
            block.entries[key] = Entry(key, value, self.file, self.number)
            self._key, self._lines = key, [value]


def read_text(file: str, data: bytes) -> tuple[list[Block], list[Mistake]]:
    """The sections of one file and its mistakes. `file` is its name in messages."""
    reader = _Reader(file)
    data = data.removeprefix(b"\xef\xbb\xbf")
    text = _sound(data)
    with suppress(_Enough):
        if text is None:
            reader.read_raw(data)
        else:
            reader.read(text)
    reader.end_value()
    return list(reader.blocks.values()), reader.mistakes


def _sound(data: bytes) -> str | None:
    """A file as text, when nothing is wrong with any byte of it: found at once, not line by line."""
    try:
        text = data.decode().replace("\r\n", "\n")
    except UnicodeDecodeError:
        return None
    return None if _CONTROL_BUT_NEWLINE.search(text) else text


@dataclass(slots=True)
class Source:
    """What was read: blocks in the order of files and lines, every mistake, and the bytes themselves."""

    name: str  # of the directory
    blocks: list[Block] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)
    files: list[tuple[str, bytes]] = field(default_factory=list)

    def add(self, file: str, data: bytes) -> None:
        """Read one file."""
        blocks, mistakes = read_text(file, data)
        self.blocks += blocks
        self.mistakes += mistakes
        self.files.append((file, data))

    def wrong(self, file: str, text: str) -> None:
        """Note a mistake of a file as a whole."""
        self.mistakes.append(Mistake(Origin(file, 0), "", "", text))


def _read_file(path: Path) -> bytes:
    """The bytes of a regular file. Raises OSError, or ValueError with advice."""
    # Without O_NONBLOCK a FIFO with a matching name would stop the process.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("is not a file: move it away, or rename it so that it does not end in .ini")
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(MAX_FILE_SIZE + 1)
    finally:
        os.close(descriptor)
    if len(data) > MAX_FILE_SIZE:
        raise ValueError(f"is larger than {MAX_FILE_SIZE} bytes: split it")
    return data


def printable(path: Path) -> str:
    """A path as messages show it, whatever its bytes."""
    text = os.fsencode(path).decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _directory_advice(error: OSError) -> str:
    """What is wrong with a directory that cannot be listed, and what would be right."""
    if error.errno == errno.ENOENT:
        return "there is no such directory: create it, or name another with --conf DIR"
    if error.errno == errno.ENOTDIR:
        return "is not a directory: name the one that holds the .ini files with --conf DIR"
    if error.errno == errno.EACCES:
        return f"uid {os.geteuid()} may not list it: change its permissions, or name another with --conf DIR"
    return f"cannot be read: {error.strerror}: repair it, or name another with --conf DIR"


def _file_advice(error: OSError) -> str:
    """The same for a file of a directory that could be listed."""
    if error.errno == errno.EACCES:
        return f"uid {os.geteuid()} may not read it: change the permissions of the file or of its directory"
    if error.errno == errno.ELOOP:
        return "is a link that leads back to itself: remove it"
    return f"cannot be read: {error.strerror}: repair it, or move it away"


def read_directory(directory: Path) -> Source:
    """All `*.ini` files of a directory in the order of their names; other names and dotfiles are ignored."""
    source = Source(printable(directory))
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(".ini") and name[0] != ".")
    except OSError as error:
        source.wrong(source.name, _directory_advice(error))
        return source
    for name in names:
        _add_file(source, directory / name)
    return source


def _add_file(source: Source, path: Path) -> None:
    file = printable(path)
    try:
        source.add(file, _read_file(path))
    except FileNotFoundError:
        # A file that is gone since the directory was listed is no mistake; a link that leads nowhere is.
        with suppress(OSError):
            target = printable(Path(os.readlink(path)))
            source.wrong(file, f"is a link to {target}, which does not exist: make that, or remove the link")
    except OSError as error:
        source.wrong(file, _file_advice(error))
    except ValueError as error:
        source.wrong(file, str(error))
