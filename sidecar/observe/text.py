"""Text that a stranger may have chosen, made fit for a line of a log.

What comes out of `fit` still holds control characters; `quoted` (JSON) and `shown` (console) spell them out.
"""

from __future__ import annotations

from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii
from typing import Final

#: A text as a JSON string in ASCII, quotes included. `fit` first: many readers refuse a lone surrogate.
quoted: Final = encode_basestring_ascii

_MARK: Final = "…"
_UTF8_MAX: Final = 4  # bytes of one character


def fit(text: str | bytes, limit: int) -> str:
    """At most `limit` characters, the last a mark when some are missing.

    Bytes that are not UTF-8 and lone surrogates are spelled out: \\xff, \\udcff.
    """
    if isinstance(text, str):
        text = text[: limit + 1].encode("utf-8", "backslashreplace")
    whole = text[: _UTF8_MAX * (limit + 1)].decode("utf-8", "backslashreplace")
    return whole if len(whole) <= limit else whole[: limit - 1] + _MARK


def shown(text: str) -> str:
    """As it is when it is one plain word, else quoted: it must not pass for two, nor steer the terminal."""
    if text and text.isprintable() and " " not in text and '"' not in text and "\\" not in text:
        return text
    return quoted(text).replace("\x7f", "\\u007f")


def time_text(seconds: float) -> str:
    """RFC 3339 in UTC with milliseconds: 2024-02-29T12:00:00.000Z."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
