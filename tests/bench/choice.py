"""What is measured, by the words of a command line, and where it runs."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from .neighbours import PROXIES
from .process import BenchError
from .proxy import Proxy
from .rows import BINARY, Row

#: A proxy or a row: what the command line chooses by name.
Named = TypeVar("Named", Proxy, Row)


def chosen(things: Sequence[Named]) -> Callable[[str], tuple[Named, ...]]:
    """A reader of comma-separated names, of things or of groups; it keeps the order of `things`."""

    def read(text: str) -> tuple[Named, ...]:
        names = {name.strip() for name in text.split(",") if name.strip()}
        known = {thing: {thing.name, getattr(thing, "group", "")} - {""} for thing in things}
        if unknown := names.difference(*known.values()):
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}")
        if not names:
            raise argparse.ArgumentTypeError("no name")
        return tuple(thing for thing in things if names & known[thing])

    return read


def installed(only: Sequence[Proxy]) -> tuple[list[Proxy], list[str]]:
    """The proxies to measure, and the names of those that are not here.

    Raises `BenchError` if one that was asked for by name is not here, or none is.
    """
    here = [proxy for proxy in only or PROXIES if proxy.binary() is not None]
    missing = [proxy.name for proxy in only or PROXIES if proxy not in here]
    if only and missing:
        raise BenchError(f"not installed: {', '.join(told_missing(missing))}")
    if not here:
        raise BenchError("there is no proxy to measure")
    return here, missing


def told_missing(names: Sequence[str]) -> list[str]:
    """The names, with what to do where it is ours."""
    return [f"{name} (make binary first)" if name == BINARY else name for name in names]


@contextlib.contextmanager
def workspace() -> Iterator[Path]:
    """A folder for everything that is written, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as name:
        yield Path(name)
