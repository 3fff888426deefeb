"""A request's head by itself: asking it, and writing it for the upstream."""

from __future__ import annotations

import pytest

from sidecar.wire.head import CHUNKED, LENGTH, NONE, Limits, Names, RequestHead

HOP_BY_HOP = {
    b"connection": b"close",
    b"keep-alive": b"timeout=5",
    b"proxy-connection": b"keep-alive",
    b"te": b"trailers",
    b"trailer": b"X-Sum",
    b"upgrade": b"websocket",
    b"http2-settings": b"AAMAAABkAAQ",
}
FORWARDING = [
    b"X-Forwarded-For",
    b"X-Forwarded-Host",
    b"X-Forwarded-Port",
    b"X-Forwarded-Proto",
    b"X-Real-IP",
]


def request(*lines: bytes, start: bytes = b"GET /a HTTP/1.1", host: bytes = b"Host: a") -> RequestHead:
    section = b"\r\n".join([start, *([host] if host else []), *lines, b"", b""])
    head = RequestHead(Limits())
    assert head.feed(section) == len(section)
    return head


def sent(rendered: bytes) -> list[bytes]:
    """The field lines of a rendered head, which ends as a head ends."""
    lines = rendered.split(b"\r\n")
    assert lines[-2:] == [b"", b""]
    assert not any(mark in line for line in lines for mark in (b"\r", b"\n"))
    return lines[1:-2]


# Asking.


def test_get_finds_the_first_value_whatever_the_case():
    head = request(b"X-A: 1", b"x-a: 2")
    assert head.get(b"X-a") == b"1"
    assert head.get_all(b"x-A") == [b"1", b"2"]


def test_get_of_what_is_absent():
    head = request(b"X-AB: 1")
    assert head.get(b"X-A") is None
    assert head.get(b"X-ABC") is None
    assert head.get_all(b"X-A") == []
    assert head.get(b"") is None


def test_an_empty_value_is_not_absent():
    head = request(b"X-A:")
    assert head.get(b"X-A") == b""
    assert head.get_all(b"X-A") == [b""]


@pytest.mark.parametrize("name", [b"X_A", b"a^b", b"a~b", b"a`b", b"a|b", b"!#$%&'*+-.^_`|~09az"])
def test_get_and_drop_find_a_name_of_any_token_bytes(name: bytes):
    head = request(name + b": 1")
    assert head.get(name) == b"1"
    assert head.get_all(name.upper()) == [b"1"]
    assert sent(head.render(drop=Names([name]))) == [b"Host: a"]


def test_bytes_that_differ_by_one_bit_are_not_the_same_letter():
    """Only letters have a case: ^ and ~ differ by the same bit as N and n."""
    head = request(b"a^b: 1")
    assert head.get(b"a~b") is None
    assert sent(head.render(drop=Names([b"a~b"]))) == [b"Host: a", b"a^b: 1"]


def test_fields_keep_order_spelling_and_duplicates():
    head = request(b"B: 2", b"a: 1", b"b: \t3 ", b"A:")
    assert head.fields() == [(b"Host", b"a"), (b"B", b"2"), (b"a", b"1"), (b"b", b"3"), (b"A", b"")]


def test_many_fields_are_all_kept():
    lines = [b"X-%d: %d" % (n, n) for n in range(99)]
    head = request(*lines)
    assert head.get(b"x-98") == b"98"
    assert sent(head.render()) == [b"Host: a", *lines]


def test_raw_is_the_section_without_the_line_that_was_skipped():
    head = RequestHead(Limits())
    section = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    assert head.feed(b"\r\n" + section + b"rest") == 2 + len(section)
    assert head.raw == section


def test_limits_have_defaults_and_say_what_they_are():
    limits = Limits()
    assert (limits.max_header_size, limits.max_headers, limits.max_target_size) == (32768, 100, 8192)


# Writing a request for the upstream.


def test_a_request_goes_on_as_it_came():
    head = request(
        b"Accept: */*", b"X-A:  a ; b", start=b"GET /a%2F../?b=%zz HTTP/1.1", host=b"Host: A.example:80"
    )
    assert head.render() == (
        b"GET /a%2F../?b=%zz HTTP/1.1\r\nHost: A.example:80\r\nAccept: */*\r\nX-A:  a ; b\r\n\r\n"
    )


def test_order_and_duplicates_go_on():
    lines = [b"B: 1", b"Cookie: a=1", b"b: 2", b"Cookie: b=2", b"B: 1"]
    assert sent(request(*lines).render()) == [b"Host: a", *lines]


