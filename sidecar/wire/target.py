# cython: language_level=3, annotation_typing=False
"""The path of a request target: normalised for routes to look at, encoded again when it was rewritten.

The order is fixed: every escape is decoded once, then adjacent slashes are one, then dot segments go. So an
encoded slash separates segments and an encoded dot is a dot, as servers behind the proxy will read them:
`/public/..%2Fadmin` is `/admin` here and cannot pass for something below `/public`.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from ..errors import Malformed

_BROKEN_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
#: Everything but pchar (RFC 3986 section 3.3) and the slash between segments.
_TO_ESCAPE: Final = re.compile(rb"[^A-Za-z0-9._~!$&'()*+,;=:@/-]")
_DOTS: Final = (b"", b".", b"..")


def normal_path(raw: bytes) -> str:
    """The normalised path of a target's path (no query): it starts with a slash, or is `*`.

    Bytes that are not UTF-8 become surrogate escapes. Raises Malformed("bad_path"): a broken escape, a NUL,
    `..` above the root, no slash at the start.
    """
    path = raw.decode("utf-8", "surrogateescape")
    # Nearly every path is normal already. Searches in str cost a fraction of those in bytes.
    if raw[:1] == b"/" and "%" not in path and "/." not in path and "//" not in path and "\0" not in path:
        return path
    if path == "*":
        return path
    return _resolved(_decoded(raw)).decode("utf-8", "surrogateescape")


def _decoded(raw: bytes) -> bytes:
    path = unquote_to_bytes(raw)
    if raw[:1] != b"/" or b"\0" in path or _BROKEN_ESCAPE.search(raw):
        raise Malformed("bad_path")
    return path


def _resolved(path: bytes) -> bytes:
    kept: list[bytes] = []
    segments = path.split(b"/")
    for segment in segments:
        if segment == b"..":
            if not kept:
                raise Malformed("bad_path")
            kept.pop()
        elif segment not in _DOTS:
            kept.append(segment)
    # "/a/b/.." names what is inside /a, so the slash stays.
    if segments[-1] in _DOTS:
        kept.append(b"")
    return b"/" + b"/".join(kept)


def quote_path(path: str) -> bytes:
    """The target that writes a normalised path; `normal_path` of it is `path` again."""
    return _TO_ESCAPE.sub(_escape, path.encode("utf-8", "surrogateescape"))


def _escape(found: re.Match[bytes]) -> bytes:
    return b"%%%02X" % ord(found[0])
