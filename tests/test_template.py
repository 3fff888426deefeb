from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.net.tls_info import FACTS, Parameters, Shown, TlsInfo
from sidecar.template import TEMPLATE, VARIABLES, Template, field_value


class FakeHead:
    """The part of a request's head that templates read."""

    def __init__(self, origin: bytes = b"/", fields: list[tuple[bytes, bytes]] | None = None) -> None:
        self.method = b"GET"
        self.origin = origin
        self.query = origin.partition(b"?")[2]
        self._fields = fields or []

    def get_all(self, name: bytes) -> list[bytes]:
        return [value for key, value in self._fields if key.lower() == name.lower()]


def request(origin: bytes = b"/", fields: list[tuple[bytes, bytes]] | None = None, **changes: Any) -> Any:
    values: dict[str, Any] = {
        "head": FakeHead(origin, fields),
        "path": "/normal",
        "client": "192.0.2.1",
        "scheme": "https",
        "host": "example.org",
        "listener": "public",
        "route": None,
        "match": None,
        "tls": TlsInfo(Parameters("TLSv1.3", "TLS_AES_128_GCM_SHA256", "app.example"), Shown()),
    }
    return SimpleNamespace(**(values | changes))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{client_ip}", "192.0.2.1"),
        ("{host}", "example.org"),
        ("{method}", "GET"),
        ("{scheme}", "https"),
        ("{path}", "/normal"),
        ("{query}", "a=1&b=%20"),
        ("{request_uri}", "/a%2Fb?a=1&b=%20"),
        ("{listener}", "public"),
        ("{route}", "api"),
        ("{header.x-one}", "1"),
        ("{header.X-ONE}", "1"),
        ("{header.x-two}", "a, b"),
        ("{cookie.sid}", "s3=x"),
        ("{cookie.late}", "yes"),
        ("{query.a}", "1"),
        ("{query.b}", " "),
        ("{match.id}", "7"),
        ("{tls.version} {tls.sni}", "TLSv1.3 app.example"),
        ("{tls.client_verify}|{tls.client_subject}", "none|"),
        ("{scheme}://{host}{request_uri}#", "https://example.org/a%2Fb?a=1&b=%20#"),
    ],
)
def test_a_variable_renders_what_the_request_has(text: str, expected: str) -> None:
    fields = [
        (b"X-One", b"1"),
        (b"X-Two", b"a"),
        (b"Cookie", b"sidx=no; sid=s3=x;sid=second"),
        (b"cookie", b"late=yes"),
        (b"X-Two", b"b"),
    ]
    asked = request(b"/a%2Fb?a=1&b=%20", fields, route=SimpleNamespace(name="api"), match={"id": "7"})
    assert Template.parse(text).render(asked) == expected


@pytest.mark.parametrize("text", ["{route}", "{header.x}", "{cookie.x}", "{query.x}", "{match.x}", "{query}"])
def test_what_the_request_does_not_have_renders_empty(text: str) -> None:
    assert Template.parse(f"<{text}>").render(request()) == "<>"
    assert (
        Template.parse(text).render(request(b"/?y=1", [(b"Cookie", b"y; z=1")], match={"y": "1"})).count("x")
        == 0
    )


def test_query_parameters_are_decoded_and_the_first_wins() -> None:
    asked = request(b"/?na%6De=J%C3%BCrgen+K&name=other&flag&=empty")
    assert Template.parse("{query.name}").render(asked) == "Jürgen K"
    assert Template.parse("{query.flag}").render(asked) == ""


def test_a_long_query_is_not_searched_to_its_end() -> None:
    asked = request(b"/?" + b"a&" * 1000 + b"late=1")
    assert Template.parse("{query.late}").render(asked) == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("OK", "OK"),
        ("{{host}}", "{host}"),
        ("{{{host}}}", "{example.org}"),
        ('{{"ok": true}', '{"ok": true}'),
        ("}", "}"),
        ("", ""),
    ],
)
def test_doubled_braces_are_braces(text: str, expected: str) -> None:
    assert Template.parse(text).render(request()) == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{clientip}", "did you mean {client_ip}?"),
        ("{headers.x-a}", "did you mean {header.x-a}?"),
        ("{zzz}", "known are {client_ip}"),
        ("{tls.client_subjekt}", "did you mean {tls.client_subject}?"),
        ("{tls.}", "did you mean {tls."),
        ("{zzz}", "known are {client_ip}"),
        ("{}", "known are {client_ip}"),
        ("{ host }", "did you mean {host}?"),
        ("{header.}", "needs a name after the dot"),
        ("{header.a b}", "needs a name after the dot"),
        ("{cookie.ü}", "needs a name after the dot"),
        ("{host", "brace that is not closed"),
        ("a{{{", "brace that is not closed"),
    ],
)
def test_a_mistake_says_what_would_be_right(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint.replace("{", r"\{").replace("?", r"\?")):
        Template.parse(text)


def test_a_constant_is_known_at_load() -> None:
    constant = Template.parse("a{{b")
    assert (constant.constant, constant.variables) == ("a{b", ())
    varying = Template.parse("{scheme}://{host}/{scheme}")
    assert (varying.constant, varying.variables) == (None, ("scheme", "host"))
    assert Template.parse("/x{host}").literal_start == "/x"
    assert varying.literal_start == ""


def test_a_field_value_carries_no_control_characters() -> None:
    asked = request(match={"x": "\tone\r\nSet-Cookie: a=b\0\x7f\x1f two\t three "})
    assert Template.parse("{match.x}").render_bytes(asked) == b"oneSet-Cookie: a=b two\t three"
    assert Template.parse("a\nb").render_bytes(asked) == b"ab"


def test_bytes_that_are_not_utf8_come_back_unchanged() -> None:
    asked = request(b"/", [(b"X-Raw", b"caf\xe9 \xc3\xa9")])
    assert Template.parse("<{header.x-raw}>").render_bytes(asked) == b"<caf\xe9 \xc3\xa9>"


def test_every_variable_of_the_manual_exists() -> None:
    for variable in VARIABLES:
        assert isinstance(Template.parse(f"{{{variable}}}").render(request()), str)


def test_every_fact_of_a_tls_connection_is_a_variable() -> None:
    assert {variable for variable in VARIABLES if variable.startswith("tls.")} == {f"tls.{f}" for f in FACTS}


def test_without_tls_its_variables_are_empty() -> None:
    for fact in FACTS:
        assert Template.parse(f"<{{tls.{fact}}}>").render(request(tls=None)) == "<>"


def test_templates_of_one_text_are_equal() -> None:
    assert Template.parse("{host}") == Template.parse("{host}") != Template.parse("{path}")
    assert len({Template.parse("{host}"), Template.parse("{host}")}) == 1
    assert Template.parse("{host}") != "{host}"


def test_the_kind_shows_what_it_reads() -> None:
    assert TEMPLATE.show(TEMPLATE.parse("a{{ {host}")) == "a{{ {host}"
    assert repr(TEMPLATE.parse("{host}")) == "<Template '{host}'>"


@given(st.text())
def test_any_text_with_its_braces_doubled_is_itself(text: str) -> None:
    template = Template.parse(text.replace("{", "{{").replace("}", "}}"))
    assert template.render(request()) == template.constant == text


@given(st.binary())
def test_no_byte_of_the_client_breaks_a_field(value: bytes) -> None:
    rendered = field_value(value.decode("utf-8", "surrogateescape"))
    assert not set(rendered) & (set(range(32)) - {9} | {127})
