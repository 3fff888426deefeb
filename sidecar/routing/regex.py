"""Regexes of the configuration, run by RE2: linear in the text, so that no client can stall the process.

The syntax is Python's without look-around and back-references. `.` is any character, a line feed too, and
`$` is the end of the text: what a client can put into a path as `%0A` must not lead around a route. A byte
that is not UTF-8 counts as one character that is no letter.
"""

from __future__ import annotations

import re
from typing import Any, Final

from ..config.schema import quoted

_NOT_UTF8: Final = re.compile("[\ud800-\udfff]")

#: A part of what RE2 complains about, or of the pattern it complains about → advice.
_ADVICE: Final = {
    r"\(\?<?[=!]": "look-around is not supported: say what must match, or use two routes",
    r"\(\?P=|\\[1-9]": "back-references are not supported: say what must match",
    r"\(\?>|[*+?}]\+": "possessive repeats and atomic groups are not needed here: leave them plain",
    r"\\Z": r"\Z is not supported: write $ for the end",
    r"\(\?[a-zA-Z]*x": "verbose patterns are not supported: leave the blanks out",
    r"repetition size": "a repeat is too large: count to 1000 at most, nested repeats multiplied",
    r"too large": "the pattern is too large: make it simpler",
}


class Match:
    """What a regex found; group 0 is the whole of it."""

    __slots__ = ("_groups",)

    def __init__(self, groups: tuple[str | None, ...]) -> None:
        self._groups = groups

    def group(self, number: int, /) -> str | None:
        """The text of a group, None when it took no part. Raises IndexError when there is no such group."""
        return self._groups[number]


class Regex:
    """A compiled regex. Two of the same pattern are equal. `names` are its named groups by their number."""

    __slots__ = ("_search", "groups", "names", "pattern")

    def __init__(self, pattern: str) -> None:
        """Raises ValueError; its text says what is wrong."""
        program = _compile(pattern)
        self.pattern = pattern
        self.groups: int = program.groups
        self.names: dict[str, int] = program.groupindex
        self._search = program.search

    def test(self, text: str) -> bool:
        """Whether it matches anywhere in `text`."""
        return self._search(_encoded(text)) is not None

    def search(self, text: str, /) -> Match | None:
        """The first match anywhere in `text`."""
        data = _encoded(text)
        found = self._search(data)
        if found is None:
            return None
        spans = [found.span(number) for number in range(self.groups + 1)]
        if len(data) != len(text):
            spans = [_in_characters(data, *span) for span in spans]
        return Match(tuple(text[start:end] if start >= 0 else None for start, end in spans))

    def named(self, text: str) -> dict[str, str]:
        """Its named groups in `text`; empty where a group took no part, no names when it does not match."""
        found = self.search(text)
        return {} if found is None else {name: found.group(at) or "" for name, at in self.names.items()}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Regex) and other.pattern == self.pattern

    def __hash__(self) -> int:
        return hash(self.pattern)

    def __str__(self) -> str:
        return self.pattern

    def __repr__(self) -> str:
        return f"<Regex {self.pattern!r}>"


def _compile(pattern: str) -> Any:
    import re2  # with the first regex: most configurations have none

    options = re2.Options()
    options.log_errors = False
    options.dot_nl = True
    try:
        return re2.compile(pattern, options)
    except (re2.error, UnicodeEncodeError) as error:
        raise ValueError(f"{quoted(pattern)} is not a regex: {_advice(pattern, error)}") from None


def _advice(pattern: str, error: Exception) -> str:
    told = error.args[0]
    reason = told.decode("utf-8", "replace") if isinstance(told, bytes) else str(error)
    culprit = reason.partition(": ")[2]
    for sign, advice in _ADVICE.items():
        if re.search(sign, culprit) or re.search(sign, reason) or (not culprit and re.search(sign, pattern)):
            return advice
    # RE2 names some operators by their first characters only.
    for sign, advice in _ADVICE.items():
        if "operator" in reason and re.search(sign, pattern):
            return advice
    return reason


def _encoded(text: str) -> bytes:
    """`text` for RE2, character for character; U+FFFD stands for bytes that were not UTF-8."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _NOT_UTF8.sub("\ufffd", text).encode()


def _in_characters(data: bytes, start: int, end: int) -> tuple[int, int]:
    if start < 0:
        return start, end
    before = len(data[:start].decode())
    return before, before + len(data[start:end].decode())
