from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import REASONS, Failure, Malformed
from sidecar.message import Response
from sidecar.respond import PHRASES, DateLine, date_line, failure, grpc_end, grpc_failure, grpc_status
from sidecar.runtime import FakeClock
from sidecar.wire.head import LENGTH, NONE


def sent(response: Response) -> bytes:
    framing = NONE if response.body is None else LENGTH
    return response.head.render(framing, True) + (response.body or b"")


def test_a_failure_names_its_reason_and_nothing_else() -> None:
    response = failure(Failure("connection_refused", "10.0.0.7:8001 said no"), b"GET")
    assert response.reason == "connection_refused"
    assert sent(response) == (
        b"HTTP/1.1 502 Bad Gateway\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Cache-Control: no-store\r\n"
        b'Proxy-Status: sidecar; error=connection_refused; details="connection_refused"\r\n'
        b"Content-Length: 36\r\n"
        b"\r\n"
        b"502 Bad Gateway: connection_refused\n"
    )


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_becomes_a_response(reason: str) -> None:
    verdict = REASONS[reason]
    response = failure(Failure(reason), b"GET")
    assert response.head.status == verdict.status
    sentence = " (this port speaks TLS: use https://)" if reason == "plain_http" else ""
    assert response.body == f"{verdict.status} {PHRASES[verdict.status]}: {reason}{sentence}\n".encode()
    assert response.head.get(b"proxy-status") == (
        f'sidecar; error={verdict.proxy_error}; details="{reason}"'.encode()
    )
    assert (response.head.get(b"retry-after") is not None) == (verdict.status == 503)
    assert response.head.get(b"server") is None


@pytest.mark.parametrize("status", [400, 405, 414, 417, 431, 501, 505])
def test_a_malformed_request_names_the_broken_rule(status: int) -> None:
    response = failure(Malformed("some_rule", status), b"GET")
    assert response.reason == "malformed_request"
    assert (response.head.status, response.body) == (
        status,
        f"{status} {PHRASES[status]}: some_rule\n".encode(),
    )
    assert response.head.get(b"proxy-status") == b'sidecar; error=http_request_error; details="some_rule"'
    assert (response.head.get(b"allow") is not None) == (status == 405)


def test_the_status_of_the_failure_itself_counts() -> None:
    assert failure(Failure("no_route", status=421), b"GET").head.status == 421
    assert failure(Failure("no_route", status=599), b"GET").body == b"599 Unknown: no_route\n"


def test_a_service_that_is_away_for_a_while_says_when_to_ask_again() -> None:
    assert failure(Failure("connection_refused", status=503), b"GET").head.get(b"retry-after") == b"1"
    assert failure(Failure("circuit_open", retry_after=7), b"GET").head.get(b"retry-after") == b"7"
    assert failure(Failure("circuit_open", retry_after=8), b"GET").head.get(b"retry-after") == b"8"


def test_head_gets_the_length_but_no_body() -> None:
    get, head = failure(Failure("no_route"), b"GET"), failure(Failure("no_route"), b"HEAD")
    assert head.body is None
    assert sent(get).startswith(sent(head))
    assert head.head.get(b"content-length") == str(len(get.body)).encode()


def test_responses_share_a_head_but_not_their_edits() -> None:
    first, second = failure(Failure("no_route"), b"GET"), failure(Failure("no_route"), b"POST")
    first.extra = b"X-A: 1\r\n"
    assert first.head is second.head
    assert second.extra == b""


# -- the date


def test_the_date_is_a_complete_line_in_gmt() -> None:
    assert DateLine(FakeClock(date=784_111_777.9))() == b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"


def test_the_date_is_made_once_a_second() -> None:
    clock = FakeClock(date=1_700_000_000.0)
    line = DateLine(clock)
    first = line()
    clock.advance(0.999)
    assert line() is first
    clock.advance(0.001)
    assert line() == b"Date: Tue, 14 Nov 2023 22:13:21 GMT\r\n"


def test_the_date_follows_a_clock_that_is_set_back() -> None:
    clock = FakeClock(date=1_700_000_000.0)
    line = DateLine(clock)
    first = line()
    clock.date -= 3600
    assert line() < first
    clock.date += 3600
    assert line() == first


def test_the_first_second_of_1970_has_a_date_too() -> None:
    assert DateLine(FakeClock(date=0.0))() == b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"


@given(st.floats(0, 253_402_300_799, exclude_max=True))
def test_the_date_reads_back_as_the_second_it_was_made_in(date: float) -> None:
    line = DateLine(FakeClock(date=date))()
    text = line.removeprefix(b"Date: ").removesuffix(b"\r\n").decode()
    assert parsedate_to_datetime(text) == datetime.fromtimestamp(int(date), UTC)


def test_the_process_has_one_date() -> None:
    text = date_line().removeprefix(b"Date: ").removesuffix(b"\r\n").decode()
    assert abs((parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()) < 5


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_becomes_a_grpc_status(reason: str) -> None:
    response = grpc_failure(Failure(reason))
    head = response.head
    assert (head.status, head.get(b"content-type"), response.body) == (200, b"application/grpc", None)
    assert 0 < int(head.get(b"grpc-status") or b"0") <= 16
    assert (head.get(b"grpc-message"), response.reason) == (reason.encode(), reason)
    assert f"error={REASONS[reason].proxy_error}".encode() in (head.get(b"proxy-status") or b"")


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("no_route", 12),
        ("connection_refused", 14),
        ("no_server", 14),
        ("response_timeout", 4),
        ("client_gone", 1),
    ],
)
def test_grpc_statuses_say_what_happened(reason: str, status: int) -> None:
    assert grpc_failure(Failure(reason)).head.get(b"grpc-status") == b"%d" % status


def test_a_malformed_call_of_grpc_is_an_internal_error() -> None:
    response = grpc_failure(Malformed("bad_target", 400))
    assert response.reason == "malformed_request"
    assert response.head.get(b"grpc-status") == b"13"
    assert response.head.get(b"grpc-message") == b"bad_target"


def test_a_call_that_fails_in_its_answer_ends_with_the_same_status() -> None:
    failed = Failure("response_incomplete", "what only the log may say")
    assert grpc_status(failed) == 14
    assert grpc_end(failed) == b"grpc-status: 14\r\ngrpc-message: response_incomplete\r\n"
