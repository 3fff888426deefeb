"""The bodies of the demo upstream: what a request brought, and what an answer is made of."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from io import BufferedIOBase
from typing import Any, Final

from .wishes import MAX_SIZE, Refused

MAX_SHOWN: Final = 65536  # bytes of a request's body that are sent back; all are counted and hashed
PIECE: Final = 65536
_MAX_LINE: Final = 4096
_MAX_TRAILERS: Final = 100
_PATTERN: Final = b"".join(b"%07d\n" % number for number in range(PIECE // 8)) * 2


class Received:
    """The body of a request: its beginning, its size, its hash, its trailers."""

    def __init__(self) -> None:
        self.shown = bytearray()
        self.size = 0
        self.hash = hashlib.sha256()
        self.trailers: list[tuple[str, str]] = []

    def read(self, file: BufferedIOBase, size: int) -> None:
        """Take `size` bytes. Raises Refused, and ConnectionError when there are fewer."""
        if self.size + size > MAX_SIZE:
            raise Refused(413, f"the body is larger than {MAX_SIZE} bytes")
        self.size += size
        while size:
            piece = file.read(min(size, PIECE))
            if not piece:
                raise ConnectionError("the body ended early")
            size -= len(piece)
            self.hash.update(piece)
            self.shown += piece[: MAX_SHOWN - len(self.shown)]

    def read_chunks(self, file: BufferedIOBase) -> None:
        """Take chunks and trailers (RFC 9112 section 7.1). Raises as `read`."""
        while True:
            found = re.fullmatch(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;.*)?", _line(file))
            if not found:
                raise Refused(400, "a chunk does not begin with its size")
            size = int(found[1], 16)
            if not size:
                break
            self.read(file, size)
            if _line(file):
                raise Refused(400, "a chunk is longer than it says")
        while line := _line(file):
            name, colon, value = line.decode("latin-1").partition(":")
            if not colon or len(self.trailers) == _MAX_TRAILERS:
                raise Refused(400, "a trailer has no colon, or there are too many")
            self.trailers.append((name, value.strip(" \t")))

    def description(self) -> dict[str, Any]:
        """For the answer. Bytes that are not UTF-8 are shown in base64."""
        try:
            text, encoding = self.shown.decode(), "utf-8"
        except UnicodeDecodeError:
            text, encoding = base64.b64encode(self.shown).decode(), "base64"
        return {
            "body": text,
            "body_encoding": encoding,
            "body_size": self.size,
            "body_sha256": self.hash.hexdigest(),
            "body_is_whole": self.size == len(self.shown),
            "trailers": self.trailers,
        }


def _line(file: BufferedIOBase) -> bytes:
    line = file.readline(_MAX_LINE + 1)
    if not line:
        raise ConnectionError("the body ended early")
    if not line.endswith(b"\r\n"):
        raise Refused(400, "a line of the body is too long or does not end in CRLF")
    return line[:-2]


def pieces(body: bytes | None, size: int, step: int) -> Iterator[bytes]:
    """`size` bytes, `step` at a time: of `body`, or of a pattern that repeats."""
    for at in range(0, size, step):
        end = min(at + step, size)
        yield _PATTERN[at % PIECE : at % PIECE + end - at] if body is None else body[at:end]
