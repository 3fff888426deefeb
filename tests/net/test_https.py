"""Where plain HTTP is sent, and what HSTS may say."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.errors import Malformed
from sidecar.message import Request
from sidecar.net.https import ACME_PREFIX, HSTS, HTTPS_REDIRECT, Hsts, https_redirect
from sidecar.wire.head import Limits, RequestHead
from sidecar.wire.target import normal_path

EXAMPLES = settings(max_examples=500)
TEXTS = st.text("ab1.:-[]%4@/\\?#\"' \t\r\n\xe9", max_size=12).map(str.encode)


def request(
    target: str = "/", host: str = "example.org", method: str = "GET", scheme: str = "http"
) -> Request:
    head = RequestHead(Limits())
    assert head.feed(f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    return Request(head, normal_path(head.path), "192.0.2.1", scheme, "public")


@pytest.mark.parametrize(
    ("asked", "port", "expected"),
    [
        (request("/a%2Fb?c=d"), 443, (301, b"https://example.org/a%2Fb?c=d")),
        (request(host="Example.ORG:8080"), 443, (301, b"https://example.org/")),
        (request(host="example.org:80"), 8443, (301, b"https://example.org:8443/")),
        (request(host="[2001:db8::1]:80"), 8443, (301, b"https://[2001:db8::1]:8443/")),
        (request(method="HEAD"), 443, (301, b"https://example.org/")),
        (request(method="POST"), 443, (308, b"https://example.org/")),
        (request("http://other.example/x", host="example.org"), 443, (301, b"https://other.example/x")),
        (request("//evil.example/x"), 443, (301, b"https://example.org//evil.example/x")),
        (request('/"<>^`{|}\\'), 443, (301, b"https://example.org/%22%3C%3E%5E%60%7B%7C%7D%5C")),
        (
            request("/.well-known/acme-challenge"),
            443,
            (301, b"https://example.org/.well-known/acme-challenge"),
        ),
        (
            request("/.well-known/acme-challenge/../../admin"),
            443,
            (301, b"https://example.org/.well-known/acme-challenge/../../admin"),
        ),
        (request(f"{ACME_PREFIX}token"), 443, None),
        (request("*", method="OPTIONS"), 443, None),
        (request(scheme="https"), 443, None),
    ],
)
def test_a_request_is_sent_to_https(asked: Request, port: int, expected: tuple[int, bytes] | None) -> None:
    assert https_redirect(asked, port) == expected


def test_who_names_no_host_is_sent_nowhere() -> None:
    head = RequestHead(Limits())
    assert head.feed(b"GET / HTTP/1.0\r\n\r\n")
    with pytest.raises(Malformed) as caught:
        https_redirect(Request(head, "/", "192.0.2.1", "http", "public"), 443)
    assert (caught.value.rule, caught.value.status) == ("missing_host", 400)


@given(TEXTS, TEXTS)
@EXAMPLES
def test_whatever_is_asked_the_location_is_one_value_for_the_host(host: bytes, target: bytes) -> None:
    head = RequestHead(Limits())
    try:
        assert head.feed(b"GET /" + target + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
        path = normal_path(head.path)
        found = https_redirect(Request(head, path, "192.0.2.1", "http", "public"), 443)
    except (Malformed, AssertionError):
        return
    if found is not None:
        assert found[1].startswith(b"https://" + head.host.encode() + b"/")
        assert found[1].isascii()
        assert not set(found[1]) & set(range(33))


@pytest.mark.parametrize(("text", "port"), [("off", 0), ("on", 443), ("8443", 8443)])
def test_a_port_to_redirect_to_is_read_and_shown(text: str, port: int) -> None:
    assert HTTPS_REDIRECT.parse(text) == port
    assert HTTPS_REDIRECT.show(port) == text


@pytest.mark.parametrize("text", ["yes", "0", "65536", "-1", "4 3", "123456"])
def test_what_is_no_port_is_a_mistake(text: str) -> None:
    with pytest.raises(ValueError, match="is not a port: write on, off, or a port such as 8443"):
        HTTPS_REDIRECT.parse(text)


@pytest.mark.parametrize(
    ("text", "hsts", "value", "shown"),
    [
        ("1y", Hsts(31_536_000), "max-age=31536000", "1y"),
        ("365d", Hsts(31_536_000), "max-age=31536000", "1y"),
        ("90s", Hsts(90), "max-age=90", "90s"),
        ("0s", Hsts(0), "max-age=0", "0s"),
        ("5m INCLUDESUBDOMAINS", Hsts(300, True), "max-age=300; includeSubDomains", "5m includeSubDomains"),
        (
            "2y preload includeSubDomains",
            Hsts(63_072_000, True, True),
            "max-age=63072000; includeSubDomains; preload",
            "2y includeSubDomains preload",
        ),
    ],
)
def test_hsts_is_read_written_and_shown(text: str, hsts: Hsts, value: str, shown: str) -> None:
    assert HSTS.parse(text) == hsts
    assert hsts.value == value
    assert hsts.line == f"Strict-Transport-Security: {value}\r\n".encode()
    assert HSTS.show(hsts) == shown
    assert HSTS.parse(shown) == hsts


def test_hsts_may_be_off() -> None:
    assert HSTS.parse("off") is None
    assert HSTS.show(None) == "off"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("on", "'on' is not an age: write off, or an age such as 1y"),
        ("31536000", "'31536000' is not an age"),
        ("11y", "'11y' is too long: write at most 10y"),
        ("1y subdomains", "'subdomains' is unknown or written twice"),
        ("1y preload preload", "'preload' is unknown or written twice"),
        ("1y preload", "preload demands includeSubDomains and 1y"),
        ("364d includeSubDomains preload", "preload demands includeSubDomains and 1y"),
    ],
)
def test_a_mistake_in_hsts_says_what_would_be_right(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        HSTS.parse(text)
