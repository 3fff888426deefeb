"""Frames come back as they were sent; what breaks RFC 6455 ends the connection with a code."""

from __future__ import annotations

import io
from email.message import Message

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.demo.websocket import MAX_FRAME, accept_key, echo
from sidecar.demo.wishes import Refused

MASK = b"\x01\x02\x03\x04"


def masked(first: int, payload: bytes) -> bytes:
    """A frame as a client sends it."""
    size = len(payload)
    if size <= 125:
        head = bytes((first, 0x80 | size))
    elif size <= 0xFFFF:
        head = bytes((first, 0xFE)) + size.to_bytes(2)
    else:
        head = bytes((first, 0xFF)) + size.to_bytes(8)
    return head + MASK + bytes(byte ^ MASK[at % 4] for at, byte in enumerate(payload))


def echoed(sent: bytes) -> bytes:
    """What comes back until the client goes away or the connection ends."""
    out = bytearray()
    try:
        echo(io.BytesIO(sent), out.extend)
    except ConnectionError:
        out += b"<gone>"
    return bytes(out)


CLOSE = masked(0x88, b"\x03\xe8")


def test_messages_fragments_and_control_frames() -> None:
    sent = masked(0x01, b"Hel") + masked(0x89, b"?") + masked(0x80, b"lo") + masked(0x8A, b"") + CLOSE
    assert echoed(sent) == b"\x01\x03Hel" + b"\x8a\x01?" + b"\x80\x02lo" + b"\x88\x02\x03\xe8"


@pytest.mark.parametrize(
    ("size", "head"),
    [(125, b"\x82\x7d"), (126, b"\x82\x7e\x00\x7e"), (65536, b"\x82\x7f" + b"\0\0\0\0\0\1\0\0")],
)
def test_lengths(size: int, head: bytes) -> None:
    payload = bytes(range(256)) * 256
    assert echoed(masked(0x82, payload[:size])) == head + payload[:size] + b"<gone>"


@given(st.binary(max_size=300))
def test_payloads_survive_the_mask(payload: bytes) -> None:
    assert echoed(masked(0x82, payload)).endswith(payload + b"<gone>")


@pytest.mark.parametrize(
    "sent",
    [
        b"\x81\x01x",
        masked(0xC1, b"reserved bit"),
        masked(0x09, b"a ping in fragments"),
        masked(0x89, b"x" * 126),
        masked(0x83, b"opcode"),
        masked(0x8B, b"opcode"),
    ],
)
def test_what_breaks_the_protocol_ends_it(sent: bytes) -> None:
    assert echoed(sent + CLOSE) == b"\x88\x02\x03\xea"


def test_a_frame_beyond_the_bound_is_not_read() -> None:
    assert echoed(b"\x82\xff" + (MAX_FRAME + 1).to_bytes(8)) == b"\x88\x02\x03\xf1"


def handshake(**changes: str) -> Message:
    headers = Message()
    fields = {
        "Connection": "keep-alive, Upgrade",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    }
    for name, value in (fields | {name.replace("_", "-"): value for name, value in changes.items()}).items():
        headers[name] = value
    return headers


def test_the_key_of_the_rfc() -> None:
    assert accept_key(handshake()) == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize(
    ("name", "value"),
    [("Connection", "close"), ("Sec_WebSocket_Key", "short"), ("Sec_WebSocket_Version", "8")],
)
def test_other_handshakes_are_refused(name: str, value: str) -> None:
    with pytest.raises(Refused):
        accept_key(handshake(**{name: value}))
