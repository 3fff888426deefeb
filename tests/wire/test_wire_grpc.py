"""What gRPC writes into fields."""

from __future__ import annotations

import pytest

from sidecar.errors import Malformed
from sidecar.wire.grpc import field, is_call, status, timeout


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        (b"application/grpc", True),
        (b"application/grpc+proto", True),
        (b"application/grpc;encoding=x", True),
        (b"application/grpc-web", False),
        (b"application/grpc-web+proto", False),
        (b"application/json", False),
        (None, False),
    ],
)
def test_a_call_is_known_by_its_content_type(content_type: bytes | None, expected: bool) -> None:
    assert is_call(content_type) is expected


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"1H", 3600),
        (b"2M", 120),
        (b"30S", 30),
        (b"250m", 0.25),
        (b"250u", 0.00025),
        (b"250n", 0.00000025),
        (b"0S", 0),
        (b"99999999S", 99_999_999),
    ],
)
def test_a_timeout_has_digits_and_a_unit(value: bytes, seconds: float) -> None:
    assert timeout(value) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    [b"", b"S", b"5", b"5s", b"5 S", b" 5S", b"+5S", b"-5S", b"1.5S", b"123456789S", "\u0665S".encode()],
)
def test_what_is_no_timeout_is_refused(value: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        timeout(value)
    assert (caught.value.rule, caught.value.status) == ("bad_grpc_timeout", 400)


@pytest.mark.parametrize(
    ("value", "number"),
    [(b"0", 0), (b"16", 16), (b"999", 999), (b"1000", -1), (b"", -1), (b"-1", -1), (b"x", -1), (None, -1)],
)
def test_a_status_is_a_small_number(value: bytes | None, number: int) -> None:
    assert status(value) == number


def test_a_field_is_found_among_lines() -> None:
    lines = b"x: 1\r\nGrpc-Status:\t5 \r\ngrpc-status: 6\r\n"
    assert field(lines, b"grpc-status") == b"5"
    assert field(lines, b"status") is None
    assert field(b"", b"x") is None
