"""What gRPC writes into fields: which requests are calls, how long a call may take, and how it ended.

The rules are those of its page "gRPC over HTTP2".
"""

from __future__ import annotations

from typing import Final

from ..errors import Malformed

#: Seconds of a unit of grpc-timeout.
_UNITS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_MOST_DIGITS: Final = 8
_MOST_STATUS_DIGITS: Final = 3

#: Statuses by which a server says that it failed, and not that the call or its client did: UNKNOWN (what an
#: exception becomes that nobody caught), DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS.
SERVER_ERRORS: Final = frozenset((2, 4, 13, 14, 15))


def is_call(content_type: bytes | None) -> bool:
    """Whether a request with this Content-Type is a call of gRPC (not gRPC-Web, whose errors are HTTP's)."""
    return content_type is not None and (
        content_type == b"application/grpc"
        or content_type.startswith((b"application/grpc+", b"application/grpc;"))
    )


def timeout(value: bytes) -> float:
    """Seconds of a grpc-timeout, one to eight digits and a unit. Raises Malformed: servers refuse it, too."""
    digits, unit = value[:-1], _UNITS.get(value[-1:])
    if unit is None or not digits.isdigit() or len(digits) > _MOST_DIGITS:
        raise Malformed("bad_grpc_timeout")
    return int(digits) * unit


def status(value: bytes | None) -> int:
    """The number in a grpc-status; -1: there is none that can be read."""
    if value is None or not value.isdigit() or len(value) > _MOST_STATUS_DIGITS:
        return -1
    return int(value)


def field(lines: bytes, name: bytes) -> bytes | None:
    """The value of the first of these field lines with this name, given in small letters."""
    for line in lines.split(b"\r\n"):
        key, _, value = line.partition(b":")
        if key.lower() == name:
            return value.strip(b" \t")
    return None
