"""ASN.1 as files and certificates have it: the blocks of PEM, and the elements of DER (X.690) in them."""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from .octets import Octets, Unreadable

# Tags; the bits of a constructed and of a context-specific one are part of the byte.
BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, OID = 0x01, 0x02, 0x03, 0x04, 0x06
UTC_TIME, GENERALIZED_TIME = 0x17, 0x18
SEQUENCE, SET = 0x30, 0x31

_LONGEST_OID: Final = 64  # bytes; an arc that holds a UUID takes 19
_BLANKS: Final = b" \t\r\n"
_UTC: Final = re.compile(rb"(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z")
_GENERALIZED: Final = re.compile(rb"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z")


class Pem:
    """Blocks of one kind. `label`: a regex for what follows BEGIN and END; `what`: one, for people."""

    def __init__(self, label: bytes, what: str) -> None:
        begin, end = (b"-----%b %b-----" % (word, label) for word in (b"BEGIN", b"END"))
        self._form = re.compile(b"%b(.*?)%b|%b" % (begin, end, begin), re.DOTALL)
        self._what = what

    def blocks(self, data: bytes) -> list[bytes]:
        """The DER of each block, in order; other blocks and what stands around are skipped.

        No such block is an empty list. Raises Unreadable: one has no end or is not base64.
        """
        blocks = []
        for number, match in enumerate(self._form.finditer(data), 1):
            text = match[1]
            if text is None:
                raise Unreadable(f"{self._what} {number} of the file has no END line")
            try:
                blocks.append(binascii.a2b_base64(text.translate(None, _BLANKS), strict_mode=True))
            except binascii.Error as error:
                raise Unreadable(f"{self._what} {number} of the file is not base64") from error
        return blocks


class Der(Octets):
    """The elements of a constructed one, in order. DER: one way to write a length, and it has an end."""

    __slots__ = ()

    def end(self) -> None:
        """Nothing may be left."""
        if not self.is_done():
            raise Unreadable("there are bytes behind the end of an element")

    def next(self) -> tuple[int, bytes]:
        """Tag and content of the next element."""
        tag, length = self.read(2)
        if tag & 0x1F == 0x1F:
            raise Unreadable("it has a tag of several bytes")
        if length & 0x80:
            size = length & 0x7F
            length = self.number(size) if 1 <= size <= 4 else 0
            if length < 0x80 or length >> 8 * (size - 1) == 0:
                raise Unreadable("a length is not written as DER demands")
        return tag, self.read(length)

    def take(self, tag: int) -> bytes:
        """Content of the next element, which must have this tag."""
        found, content = self.next()
        if found != tag:
            raise Unreadable(f"there is an element of tag {found:#04x} where {tag:#04x} belongs")
        return content

    def maybe(self, tag: int) -> bytes | None:
        """Content of the next element if it has this tag, else None."""
        return self.next()[1] if self.leads(tag) else None

    def leads(self, *tags: int) -> bool:
        """Whether there is a next element and it has one of these tags."""
        return not self.is_done() and self._data[self._at] in tags


def elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of all elements of a constructed one."""
    reader = Der(data)
    while not reader.is_done():
        yield reader.next()


def signed(data: bytes) -> Der:
    """What stands before a signature, as in a certificate. Raises Unreadable."""
    whole = Der(data)
    parts = Der(whole.take(SEQUENCE))
    whole.end()
    body = Der(parts.take(SEQUENCE))
    parts.take(SEQUENCE)  # the algorithm
    parts.take(BIT_STRING)  # the signature
    parts.end()
    return body


def identifier(content: bytes) -> str:
    """An object identifier as `2.5.4.3`."""
    if not content or len(content) > _LONGEST_OID or content[-1] & 0x80:
        raise Unreadable("an object identifier is broken or too long")
    arcs, arc, is_begun = [], 0, False
    for byte in content:
        if byte == 0x80 and not is_begun:
            raise Unreadable("an object identifier is not written as DER demands")
        arc = arc << 7 | byte & 0x7F
        is_begun = bool(byte & 0x80)
        if not is_begun:
            arcs.append(arc)
            arc = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))


def time(tag: int, content: bytes) -> int:
    """A time of a certificate or of a list, in seconds since 1970."""
    form = {UTC_TIME: _UTC, GENERALIZED_TIME: _GENERALIZED}.get(tag)
    match = form.fullmatch(content) if form is not None else None
    if match is None:
        raise Unreadable("a time is not written as RFC 5280 demands")
    year, month, day, hour, minute, second = map(int, match.groups())
    if tag == UTC_TIME:
        year += 1900 if year >= 50 else 2000
    try:
        return int(datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp())
    except ValueError as error:
        raise Unreadable("a time does not exist") from error
