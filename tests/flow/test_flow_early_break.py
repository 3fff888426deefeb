"""Responses that break before the client got a byte of them: it can still be told."""

from __future__ import annotations

import pytest

from tests.support.proxies import exchange

pytestmark = pytest.mark.usefixtures("no_leaks")

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnot a size\r\n",
    ],
)
def test_a_body_that_breaks_at_its_first_byte_is_answered_with_502(answer: bytes) -> None:
    done = exchange(GET, [[answer]])
    assert done.client.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    assert b'details="malformed_response"' in done.client


def test_a_426_says_to_what_the_client_should_upgrade() -> None:
    fields = b"Connection: upgrade\r\nUpgrade: a/1\r\nContent-Length: 0\r\n"
    answer = b"HTTP/1.1 426 Upgrade Required\r\n" + fields + b"\r\n"
    done = exchange(GET, [[answer]])
    assert b"\r\nUpgrade: a/1\r\n" in done.client
    assert b"\r\nConnection: upgrade\r\n" in done.client
