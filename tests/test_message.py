"""What travels: values with nothing in them that nobody asked for."""

from __future__ import annotations

import pytest

from sidecar.message import Attempt, Request, Response
from sidecar.wire.head import Limits, RequestHead, ResponseHead


def head(
    text: bytes = b"GET http://A.example.:8080/x?y=1 HTTP/1.1\r\nHost: a.example:8080\r\n\r\n",
) -> RequestHead:
    made = RequestHead(Limits())
    assert made.feed(text) == len(text)
    return made


def test_a_request_begins_as_the_client_sent_it() -> None:
    read = head()
    request = Request(read, "/x", "192.0.2.7", "https", "public")
    assert request.head is read
    assert (request.path, request.client, request.scheme, request.listener) == (
        "/x",
        "192.0.2.7",
        "https",
        "public",
    )
    assert request.host == "a.example"
    assert (request.target, request.host_header, request.drop, request.extra) == (None, None, None, b"")
    assert (request.body, request.route, request.match, request.interim) == (None, None, None, None)


def test_requests_do_not_share_their_attempts() -> None:
    one, other = (Request(head(), "/", "192.0.2.7", "http", "public") for _ in range(2))
    one.attempts.append(Attempt("app-1"))
    assert other.attempts == []


def test_a_request_without_a_host_has_none() -> None:
    request = Request(head(b"GET / HTTP/1.0\r\n\r\n"), "/", "192.0.2.7", "http", "public")
    assert request.host == ""


def test_an_attempt_that_never_came_far_says_so() -> None:
    attempt = Attempt("app-1")
    assert (attempt.connect, attempt.first_byte, attempt.total) == (-1.0, -1.0, -1.0)
    assert (attempt.server, attempt.reused, attempt.status, attempt.reason) == ("app-1", False, 0, "")


def test_a_response_is_a_head_and_maybe_a_body() -> None:
    made = ResponseHead.make(204, [])
    response = Response(made)
    assert (response.head, response.body, response.reason) == (made, None, "")
    assert (response.extra, response.drop) == (b"", None)
    assert Response(made, b"x", "no_route").reason == "no_route"


@pytest.mark.parametrize(
    "value",
    [
        Attempt("app-1"),
        Request(head(), "/", "192.0.2.7", "http", "public"),
        Response(ResponseHead.make(204, [])),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_exists_per_exchange_takes_no_other_names(value: object) -> None:
    """A misspelt field is an error, not a new one; and no value carries a dictionary."""
    with pytest.raises(AttributeError):
        value.nonsense = 1  # type: ignore[attr-defined]
    assert not hasattr(value, "__dict__")
