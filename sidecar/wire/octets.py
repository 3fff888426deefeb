"""Bytes that are read from the front: so many octets, or a number that is written in so many of them."""

from __future__ import annotations


class Unreadable(ValueError):
    """The bytes are not what they are read as; the message says in a sentence what is wrong."""


class Octets:
    """Some bytes, and how far they are read."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def is_done(self) -> bool:
        """Whether nothing is left."""
        return self._at == len(self._data)

    def read(self, size: int) -> bytes:
        """So many bytes. Raises Unreadable: there are fewer."""
        end = self._at + size
        if end > len(self._data):
            raise Unreadable("it ends in the middle of an element")
        piece, self._at = self._data[self._at : end], end
        return piece

    def number(self, size: int) -> int:
        """A number of so many bytes, the highest first. Raises Unreadable: there are fewer."""
        return int.from_bytes(self.read(size), "big")
