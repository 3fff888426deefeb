"""Reasons and the exceptions that carry them."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from sidecar.errors import (
    REASONS,
    Broken,
    ConfigurationError,
    Failure,
    Malformed,
    SidecarError,
    Verdict,
)

#: RFC 9209 section 2.3.
PROXY_ERRORS = {
    "dns_timeout",
    "dns_error",
    "destination_not_found",
    "destination_unavailable",
    "destination_ip_prohibited",
    "destination_ip_unroutable",
    "connection_refused",
    "connection_terminated",
    "connection_timeout",
    "connection_read_timeout",
    "connection_write_timeout",
    "connection_limit_reached",
    "tls_protocol_error",
    "tls_certificate_error",
    "tls_alert_received",
    "http_request_error",
    "http_request_denied",
    "http_response_incomplete",
    "http_response_header_section_size",
    "http_response_header_size",
    "http_response_body_size",
    "http_response_trailer_section_size",
    "http_response_trailer_size",
    "http_response_transfer_coding",
    "http_response_content_coding",
    "http_response_timeout",
    "http_upgrade_failed",
    "http_protocol_error",
    "proxy_internal_response",
    "proxy_internal_error",
    "proxy_configuration_error",
    "proxy_loop_detected",
}


@pytest.mark.parametrize(("reason", "verdict"), REASONS.items())
def test_a_verdict_is_one_that_clients_and_logs_understand(reason: str, verdict: Verdict) -> None:
    assert reason.replace("_", "").isalnum() and reason[0].isalpha()
    assert reason.islower()
    assert verdict.status == 499 or verdict.status in {status.value for status in HTTPStatus}
    assert verdict.status >= 400
    assert verdict.proxy_error in PROXY_ERRORS


@pytest.mark.parametrize(("reason", "verdict"), REASONS.items())
def test_who_is_to_blame_fits_the_status(reason: str, verdict: Verdict) -> None:
    """A 4xx is the client's doing, a 502 or 504 the server's; the proxy owns the rest and a missing route.

    503 says that nobody was asked: by the proxy's own want, or since no server would have had use for it; or
    that the one who was did nothing.
    """
    if verdict.blame == "client":
        assert 400 <= verdict.status < 500
    elif verdict.blame == "upstream":
        unasked = reason in ("no_server", "upstream_overloaded", "circuit_open", "stream_refused")
        assert verdict.status in ((503,) if unasked else (502, 504))
    else:
        assert verdict.status in (404, 500, 503)


@pytest.mark.parametrize("reason", [reason for reason in REASONS if reason.endswith("_timeout")])
def test_a_timeout_says_so_in_its_status(reason: str) -> None:
    """499 is for logs: nobody is there to read it."""
    assert REASONS[reason].status in (408, 499, 504)


@pytest.mark.parametrize(("reason", "verdict"), REASONS.items())
def test_a_failure_carries_its_verdict(reason: str, verdict: Verdict) -> None:
    failure = Failure(reason)
    assert (failure.reason, failure.status, failure.blame, failure.proxy_error) == (reason, *verdict)
    assert (failure.detail, failure.repeatable, str(failure)) == ("", False, reason)
    assert failure.retry_after == 1


def test_a_failure_says_more_to_the_log_and_may_have_another_status() -> None:
    failure = Failure("connection_refused", "10.0.0.7:80", status=503, repeatable=True)
    assert str(failure) == "connection_refused: 10.0.0.7:80"
    assert (failure.status, failure.blame, failure.repeatable) == (503, "upstream", True)


def test_a_failure_has_a_declared_reason() -> None:
    with pytest.raises(KeyError):
        Failure("bad_luck")


def test_a_malformed_message_names_the_rule_it_breaks() -> None:
    assert (Malformed("bare_lf").rule, Malformed("bare_lf").status) == ("bare_lf", 400)
    assert (Malformed("target_too_long", 414).status, str(Malformed("obs_fold"))) == (414, "obs_fold")


def test_broken_bytes_have_a_side_and_a_manner() -> None:
    broken = Broken("sink", "timeout")
    assert (broken.side, broken.what) == ("sink", "timeout")
    assert str(broken) == "('sink', 'timeout')"


def test_a_configuration_error_shows_each_mistake_on_its_own_line() -> None:
    error = ConfigurationError(["a.ini:1: one", "b.ini:2: two"])
    assert error.mistakes == ["a.ini:1: one", "b.ini:2: two"]
    assert str(error) == "a.ini:1: one\nb.ini:2: two"


@pytest.mark.parametrize("kind", [Broken, ConfigurationError, Failure, Malformed])
def test_whatever_is_raised_on_purpose_has_one_root(kind: type[Exception]) -> None:
    assert issubclass(kind, SidecarError)
