"""When another server is asked: method, reason, what was sent, the client's word, and the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sidecar.config.merge import load
from sidecar.errors import REASONS, ConfigurationError, Failure
from sidecar.upstream.retry import COUNTED, IDEMPOTENT, Retry, RetryOptions, is_idempotent
from sidecar.upstream.settings import UpstreamSettings
from tests.support.upstreams import request_of

METHODS = (b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE", b"POST", b"PATCH", b"LOCK", b"get")
ERRORS = (
    "dns_error",
    "connection_refused",
    "connection_failed",
    "connection_terminated",
    "tls_verify",
    "tls_failed",
    "tls_alert",
    "not_http2",
    "stream_refused",
)
TIMEOUTS = ("connection_timeout", "tls_timeout", "upstream_read_timeout", "upstream_write_timeout")


def retry(*words: str) -> Retry:
    return Retry(RetryOptions(retry_on=words))


def asking(method: bytes, fields: bytes = b"") -> object:
    return request_of(b"%b /a HTTP/1.1\r\nHost: x\r\n%b\r\n" % (method, fields))


# -- the decision


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("fields", [b"", b"Idempotency-Key: 7f\r\n"])
@pytest.mark.parametrize("is_asked_for", [False, True])
def test_who_may_be_executed_twice(method: bytes, fields: bytes, is_asked_for: bool) -> None:
    words = ("error", "non_idempotent") if is_asked_for else ("error",)
    request = asking(method, fields)
    is_safe = method in METHODS[:6]
    assert is_idempotent(request) == (is_safe or bool(fields))
    assert retry(*words).may_execute_twice(request) == (is_safe or bool(fields) or is_asked_for)


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("repeatable", [False, True])
@pytest.mark.parametrize("method", [b"GET", b"POST"])
@pytest.mark.parametrize("words", [(), ("error",), ("timeout",), ("invalid_header",), ("error", "timeout")])
def test_after_which_failure(words: tuple[str, ...], method: bytes, repeatable: bool, reason: str) -> None:
    """`repeatable`: no server can have acted on the request, be it any method."""
    names = {"error": ERRORS, "timeout": TIMEOUTS, "invalid_header": ("malformed_response",)}
    is_wanted = any(reason in names[word] for word in words)
    failure = Failure(reason, repeatable=repeatable)
    expected = is_wanted and (repeatable or method == b"GET")
    assert retry(*words).after_failure(failure, asking(method)) == expected


@pytest.mark.parametrize("status", [403, 404, 429, 500, 502, 503, 504])
def test_after_which_status(status: int) -> None:
    """An answer says that the request arrived: no method but one that may be executed twice goes on."""
    word = f"http_{status}"
    assert retry(word).after_status(status, asking(b"GET"))
    assert not retry(word).after_status(status, asking(b"POST"))
    assert retry(word).after_status(status, asking(b"POST", b"Idempotency-Key: 1\r\n"))
    assert retry(word, "non_idempotent").after_status(status, asking(b"POST"))
    assert not retry("error", "timeout").after_status(status, asking(b"GET"))
    for other in {200, 400, 403, 404, 429, 500, 501, 502, 503, 504} - {status}:
        assert not retry(word).after_status(other, asking(b"GET"))


def test_a_status_that_is_listed_speaks_against_the_server_unless_it_is_about_the_request() -> None:
    """nginx: 403 and 404 are never unsuccessful attempts."""
    every = retry(*(f"http_{status}" for status in (403, 404, 429, 500, 502, 503, 504)))
    assert every.statuses == {403, 404, 429, 500, 502, 503, 504}
    assert every.counted == {429, 500, 502, 503, 504}
    assert retry("error").counted == frozenset()


def test_failures_of_a_server_always_speak_against_it_whatever_is_repeated() -> None:
    counted = (set(ERRORS) | set(TIMEOUTS) | {"malformed_response"}) - {"stream_refused"}
    assert counted == COUNTED
    assert all(REASONS[reason].blame == "upstream" for reason in COUNTED)


def test_idempotent_methods_are_those_of_the_standard() -> None:
    assert set(METHODS[:6]) == IDEMPOTENT


def test_off_means_one_attempt() -> None:
    off = Retry(RetryOptions(retry_on=(), retry_attempts=5))
    assert (off.attempts, off.reasons, off.statuses) == (1, frozenset(), frozenset())


def test_what_is_configured_is_what_counts() -> None:
    it = Retry(RetryOptions(retry_attempts=4, retry_timeout=2.5, retry_body=7))
    assert (it.attempts, it.timeout, it.body) == (4, 2.5, 7)
    assert it.reasons == {*ERRORS, *TIMEOUTS}


# -- the options

HERE = "[upstream app]\nserver.a = 127.0.0.1:8001\n"


def upstream(directory: Path, text: str) -> UpstreamSettings:
    (directory / "a.ini").write_text(HERE + text)
    return load(directory, [UpstreamSettings], {}).named(UpstreamSettings)["app"]


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("off", ()),
        ("error", ("error",)),
        ("error, timeout http_503 error", ("error", "timeout", "http_503")),
        ("error\n timeout\n non_idempotent", ("error", "timeout", "non_idempotent")),
    ],
)
def test_conditions_have_the_words_of_nginx(tmp_path: Path, written: str, words: tuple[str, ...]) -> None:
    settings = upstream(tmp_path, f"retry_on = {written}\n")
    assert settings.retry_on == words


def test_defaults_are_those_of_nginx_with_two_attempts(tmp_path: Path) -> None:
    settings = upstream(tmp_path, "")
    assert (settings.retry_on, settings.retry_attempts) == (("error", "timeout"), 2)
    assert (settings.retry_timeout, settings.attempt_timeout, settings.retry_body) == (0.0, 0.0, 16384)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("retry_on = errors\n", "retry_on: 'errors' is not a condition: write off or some of error timeout"),
        ("retry_on = off error\n", "retry_on: 'off' is not a condition"),
        ("retry_on = http_501\n", "retry_on: 'http_501' is not a condition"),
        ("retry_on = non_idempotent\n", "retry_on: non_idempotent alone is no condition"),
        ("retry_attempts = 0\n", "retry_attempts: 0 is not between 1 and 100"),
        ("retry_body = 2m\n", "retry_body: "),
    ],
)
def test_mistakes_in_the_conditions(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        upstream(tmp_path, text)
    (mistake,) = error.value.mistakes
    assert f"[upstream app] {message}" in mistake


@pytest.mark.parametrize(
    ("given", "idle"),
    [
        ({}, {}),
        ({"retry_attempts": 3, "retry_timeout": 3.0, "retry_body": 0}, {}),
        (
            {"retry_attempts": 1, "retry_timeout": 3.0, "retry_body": 0},
            dict.fromkeys(("retry_timeout", "retry_body"), "retry_attempts = 1"),
        ),
        ({"retry_on": (), "retry_attempts": 3}, {"retry_attempts": "retry_on = off"}),
    ],
)
def test_limits_of_what_never_happens_do_nothing(given: dict[str, Any], idle: dict[str, str]) -> None:
    found = dict(RetryOptions(**given).retry_idle())
    assert found == {
        key: f"has no use with {why}: drop it, or allow more attempts" for key, why in idle.items()
    }
