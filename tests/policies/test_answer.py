from __future__ import annotations

import pytest

from sidecar.errors import Malformed
from sidecar.message import Request, Response
from sidecar.policies.answer import redirect, respond
from sidecar.template import Template
from sidecar.wire.head import LENGTH, NONE, Limits, Names, RequestHead


def request(
    line: bytes = b"GET /a?b=1 HTTP/1.1", path: str = "/a", host: bytes = b"Host: Example.org:81\r\n"
) -> Request:
    head = RequestHead(Limits())
    head.feed(line + b"\r\n" + host + b"\r\n")
    return Request(head, path, "192.0.2.1", "http", "public")


def sent(response: Response) -> bytes:
    framing = response.head.framing if response.head.framing == LENGTH else NONE
    return response.head.render(framing, True, 11, response.drop, response.extra) + (response.body or b"")


def location(template: str, asked: Request) -> bytes | None:
    return redirect(302, Template.parse(template))(asked).head.get(b"location")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_has_a_location_and_no_body(status: int) -> None:
    response = redirect(status, Template.parse("https://{host}{request_uri}"))(request())
    assert sent(response).split(b"\r\n")[0].split()[1] == str(status).encode()
    assert sent(response).split(b"\r\n")[1:] == [
        b"Location: https://example.org/a?b=1",
        b"Content-Length: 0",
        b"",
        b"",
    ]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("/new-page", b"/new-page"),
        ("../x?y#z", b"../x?y#z"),
        ("/new{path}", b"/new/caf%C3%A9%20%0D%0ASet-Cookie:%20a=b%FF"),
        ("{request_uri}", b"/%2f%0d%0a"),
    ],
)
def test_a_location_stays_as_it_is_written_and_injects_nothing(template: str, expected: bytes) -> None:
    asked = request(b"GET /%2f%0d%0a HTTP/1.1", "/café \r\nSet-Cookie: a=b\udcff")
    assert location(template, asked) == expected


@pytest.mark.parametrize("target", [b"//evil.example/", b"///evil.example/", b"/\\evil.example/"])
def test_a_location_made_of_the_target_does_not_lead_to_another_host(target: bytes) -> None:
    found = location("{request_uri}", request(b"GET " + target + b" HTTP/1.1"))
    assert found is not None
    assert found.startswith(b"/")
    assert not found.startswith((b"//", b"/\\"))
    assert location("//cdn.example{request_uri}", request()) == b"//cdn.example/a?b=1"


def test_a_variable_does_not_complete_a_double_slash() -> None:
    asked = request()
    asked.match = {"rest": "/evil.example"}
    assert location("/{match.rest}", asked) == b"/evil.example"
    assert location("https://{host}/{match.rest}", asked) == b"https://example.org//evil.example"


def test_a_location_that_needs_the_host_is_not_made_without_one() -> None:
    old = request(b"GET / HTTP/1.0", host=b"")
    with pytest.raises(Malformed, match="missing_host"):
        location("https://{host}/", old)
    assert location("/x", old) == b"/x"


def test_an_empty_location_is_left_out() -> None:
    assert location("{header.x-none}", request()) is None


def test_a_text_is_plain_utf8() -> None:
    response = respond(200, Template.parse("Grüße\n"))(request())
    assert sent(response) == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 8\r\n\r\n"
        b"Gr\xc3\xbc\xc3\x9fe\n"
    )


def test_a_text_may_have_variables() -> None:
    handler = respond(418, Template.parse("{method} {path}"))
    assert handler(request()).body == b"GET /a"
    assert handler(request(path="/caf\udce9")).body == b"GET /caf\xe9"


def test_an_empty_text_is_an_empty_body() -> None:
    assert sent(respond(404, Template.parse(""))(request())).endswith(b"Content-Length: 0\r\n\r\n")


@pytest.mark.parametrize("text", ["OK", "{scheme}"])
def test_head_gets_the_length_but_no_body(text: str) -> None:
    handler = respond(200, Template.parse(text))
    whole, alone = sent(handler(request())), sent(handler(request(b"HEAD / HTTP/1.1")))
    assert alone.endswith(b"\r\n\r\n")
    assert whole.startswith(alone)


@pytest.mark.parametrize("status", [204, 304])
def test_some_statuses_have_no_body(status: int) -> None:
    response = respond(status, Template.parse("unseen"))(request())
    assert response.body is None
    assert sent(response).split(b"\r\n")[1:] == [b"", b""]


def test_the_type_gives_way_to_the_routes() -> None:
    response = respond(200, Template.parse("{{}"))(request())
    response.drop = Names([b"content-type"])
    response.extra = b"Content-Type: application/json\r\n"
    assert sent(response).count(b"Content-Type") == 1
