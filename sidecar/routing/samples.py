"""Texts that a regex matches, made from reading it: examples to show, and witnesses for ambiguity.

Law: every sample is matched by its regex; when none can be made there are none, which proves nothing.
"""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

from .regex import Regex

# Python's own reading of a pattern is the only one there is; what only RE2 understands has no samples.
_parser: Any = re._parser  # type: ignore[attr-defined]

_CHOICES: Final = 3  # characters of a class that are tried
#: How many ways through a regex are tried.
_VARIANTS: Final = 6
_LONGEST: Final = 200  # characters of a sample
#: What a class of characters is tried with, the likeliest first.
_CHARACTERS: Final = "a1x-A_.~/0bz9Zé ,:;@!$&'()*+=%?#|\t\n"

_CATEGORIES: Final[dict[str, Callable[[str], bool]]] = {
    "CATEGORY_DIGIT": lambda c: "0" <= c <= "9",
    "CATEGORY_NOT_DIGIT": lambda c: not "0" <= c <= "9",
    "CATEGORY_SPACE": lambda c: c in " \t\n\r\f",
    "CATEGORY_NOT_SPACE": lambda c: c not in " \t\n\r\f",
    "CATEGORY_WORD": lambda c: c == "_" or (c.isascii() and c.isalnum()),
    "CATEGORY_NOT_WORD": lambda c: not (c == "_" or (c.isascii() and c.isalnum())),
}


@lru_cache(4096)
def samples(regex: Regex) -> tuple[str, ...]:
    """Some texts that `regex` matches, the plainest first."""
    parsed = _parsed(regex.pattern)
    if parsed is None:
        return ()
    made = []
    for variant in range(_VARIANTS):
        try:
            made.append("".join(itertools.islice(_text(parsed, variant), _LONGEST)))
        except _Unwritable:
            continue
    return tuple(text for text in dict.fromkeys(made) if regex.test(text))


@lru_cache(4096)
def paths(regex: Regex) -> tuple[str, ...]:
    """Some paths that `regex` matches: samples that begin with a slash, or do so after one is put before."""
    rooted = [text if text.startswith("/") else f"/{text}" for text in samples(regex)]
    return tuple(text for text in dict.fromkeys(rooted) if regex.test(text))


@lru_cache(4096)
def literal_start(regex: Regex) -> str:
    """What everything that `regex` matches begins with; empty when that is not known."""
    parsed = _parsed(regex.pattern)
    if parsed is None or parsed.state.flags & re.IGNORECASE:
        return ""
    nodes = [(str(kind), value) for kind, value in parsed]
    if not nodes or nodes[0] not in (("AT", _parser.AT_BEGINNING), ("AT", _parser.AT_BEGINNING_STRING)):
        return ""
    literals = itertools.takewhile(lambda node: node[0] == "LITERAL", nodes[1:])
    return "".join(chr(value) for _, value in literals)


class _Unwritable(Exception):
    """The pattern has something that no text is made for."""


def _parsed(pattern: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _parser.parse(pattern)
    except (re.error, OverflowError, RecursionError):
        return None


def _text(nodes: Any, variant: int) -> Iterator[str]:
    """The characters of one text; `variant` picks branches, repeats and characters."""
    for kind, value in nodes:
        name = str(kind)
        writer = _WRITERS.get(name)
        if writer is None:
            raise _Unwritable(name)
        yield from writer(value, variant)


def _literal(value: int, variant: int) -> Iterator[str]:
    yield chr(value)


def _any(value: object, variant: int) -> Iterator[str]:
    yield _pick("a1x", variant)


def _not_literal(value: int, variant: int) -> Iterator[str]:
    yield _pick([c for c in _CHARACTERS if c != chr(value)], variant)


def _in(value: Sequence[tuple[Any, Any]], variant: int) -> Iterator[str]:
    members = [(str(kind), part) for kind, part in value]
    negated = members[0][0] == "NEGATE"
    tests = members[negated:]
    own = [
        chr(part if kind == "LITERAL" else part[0]) for kind, part in tests if kind in ("LITERAL", "RANGE")
    ]
    fitting = (
        c for c in dict.fromkeys([*_CHARACTERS, *own]) if any(_is_in(c, *test) for test in tests) != negated
    )
    yield _pick(list(itertools.islice(fitting, _CHOICES)), variant)


def _is_in(character: str, kind: str, part: Any) -> bool:
    if kind == "LITERAL":
        return chr(part) == character
    if kind == "RANGE":
        return bool(part[0] <= ord(character) <= part[1])
    test = _CATEGORIES.get(str(part))
    if test is None:
        raise _Unwritable(kind)
    return test(character)


def _repeat(value: tuple[int, Any, Any], variant: int) -> Iterator[str]:
    least, most, nodes = value
    wanted = (1, 0, 2)[variant % 3]
    for _ in range(max(int(least), min(int(most), wanted))):
        yield from _text(nodes, variant)


def _branch(value: tuple[Any, Sequence[Any]], variant: int) -> Iterator[str]:
    yield from _text(value[1][variant % len(value[1])], variant)


def _group(value: tuple[Any, Any, Any, Any], variant: int) -> Iterator[str]:
    yield from _text(value[3], variant)


def _at(value: object, variant: int) -> Iterator[str]:
    return iter(())


_WRITERS: Final[dict[str, Callable[[Any, int], Iterator[str]]]] = {
    "LITERAL": _literal,
    "NOT_LITERAL": _not_literal,
    "ANY": _any,
    "IN": _in,
    "MAX_REPEAT": _repeat,
    "MIN_REPEAT": _repeat,
    "BRANCH": _branch,
    "SUBPATTERN": _group,
    "AT": _at,
}


def _pick(characters: Sequence[str], variant: int) -> str:
    if not characters:
        raise _Unwritable("empty class")
    return characters[variant % min(_CHOICES, len(characters))]
