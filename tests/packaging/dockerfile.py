"""A Dockerfile read and carried out by hand, as far as an image from scratch goes: a folder is the image."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

#: Instructions with one value as it is written.
_PLAIN = ("STOPSIGNAL", "USER")
_COMMANDS = ("ENTRYPOINT", "CMD")


@dataclass
class Copy:
    """What one COPY says."""

    source: str
    target: str
    owner: tuple[int, int]
    mode: int | None


@dataclass
class Image:
    """What a Dockerfile describes."""

    copies: list[Copy] = field(default_factory=list)
    ports: list[str] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)  # USER, STOPSIGNAL
    commands: dict[str, list[str]] = field(default_factory=dict)  # ENTRYPOINT, CMD


def read(file: Path) -> Image:
    """Raises ValueError for what an image from scratch cannot have or this reader does not know."""
    image = Image()
    lines = _instructions(file.read_text())
    if next(lines) != ("FROM", "scratch"):
        raise ValueError("it does not begin with FROM scratch")
    for name, rest in lines:
        if name == "COPY":
            image.copies.append(_copy(rest))
        elif name == "EXPOSE":
            image.ports += rest.split()
        elif name in _PLAIN:
            image.values[name] = rest
        elif name in _COMMANDS:
            image.commands[name] = _exec_form(rest)
        else:
            raise ValueError(f"{name} {rest}: there is nothing in the image that could do this")
    return image


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    kept = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in "\n".join(kept).replace("\\\n", " ").splitlines():
        name, _, rest = line.strip().partition(" ")
        yield name, rest.strip()


def _exec_form(text: str) -> list[str]:
    words = json.loads(text) if text.startswith("[") else None
    if not isinstance(words, list):
        raise ValueError(f"{text}: there is no shell in the image: write a JSON list")
    return words


def _copy(text: str) -> Copy:
    words = shlex.split(text)
    flags = dict(word[2:].split("=") for word in words if word.startswith("--"))
    source, target = (word for word in words if not word.startswith("--"))
    user, _, group = flags.pop("chown", "0:0").partition(":")
    mode = flags.pop("chmod", "")
    if flags:
        raise ValueError(f"{text}: unknown flags: {', '.join(flags)}")
    return Copy(source, target, (int(user), int(group)), int(mode, 8) if mode else None)


def make(image: Image, context: Path, root: Path) -> None:
    """Make the folder `root` what the image would be, from the files of `context`. As root."""
    root.mkdir(mode=0o755)
    for copy in image.copies:
        source, target = context / copy.source, root / copy.target.lstrip("/")
        if source.is_dir():
            for entry in sorted(source.rglob("*")):
                _put(entry, target / entry.relative_to(source), copy)
        else:
            _put(source, target, copy)


def _put(source: Path, target: Path, copy: Copy) -> None:
    for folder in reversed(target.parents):
        if not folder.exists():
            folder.mkdir()
            folder.chmod(0o755)
    if source.is_dir():
        target.mkdir(exist_ok=True)
    else:
        shutil.copyfile(source, target)
    os.chown(target, *copy.owner)
    target.chmod(source.stat().st_mode & 0o7777 if copy.mode is None else copy.mode)
