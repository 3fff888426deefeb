"""The health service of gRPC (grpc.health.v1.Health/Check): what is asked, and what the answer means.

Its messages have one field each, so they are written and read by hand.
"""

from __future__ import annotations

from typing import Final

from ..wire.grpc import field
from ..wire.head import ResponseHead

_STATES: Final = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_SERVING: Final = 1
_PREFIX: Final = 5  # bytes before a message: whether it is compressed, and its length
_FIELD_1_TEXT: Final = 0x0A
_FIELD_1_NUMBER: Final = 0x08
#: Codes of grpc-status that servers give here, for people.
_CODES: Final = {
    b"5": "the service is not known",
    b"12": "there is no health service",
    b"16": "no permission",
}


def request(service: str, host: str, timeout: float) -> bytes:
    """Head and body of the question for `service`; empty: the whole server. `timeout` in seconds."""
    name = service.encode("ascii")
    message = bytes((_FIELD_1_TEXT,)) + _number(len(name)) + name if name else b""
    framed = b"\0" + len(message).to_bytes(4, "big") + message
    head = (
        "POST /grpc.health.v1.Health/Check HTTP/1.1\r\n"
        f"Host: {host}\r\n"
        "Content-Type: application/grpc\r\n"
        "User-Agent: sidecar-health\r\n"
        f"grpc-timeout: {max(1, min(99_999_999, int(timeout * 1000)))}m\r\n\r\n"
    )
    return head.encode("ascii") + framed


def _number(value: int) -> bytes:
    """A varint."""
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)


def trouble(head: ResponseHead, body: bytes, trailers: bytes) -> str:
    """What is wrong, for people; empty: it serves. `trailers`: field lines."""
    if head.status != 200:
        return f"{head.status}"
    if not (head.get(b"content-type") or b"").startswith(b"application/grpc"):
        return "the answer is not gRPC"
    code = head.get(b"grpc-status") or field(trailers, b"grpc-status")
    if code is None:
        return "no grpc-status"
    if code != b"0":
        shown = code[:8].decode("ascii", "backslashreplace")
        known = _CODES.get(code)
        return f"grpc-status {shown}: {known}" if known else f"grpc-status {shown}"
    state = _state(body)
    if state is None:
        return "the message cannot be read"
    return "" if state == _SERVING else _STATES.get(state, f"state {state}")


def _state(body: bytes) -> int | None:
    """The number in the one field of the message; None: it is no such message."""
    if len(body) < _PREFIX or body[0] != 0 or len(body) != _PREFIX + int.from_bytes(body[1:_PREFIX], "big"):
        return None
    message = body[_PREFIX:]
    if not message:
        return 0  # the default, which is not written
    if len(message) != 2 or message[0] != _FIELD_1_NUMBER or message[1] > 0x7F:
        return None
    return message[1]
