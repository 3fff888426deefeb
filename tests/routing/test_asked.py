from __future__ import annotations

import pytest

from sidecar.config.addresses import Address
from sidecar.errors import ConfigurationError, Malformed
from sidecar.net.settings import ListenerSettings
from sidecar.routing.asked import Question


def question(url: str, method: str = "GET", *headers: tuple[str, str]) -> Question:
    return Question(method, url, headers, "192.0.2.7")


@pytest.mark.parametrize(
    ("url", "host", "authority", "origin"),
    [
        ("http://Example.org/a?b#c", "example.org", b"Example.org", b"/a?b"),
        ("http://example.org:8080", "example.org", b"example.org:8080", b"/"),
        ("HTTPS://u:p@example.org?x", "example.org", b"example.org", b"/?x"),
        ("http://[::1]:80/", "[::1]", b"[::1]:80", b"/"),
        ("/a%2Fb//c?%zz", "localhost", b"localhost", b"/a%2Fb//c?%zz"),
        ("/ü b", "localhost", b"localhost", b"/%C3%BC%20b"),
    ],
)
def test_a_url_becomes_a_request(url: str, host: str, authority: bytes, origin: bytes) -> None:
    request = question(url).request("public", None)
    assert (request.host, request.head.authority, request.head.origin) == (host, authority, origin)
    assert (request.client, request.listener) == ("192.0.2.7", "public")


def test_the_scheme_is_that_of_the_url() -> None:
    assert question("https://a/").request("", None).scheme == "https"
    assert question("/").request("", None).scheme == "http"


def test_fields_are_sent_and_host_is_replaced() -> None:
    request = question("http://a/", "GET", ("host", "b"), ("X-A", "1"), ("X-A", "2")).request("", None)
    assert request.host == "b"
    assert request.head.get_all(b"x-a") == [b"1", b"2"]


def test_a_question_about_the_server() -> None:
    assert question("*", "OPTIONS").request("", None).path == "*"


@pytest.mark.parametrize(
    ("url", "port"),
    [("http://a/", 80), ("https://a/", 443), ("http://a:81/", 81), ("/", 0), ("*", 0), ("http://a:x/", 0)],
)
def test_the_port_that_is_meant(url: str, port: int) -> None:
    assert question(url).port == port


@pytest.mark.parametrize(
    ("one", "rule"),
    [
        (question("/.."), "bad_path"),
        (question("/%00"), "bad_path"),
        (question("http://a b/"), "bad_host"),
        (question("/", "GE T"), ""),
        (question("/", "GET", ("Content-Length", "x")), "bad_content_length"),
    ],
)
def test_what_no_client_may_send_is_malformed(one: Question, rule: str) -> None:
    with pytest.raises(Malformed) as error:
        one.request("", None)
    assert error.value.rule == rule or not rule


def test_the_listener_sets_the_limits() -> None:
    settings = ListenerSettings(bind=(Address("127.0.0.1", 80),), max_target_size=256)
    with pytest.raises(Malformed) as error:
        question("/" + "a" * 300).request("public", settings)
    assert error.value.status == 414


@pytest.mark.parametrize("url", ["example.org/", "ftp://a/", "", "http:/a"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(
        ConfigurationError, match="is not a URL: write http://host/path or /path, or tcp://name"
    ):
        question(url)


def test_a_line_break_cannot_be_asked_for() -> None:
    with pytest.raises(ConfigurationError, match="has a line break"):
        question("/", "GET", ("X-A", "1\r\nX-B: 2"))
    with pytest.raises(ConfigurationError, match="has a line break"):
        question("/", "GET\n")


def test_a_head_that_does_not_end_is_malformed() -> None:
    with pytest.raises(Malformed):
        question("/", "").request("", None)


@pytest.mark.parametrize(
    ("url", "name", "port"),
    [("tcp://a.example", "a.example", 0), ("tcp://A.example:5432", "a.example", 5432), ("tcp://:1", "", 1)],
)
def test_a_connection(url: str, name: str, port: int):
    question = Question("GET", url, (), "192.0.2.7")
    request = question.request("edge", None)
    assert (question.is_tcp, question.port) == (True, port)
    assert (request.host, request.client, request.scheme, request.listener) == (
        name,
        "192.0.2.7",
        "tcp",
        "edge",
    )


@pytest.mark.parametrize("url", ["tcp://a/b", "tcp://a:b", "tcp://[::1]:1", "tcp://a b"])
def test_what_is_no_connection(url: str):
    with pytest.raises(ConfigurationError, match="is a TCP connection: write tcp://NAME:PORT"):
        Question("GET", url, (), "192.0.2.7")


def test_a_connection_has_no_fields():
    with pytest.raises(ConfigurationError, match="no fields"):
        Question("GET", "tcp://a", (("X", "y"),), "192.0.2.7")


@pytest.mark.parametrize(
    ("url", "sni", "wants", "scheme", "told"),
    [
        ("/x", "", None, "https", "localhost"),
        ("http://a/", "", False, "https", "a"),
        ("https://A.:1/", "", True, "https", "a"),
        ("https://a/", "B", True, "https", "b"),
        ("http://a/", "b", True, "https", "b"),
        ("https://[::1]/", "", True, "https", ""),
        ("tcp://a", "", False, "tcp", "a"),
        ("tcp://:1", "b", True, "tcp", "b"),
    ],
)
def test_a_listener_with_tls_has_a_handshake(url: str, sni: str, wants: bool | None, scheme: str, told: str):
    asked = Question("GET", url, (), "192.0.2.7", sni)
    request = asked.request("secure", ListenerSettings(bind=(), tls=("site",)))
    assert asked.wants_tls is wants
    assert (request.scheme, request.tls.sni) == (scheme, told)
    assert Question("GET", url, (), "192.0.2.7", sni).request("plain", ListenerSettings(bind=())).tls is None
