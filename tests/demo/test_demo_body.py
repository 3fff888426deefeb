"""Bodies are read to their end and not beyond, and what is generated does not depend on the pieces."""

from __future__ import annotations

import hashlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.demo.body import MAX_SHOWN, PIECE, Received, pieces
from sidecar.demo.wishes import MAX_SIZE, Refused


def chunks(data: bytes) -> tuple[Received, bytes]:
    """What is read, and what is left."""
    received, file = Received(), io.BytesIO(data)
    received.read_chunks(file)
    return received, file.read()


def test_a_body_of_known_size() -> None:
    received, file = Received(), io.BytesIO(b"body and more")
    received.read(file, 4)
    assert file.read() == b" and more"
    assert received.description() == {
        "body": "body",
        "body_encoding": "utf-8",
        "body_size": 4,
        "body_sha256": hashlib.sha256(b"body").hexdigest(),
        "body_is_whole": True,
        "trailers": [],
    }


def test_bytes_that_are_no_text_are_shown_in_base64() -> None:
    received = Received()
    received.read(io.BytesIO(b"\xff\x00"), 2)
    assert (received.description()["body"], received.description()["body_encoding"]) == ("/wA=", "base64")


def test_a_large_body_is_counted_and_hashed_but_not_kept() -> None:
    data = b"x" * (MAX_SHOWN + PIECE + 1)
    received = Received()
    received.read(io.BytesIO(data), len(data))
    told = received.description()
    assert (told["body_size"], len(told["body"]), told["body_is_whole"]) == (len(data), MAX_SHOWN, False)
    assert told["body_sha256"] == hashlib.sha256(data).hexdigest()


def test_chunks_with_extensions_and_trailers() -> None:
    received, left = chunks(b"4;x=y\r\nWiki\r\n5 ; z\r\npedia\r\n0\r\nA: 1\r\na:\t2 \r\n\r\nnext")
    assert (bytes(received.shown), left) == (b"Wikipedia", b"next")
    assert received.trailers == [("A", "1"), ("a", "2")]


@pytest.mark.parametrize(
    "data",
    [
        b"x\r\n",
        b"\r\n",
        b"-1\r\n",
        b"0x1\r\n",
        b"123456789\r\n",
        b"1\nx\r\n0\r\n\r\n",
        b"1\r\nxy\r\n0\r\n\r\n",
        b"1;" + b"x" * 5000 + b"\r\n",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\n" + b"a: b\r\n" * 101 + b"\r\n",
    ],
)
def test_broken_chunks_are_refused(data: bytes) -> None:
    with pytest.raises(Refused) as refused:
        chunks(data)
    assert refused.value.status == 400


@pytest.mark.parametrize("data", [b"", b"4\r\nWi", b"4\r\nWiki", b"0\r\n", b"4\r\nWiki\r\n"])
def test_a_body_that_ends_early_is_no_body(data: bytes) -> None:
    with pytest.raises((ConnectionError, Refused)):
        chunks(data)


def test_a_body_beyond_the_bound_is_refused_unread() -> None:
    file = io.BytesIO(b"x")
    with pytest.raises(Refused) as refused:
        Received().read(file, MAX_SIZE + 1)
    assert (refused.value.status, file.tell()) == (413, 0)
    with pytest.raises(Refused):
        chunks(b"%x\r\n" % (MAX_SIZE + 1))


@given(st.integers(0, 3 * PIECE), st.integers(1, PIECE))
def test_what_is_generated_does_not_depend_on_the_pieces(size: int, step: int) -> None:
    step = max(step, size // 50 + 1)
    made = b"".join(pieces(None, size, step))
    assert made == b"".join(pieces(None, size, PIECE))
    assert len(made) == size


@given(st.binary(max_size=100), st.integers(1, 200))
def test_pieces_are_the_whole(body: bytes, step: int) -> None:
    cut = list(pieces(body, len(body), step))
    assert b"".join(cut) == body
    assert all(0 < len(piece) <= step for piece in cut)
