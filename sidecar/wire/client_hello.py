"""The name that a TLS client asks for, read from its ClientHello: nothing is decrypted, nothing is changed.

Strict and bounded: what breaks the grammar of RFC 8446 (and 6066 for the name) is no TLS, so that a server
which reads the same bytes cannot see another name. The work is linear, however the bytes come.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

from .octets import Octets, Unreadable

#: Longest ClientHello in bytes, the headers of its records included; real ones are a tenth of it.
MAX_HELLO: Final = 16 << 10

_HANDSHAKE: Final = 22  # type of a record
_MAJOR: Final = 3  # of the version of every record since SSL 3.0
_RECORD_HEADER: Final = 5
_LONGEST_RECORD: Final = 1 << 14
_CLIENT_HELLO: Final = 1  # type of a handshake message
_MESSAGE_HEADER: Final = 4
_SERVER_NAME: Final = 0  # type of an extension
_HOST_NAME: Final = 0  # type of a name
_LONGEST_NAME: Final = 253
#: Labels as routes write them (RFC 6066: ASCII, no final dot); whatever else stands there is no host name.
_LABELS: Final = re.compile(rb"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*")


class Verdict(Enum):
    """What there is to say before, or instead of, a name."""

    MORE = "more bytes are needed"
    NOT_TLS = "this is no ClientHello"


class ClientHello:
    """Reads one, from bytes as they come. After a name or NOT_TLS it takes nothing more."""

    __slots__ = ("_header", "_headers", "_left", "_message", "_size")

    def __init__(self) -> None:
        self._header = b""  # the beginning of a record's header
        self._headers = 0  # bytes of all those so far
        self._left = 0  # bytes of the present record that are still to come
        self._message = bytearray()
        self._size = 0  # of the whole message; 0: not known yet

    def feed(self, data: bytes) -> str | Verdict:
        """Go on with the next bytes: the name in lower case, "" when the client names none, or a Verdict.

        What follows the ClientHello is not looked at.
        """
        at = 0
        while at < len(data):
            if self._left:
                piece = data[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                self._message += piece
                if not self._is_sound():
                    return Verdict.NOT_TLS
                if self._size and len(self._message) >= self._size:
                    return _name(bytes(self._message[_MESSAGE_HEADER : self._size]))
            else:
                piece = data[at : at + _RECORD_HEADER - len(self._header)]
                at += len(piece)
                self._header += piece
                if not self._begin():
                    return Verdict.NOT_TLS
        return Verdict.MORE

    def _begin(self) -> bool:
        """Look at the header of a record, as far as it is there; whether it can be one of a ClientHello."""
        header = self._header
        if header[0] != _HANDSHAKE or (len(header) > 1 and header[1] != _MAJOR):
            return False
        if len(header) < _RECORD_HEADER:
            return True
        self._header = b""
        self._headers += _RECORD_HEADER
        self._left = int.from_bytes(header[3:], "big")
        return 0 < self._left <= _LONGEST_RECORD and self._has_bounds()

    def _has_bounds(self) -> bool:
        """Whether what was read, and what the message says of its length, is as little as it must be."""
        return self._headers + max(self._size, len(self._message)) <= MAX_HELLO

    def _is_sound(self) -> bool:
        """Whether the message, as far as it is there, can be a ClientHello of a length that is read."""
        message = self._message
        if message[0] != _CLIENT_HELLO:
            return False
        if not self._size and len(message) >= _MESSAGE_HEADER:
            self._size = _MESSAGE_HEADER + int.from_bytes(message[1:_MESSAGE_HEADER], "big")
        return self._has_bounds()


class _Vectors(Octets):
    """Vectors of TLS (RFC 8446 section 3.4), one behind the other."""

    __slots__ = ()

    def vector(self, size: int, least: int, unit: int = 1) -> bytes:
        """A vector whose length takes `size` bytes: `least` bytes or more, in steps of `unit`."""
        length = self.number(size)
        if length < least or length % unit:
            raise Unreadable("a vector has a length that its type does not allow")
        return self.read(length)


def _name(hello: bytes) -> str | Verdict:
    try:
        return _server_name(_Vectors(hello))
    except Unreadable:
        return Verdict.NOT_TLS


def _server_name(hello: _Vectors) -> str:
    if hello.number(2) >> 8 != _MAJOR:
        raise Unreadable("it is of another version")
    hello.read(32)  # the random
    if len(hello.vector(1, 0)) > 32:  # the session
        raise Unreadable("the session has more than 32 bytes")
    hello.vector(2, 2, 2)  # the cipher suites
    hello.vector(1, 1)  # the compression methods
    if hello.is_done():
        # Up to TLS 1.2 a client may leave the extensions out.
        return ""
    extensions = _Vectors(hello.vector(2, 0))
    if not hello.is_done():
        raise Unreadable("there are bytes behind the extensions")
    name, seen = "", set()
    while not extensions.is_done():
        kind = extensions.number(2)
        if kind in seen:
            raise Unreadable("an extension is there twice")
        seen.add(kind)
        data = extensions.vector(2, 0)
        if kind == _SERVER_NAME:
            name = _host_name(_Vectors(data))
    return name


def _host_name(extension: _Vectors) -> str:
    """The one name of the list: no other type was ever defined, and of one type there is one name."""
    names = _Vectors(extension.vector(2, 1))
    kind = names.number(1)
    name = names.vector(2, 1)
    if not extension.is_done() or not names.is_done() or kind != _HOST_NAME:
        raise Unreadable("there is not one host name")
    if len(name) > _LONGEST_NAME or not _LABELS.fullmatch(name):
        raise Unreadable("the name is no host name")
    return name.decode("ascii").lower()