@pytest.mark.parametrize("name", HOP_BY_HOP)
def test_hop_by_hop_fields_of_a_request_stay_behind(name: bytes):
    head = request(b"A: 1", name.title() + b": " + HOP_BY_HOP[name], b"B: 2")
    assert sent(head.render()) == [b"Host: a", b"A: 1", b"B: 2"]


def test_fields_that_connection_names_stay_behind():
    head = request(
        b"x-a: 1",
        b"Connection: close, X-A ,,x_b",
        b"X-AB: 2",
        b"X_B: 3",
        b"connection:\tX-C\t",
        b"X-C: 4",
        b"X: 5",
    )
    assert sent(head.render()) == [b"Host: a", b"X-AB: 2", b"X: 5"]


def test_connection_cannot_name_host_or_framing_away():
    head = request(b"Connection: host, content-length", b"Content-Length: 3")
    assert sent(head.render()) == [b"Host: a", b"Content-Length: 3"]
    head = request(b"Connection: transfer-encoding", b"Transfer-Encoding: chunked")
    assert sent(head.render()) == [b"Host: a", b"Transfer-Encoding: chunked"]


def test_connection_cannot_name_away_what_the_proxy_adds():
    """A client must not choose which of the proxy's own words the app hears."""
    head = request(b"Connection: X-Forwarded-For, X-User", b"X-User: root")
    extra = b"X-Forwarded-For: 192.0.2.1\r\nX-User: guest\r\n"
    assert sent(head.render(extra=extra)) == [b"Host: a", b"X-Forwarded-For: 192.0.2.1", b"X-User: guest"]


@pytest.mark.parametrize("name", FORWARDING)
@pytest.mark.parametrize("spell", [bytes.lower, lambda name: name.replace(b"-", b"_").upper()])
def test_forwarding_fields_of_the_client_stay_behind(name: bytes, spell):
    """CGI-style apps cannot tell X_Real_IP from X-Real-IP, so neither gets through."""
    head = request(spell(name) + b": 192.0.2.1", spell(name) + b": 192.0.2.2")
    extra = name + b": 198.51.100.1\r\n"
    assert sent(head.render(extra=extra)) == [b"Host: a", extra.removesuffix(b"\r\n")]


def test_names_that_only_look_like_forwarding_fields_go_on():
    lines = [
        b"X-Forwarded: 1",
        b"X-Forwarded-Fox: 2",
        b"X-Real-IQ: 3",
        b"XX-Forwarded-For: 4",
        b"Forwarded: for=a",
    ]
    assert sent(request(*lines).render()) == [b"Host: a", *lines]


def test_drop_and_extra():
    head = request(b"X-A: 1", b"x-b: 2", b"X-a: 3", b"X-C: 4")
    rendered = head.render(drop=Names((b"x-A", b"X-B")), extra=b"X-A: new\r\nX-D: 5\r\n")
    assert sent(rendered) == [b"Host: a", b"X-C: 4", b"X-A: new", b"X-D: 5"]


def test_no_names_drop_nothing():
    assert sent(request(b"A: 1").render(drop=Names([]))) == [b"Host: a", b"A: 1"]


def test_a_name_with_dashes_drops_its_twins_with_underscores():
    """CGI-style apps cannot tell them apart; the other way round nobody takes one for the other."""
    lines = [b"X-User-Id: 1", b"X_User-Id: 2", b"x_user_id: 3", b"XUserId: 4"]
    assert sent(request(*lines).render(drop=Names([b"X-User-Id"]))) == [b"Host: a", b"XUserId: 4"]
    assert sent(request(*lines).render(drop=Names([b"X_User_Id"]))) == [b"Host: a", *lines[:2], lines[3]]


def test_names_are_a_set():
    names = Names([b"X-B", b"A"]) | Names((b"a", b"c"))
    assert sorted(names.names) == [b"a", b"c", b"x-b"]
    assert b"C" in names
    assert b"x-b" in names
    assert b"d" not in names
    assert b"" not in names


def test_names_of_the_same_length_modulo_64_are_not_confused():
    """The set remembers lengths in 64 bits."""
    long = b"x" * 65
    assert sent(request(b"x: 1", long + b": 2").render(drop=Names([long]))) == [b"Host: a", b"x: 1"]


def test_host_and_target_may_be_replaced():
    head = request(b"Content-Length: 0", host=b"HOST: a")
    rendered = head.render(target=b"/b?c", host=b"app:8080")
    assert rendered == b"GET /b?c HTTP/1.1\r\nHost: app:8080\r\nContent-Length: 0\r\n\r\n"


