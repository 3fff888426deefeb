"""A WebSocket that sends back what it gets (RFC 6455, no extensions)."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from email.message import Message
from io import BufferedIOBase
from typing import Final

from .wishes import Refused

MAX_FRAME: Final = 1 << 20  # bytes

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # section 1.3
_DATA: Final = (0, 1, 2)  # opcodes: continuation, text, binary
_CLOSE, _PING, _PONG = 8, 9, 10
_FINAL: Final = 0x80
_PROTOCOL_ERROR, _TOO_BIG = 1002, 1009  # section 7.4.1

Write = Callable[[bytes], object]


def accept_key(headers: Message) -> str:
    """The answer to the key of a handshake. Raises Refused when it is none."""
    key = headers.get("Sec-WebSocket-Key", "")
    is_upgrade = "upgrade" in headers.get("Connection", "").lower()
    is_key = re.fullmatch("[A-Za-z0-9+/]{22}==", key)
    if not is_upgrade or not is_key or headers.get("Sec-WebSocket-Version") != "13":
        raise Refused(400, "the handshake is not that of RFC 6455, version 13")
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()


def echo(file: BufferedIOBase, write: Write) -> None:
    """Send frames back until the client closes. Raises ConnectionError when it just goes away."""
    while _echo_frame(file, write):
        pass


def _echo_frame(file: BufferedIOBase, write: Write) -> bool:
    """Answer one frame; whether another may follow."""
    first, second = _exactly(file, 2)
    opcode, length = first & 0x0F, second & 0x7F
    is_broken_control = opcode >= _CLOSE and (length > 125 or not first & _FINAL)
    is_masked = second & 0x80
    if first & 0x70 or not is_masked or is_broken_control:
        return _end(write, _PROTOCOL_ERROR)
    if length > 125:
        length = int.from_bytes(_exactly(file, 2 if length == 126 else 8))
    if length > MAX_FRAME:
        return _end(write, _TOO_BIG)
    payload = _unmasked(_exactly(file, 4), _exactly(file, length))
    if opcode == _PING:
        first = _FINAL | _PONG
    elif opcode not in (*_DATA, _CLOSE):
        return opcode == _PONG or _end(write, _PROTOCOL_ERROR)
    write(_frame(first, payload))
    return opcode != _CLOSE


def _end(write: Write, code: int) -> bool:
    write(_frame(_FINAL | _CLOSE, code.to_bytes(2)))
    return False


def _unmasked(mask: bytes, data: bytes) -> bytes:
    size = len(data)
    repeated = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data) ^ int.from_bytes(repeated)).to_bytes(size)


def _frame(first: int, payload: bytes) -> bytes:
    size = len(payload)
    if size <= 125:
        return bytes((first, size)) + payload
    if size <= 0xFFFF:
        return bytes((first, 126)) + size.to_bytes(2) + payload
    return bytes((first, 127)) + size.to_bytes(8) + payload


def _exactly(file: BufferedIOBase, size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise ConnectionError("the frame ended early")
    return data