def test_host_comes_first_wherever_it_stood():
    """RFC 9110 section 7.2: as the first field."""
    assert sent(request(b"A: 1", b"Host: b", host=b"").render()) == [b"Host: b", b"A: 1"]


def test_absolute_form_becomes_origin_form_with_its_authority():
    head = request(b"A: 1", start=b"GET http://b.example:81/x?y HTTP/1.1")
    assert head.render() == b"GET /x?y HTTP/1.1\r\nHost: b.example:81\r\nA: 1\r\n\r\n"


def test_a_host_that_is_absent_is_not_made_up():
    for host in (b"", b"Host:"):
        head = request(start=b"GET / HTTP/1.0", host=host)
        assert head.render() == b"GET / HTTP/1.1\r\n\r\n"
        assert head.render(host=b"app") == b"GET / HTTP/1.1\r\nHost: app\r\n\r\n"


def test_an_old_client_is_spoken_for_in_http11():
    head = request(b"Connection: keep-alive", start=b"GET / HTTP/1.0")
    assert head.keep_alive
    assert head.render() == b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def test_upgrade_goes_on_when_it_may():
    head = request(b"Connection: keep-alive, Upgrade", b"Upgrade: WebSocket", b"Sec-WebSocket-Version: 13")
    assert head.upgrade == b"WebSocket"
    assert sorted(sent(head.render(upgrade=True))) == [
        b"Connection: upgrade",
        b"Host: a",
        b"Sec-WebSocket-Version: 13",
        b"Upgrade: WebSocket",
    ]
    assert sent(head.render(upgrade=False)) == [b"Host: a", b"Sec-WebSocket-Version: 13"]


@pytest.mark.parametrize("protocol", [b"h2c", b"H2C", b"websocket, h2c", b""])
def test_h2c_never_goes_on(protocol: bytes):
    head = request(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: " + protocol, b"HTTP2-Settings: AAM")
    assert head.upgrade is None
    assert sent(head.render(upgrade=True)) == [b"Host: a"]


def test_h2c_in_a_field_of_its_own_never_goes_on():
    """Several fields are one list, whichever comes first (RFC 9110 section 5.3)."""
    for protocols in ((b"websocket", b"h2c"), (b"h2c", b"websocket")):
        head = request(b"Connection: upgrade", *(b"Upgrade: " + protocol for protocol in protocols))
        assert b"h2c" not in head.render(upgrade=True)


def test_te_of_the_client_is_not_the_upstreams():
    """The proxy itself decides what it can take; `TE: chunked` would say nothing anyway."""
    assert sent(request(b"TE: trailers, deflate;q=0.5", b"Connection: TE").render()) == [b"Host: a"]


@pytest.mark.parametrize(
    ("line", "framing", "length", "as_received", "buffered"),
    [
        (b"Content-Length: 005", LENGTH, 5, [b"Content-Length: 5"], [b"Content-Length: 5"]),
        (b"Content-Length: 0", LENGTH, 0, [b"Content-Length: 0"], [b"Content-Length: 0"]),
        (
            b"Content-Length: 999999999999999999",
            LENGTH,
            10**18 - 1,
            [b"Content-Length: 999999999999999999"],
            None,
        ),
        (b"Transfer-Encoding: Chunked", CHUNKED, 9, [b"Transfer-Encoding: chunked"], [b"Content-Length: 9"]),
        (b"A: 1", NONE, 0, [b"A: 1"], [b"A: 1", b"Content-Length: 0"]),
    ],
)
def test_framing_is_written_anew(
    line: bytes, framing: int, length: int, as_received: list[bytes], buffered: list[bytes] | None
):
    head = request(line)
    assert head.framing == framing
    assert sent(head.render()) == [b"Host: a", *as_received]
    if buffered is not None:
        assert sent(head.render(framing=LENGTH, length=length)) == [b"Host: a", *buffered]


def test_framing_may_be_left_out():
    assert sent(request(b"Content-Length: 0").render(framing=NONE)) == [b"Host: a"]
    assert sent(request(b"Transfer-Encoding: chunked").render(framing=NONE)) == [b"Host: a"]


def test_expect_goes_on_unless_it_was_answered():
    head = request(b"Expect: 100-continue", b"Content-Length: 1")
    assert head.expect_continue
    assert b"Expect: 100-continue" in sent(head.render())
    assert sent(head.render(expect=False)) == [b"Host: a", b"Content-Length: 1"]
