"""One exchange, one line, whatever the client sent."""

from __future__ import annotations

import json
import string
from types import SimpleNamespace
from typing import Any, Literal

from hypothesis import given
from hypothesis import strategies as st

from sidecar.message import Attempt, Request, connection
from sidecar.net.tls_info import Parameters, Shown, TlsInfo
from sidecar.observe.access import MAX_PATH, MAX_TEXT, AccessLog
from sidecar.runtime import FakeClock
from sidecar.wire.head import Limits, RequestHead
from tests.support.signed import named, signed

TEXT = st.text(st.characters(), max_size=30)
BYTES = st.one_of(st.binary(max_size=30), TEXT.map(lambda text: text.encode("utf-8", "surrogatepass")))


#: What the parser takes for a method (RFC 9110 section 5.6.2).
METHODS = st.text(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~", min_size=1, max_size=32)


class Odd(RequestHead):
    """A head with a target that no parser would let pass: a line is one line all the same."""

    said: bytes

    @property
    def origin(self) -> bytes:
        return self.said


class Lines(list[bytes]):
    """An output that remembers."""

    def write(self, line: bytes) -> None:
        self.append(line)


def ask(
    method: bytes = b"GET",
    origin: bytes = b"/a?b=c",
    host: str = "example.com",
    client: str = "203.0.113.7",
    route: str | None = "api",
    attempts: tuple[Attempt, ...] = (),
) -> Request:
    head = Odd(Limits())
    assert head.feed(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
    head.said = origin
    request = Request(head, "/", client, "https", "public")
    request.host = host
    request.route = route if route is None else SimpleNamespace(name=route)
    request.attempts = list(attempts)
    return request


def tried(server: str = "127.0.0.1:8001", **fields: object) -> Attempt:
    attempt = Attempt(server)
    for name, value in fields.items():
        setattr(attempt, name, value)
    return attempt


def line_of(
    request: Request,
    *,
    fmt: Literal["json", "console"] = "json",
    status: int = 200,
    reason: str = "",
    duration: float = 0.0125,
) -> bytes:
    lines = Lines()
    AccessLog(lines, fmt, FakeClock()).record(request, status, reason, 7, 512, duration)
    return lines[0]


def strict(line: bytes) -> Any:
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    value = json.loads(line.decode("utf-8"))
    json.dumps(value, ensure_ascii=False).encode("utf-8")  # no lone surrogate
    return value


def test_fields_stand_in_their_order() -> None:
    attempt = tried(status=200, reused=True, first_byte=0.000812, total=0.0011)
    assert line_of(ask(attempts=(attempt,))) == (
        b'{"time":"2023-11-14T22:13:20.000Z","client":"203.0.113.7","method":"GET","host":"example.com",'
        b'"path":"/a?b=c","route":"api","listener":"public","upstream":"127.0.0.1:8001","status":200,'
        b'"received":7,"sent":512,"duration_ms":12.500,"attempts":[{"server":"127.0.0.1:8001","status":200,'
        b'"reused":true,"first_byte_ms":0.812,"total_ms":1.100}]}\n'
    )


def test_what_is_absent_is_left_out() -> None:
    fields = strict(line_of(ask(route=None), status=404, reason="no_route"))
    assert "route" not in fields
    assert "upstream" not in fields
    assert fields["reason"] == "no_route"
    assert fields["attempts"] == []


def secured(certificate: bytes | None = None, verify_error: str = "") -> Request:
    asked = ask()
    asked.tls = TlsInfo(Parameters("TLSv1.3", "", "a"), Shown(certificate, (), verify_error))
    return asked


CART = signed(named('cart "one"'))


def test_tls_is_told_by_its_version() -> None:
    assert b'"listener":"public","tls":"TLSv1.3","status":' in line_of(secured())
    assert b" listener=public tls=TLSv1.3\n" in line_of(secured(), fmt="console")


def test_a_certificate_that_was_shown_is_told_and_why_it_is_not_believed() -> None:
    fields = strict(line_of(secured(CART)))
    assert (fields["tls"], fields["client_cert"]) == ("TLSv1.3", 'CN=cart \\"one\\"')
    assert "client_verify" not in fields
    fields = strict(line_of(secured(CART, "expired\n")))
    assert (fields["client_cert"], fields["client_verify"]) == ('CN=cart \\"one\\"', "failed: expired ")
    told = line_of(secured(CART, "expired"), fmt="console")
    assert b' tls=TLSv1.3 client_cert="' in told
    assert b'client_verify="failed: expired"' in told


def test_every_attempt_is_told_and_the_last_server_on_top() -> None:
    first = tried("a:1", connect=0.25, reason="connection_refused")
    second = tried("b:2", connect=0.5, first_byte=1.0, total=12.3456, status=201)
    fields = strict(line_of(ask(attempts=(first, second)), status=201))
    assert fields["upstream"] == "b:2"
    assert fields["attempts"] == [
        {"server": "a:1", "status": 0, "reused": False, "connect_ms": 250.0, "reason": "connection_refused"},
        {
            "server": "b:2",
            "status": 201,
            "reused": False,
            "connect_ms": 500.0,
            "first_byte_ms": 1000.0,
            "total_ms": 12345.6,
        },
    ]


def test_a_single_attempt_that_failed_keeps_its_reason() -> None:
    fields = strict(line_of(ask(attempts=(tried(total=5.0, reason="response_timeout"),)), status=504))
    assert fields["attempts"][0]["total_ms"] == 5000.0
    assert fields["attempts"][0]["reason"] == "response_timeout"


def test_the_time_follows_the_clock() -> None:
    lines, clock = Lines(), FakeClock(date=1_700_000_000.999)
    log = AccessLog(lines, "json", clock)
    for step in (0.0, 0.0, 0.001, 86_400.5, -100.0):
        clock.advance(step)
        log.record(ask(), 200, "", 0, 0, 0.0)
    assert [strict(line)["time"][8:] for line in lines] == [
        "14T22:13:20.999Z",
        "14T22:13:20.999Z",
        "14T22:13:21.000Z",
        "15T22:13:21.500Z",
        "15T22:11:41.500Z",
    ]


def test_long_texts_are_cut_with_a_mark() -> None:
    fields = strict(line_of(ask(origin=b"/" * 9000, host="h" * 9000)))
    assert len(fields["path"]) == MAX_PATH
    assert len(fields["host"]) == MAX_TEXT
    assert fields["path"][-1] == fields["host"][-1] == "…"


def test_bytes_that_are_no_text_are_spelled_out() -> None:
    assert strict(line_of(ask(origin=b"/\xff\xc3\xa4")))["path"] == "/\\xff\xe4"


def test_strangers_texts_do_not_pile_up() -> None:
    log = AccessLog(Lines(), "json", FakeClock())
    for number in range(5000):
        log.record(ask(host=f"{number}.example"), 200, "", 0, 0, 0.0)
    assert len(log._texts.known) <= 2048


def test_absent_reasons_survive_many_reasons() -> None:
    lines = Lines()
    log = AccessLog(lines, "json", FakeClock())
    for number in range(3000):
        log.record(ask(), 400, f"malformed_{number}", 0, 0, 0.0)
    log.record(ask(), 200, "", 0, 0, 0.0)
    assert "reason" not in strict(lines[-1])


def test_a_person_gets_one_readable_line() -> None:
    attempt = tried(status=502, reused=True, connect=0.001, first_byte=0.002, total=0.003, reason="dns_error")
    line = line_of(ask(attempts=(attempt,)), fmt="console", status=502, reason="dns_error")
    assert line == (
        b"2023-11-14T22:13:20.000Z 502 GET example.com /a?b=c 12.500ms "
        b"client=203.0.113.7 received=7 sent=512 route=api listener=public reason=dns_error "
        b"upstream=127.0.0.1:8001(502,reused,connect=1.000ms,first_byte=2.000ms,total=3.000ms,dns_error)\n"
    )


def test_a_person_is_not_shown_what_is_absent() -> None:
    line = line_of(ask(route=None, attempts=(tried("a:1"),)), fmt="console")
    assert line.endswith(b"listener=public upstream=a:1(0)\n")


@given(METHODS, BYTES, TEXT, TEXT, TEXT)
def test_whatever_comes_json_is_one_strict_line_of_all_fields(
    method: str, origin: bytes, host: str, client: str, other: str
) -> None:
    request = ask(method.encode(), origin, host, client, other, (tried(other, reason=other), tried(other)))
    fields = strict(line_of(request, reason=other))
    assert list(fields)[:5] == ["time", "client", "method", "host", "path"]
    assert list(fields)[-4:] == ["received", "sent", "duration_ms", "attempts"]
    assert ("reason" in fields) == ("route" in fields) == bool(other)


@given(METHODS, BYTES, TEXT, TEXT, TEXT)
def test_whatever_comes_a_person_gets_one_printable_line(
    method: str, origin: bytes, host: str, client: str, other: str
) -> None:
    request = ask(method.encode(), origin, host, client, other, (tried(other, reason=other),))
    text = line_of(request, fmt="console", reason=other).decode()
    assert text.endswith("\n")
    assert text[:-1].isprintable()


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), st.floats(0, 1e6))
def test_valid_text_and_times_come_back(path: str, duration: float) -> None:
    fields = strict(line_of(ask(origin=path.encode()), duration=duration))
    assert fields["path"] == path
    assert abs(fields["duration_ms"] - duration * 1e3) < 0.002


# TCP --------------------------------------------------------------------------------------------------------


def connected(
    *attempts: Attempt, host: str = "", route: str | None = "db", client: str = "203.0.113.7"
) -> Request:
    request = connection(client, "edge")
    request.host = host
    request.route = route if route is None else SimpleNamespace(name=route)
    request.attempts = list(attempts)
    return request


def connection_line(request: Request, reason: str = "", fmt: Literal["json", "console"] = "json") -> bytes:
    lines = Lines()
    AccessLog(lines, fmt, FakeClock()).connection(request, reason, 7, 512, 0.0125)
    return lines[0]


def test_a_connection_may_have_tls() -> None:
    asked = connected()
    asked.tls = secured(CART).tls
    fields = strict(connection_line(asked))
    assert (fields["listener"], fields["tls"], fields["client_cert"]) == (
        "edge",
        "TLSv1.3",
        'CN=cart \\"one\\"',
    )
    assert b' tls=TLSv1.3 client_cert="' in connection_line(asked, fmt="console")


def test_a_connection_has_the_keys_of_an_exchange_as_far_as_it_has_the_things() -> None:
    failed = tried("10.0.0.1:1", total=0.001, reason="connection_refused")
    line = connection_line(connected(failed, tried(connect=0.0005, total=0.0111), host="a.example"))
    assert line == (
        b'{"time":"2023-11-14T22:13:20.000Z","client":"203.0.113.7","protocol":"tcp","sni":"a.example",'
        b'"route":"db","listener":"edge","upstream":"127.0.0.1:8001","received":7,"sent":512,'
        b'"duration_ms":12.500,"attempts":[{"server":"10.0.0.1:1","total_ms":1.000,'
        b'"reason":"connection_refused"},{"server":"127.0.0.1:8001","connect_ms":0.500,"total_ms":11.100}]}\n'
    )


def test_a_connection_that_led_nowhere() -> None:
    assert connection_line(connected(route=None), "no_route") == (
        b'{"time":"2023-11-14T22:13:20.000Z","client":"203.0.113.7","protocol":"tcp","listener":"edge",'
        b'"reason":"no_route","received":7,"sent":512,"duration_ms":12.500,"attempts":[]}\n'
    )


def test_a_connection_for_people() -> None:
    request = connected(tried(connect=0.0005, total=0.0111, reason="tunnel_idle"), host="a.example")
    assert connection_line(request, "tunnel_idle", "console") == (
        b"2023-11-14T22:13:20.000Z tcp a.example 12.500ms client=203.0.113.7 received=7 sent=512 route=db "
        b"listener=edge reason=tunnel_idle upstream=127.0.0.1:8001(tcp,connect=0.500ms,total=11.100ms,"
        b"tunnel_idle)\n"
    )
    assert connection_line(connected(route=None), "", "console") == (
        b"2023-11-14T22:13:20.000Z tcp - 12.500ms client=203.0.113.7 received=7 sent=512 listener=edge\n"
    )


@given(TEXT, TEXT, TEXT)
def test_whatever_is_in_it_a_connection_is_one_line(host: str, route: str, server: str) -> None:
    request = connected(tried(server), host=host, route=route)
    record = strict(connection_line(request))
    assert record["protocol"] == "tcp"
    assert connection_line(request, fmt="console").count(b"\n") == 1


def test_a_stream_of_http2_says_so() -> None:
    request = ask()
    request.client_channel = SimpleNamespace(framed=True)
    assert strict(line_of(request))["protocol"] == "h2"
    assert b" protocol=h2" in line_of(request, fmt="console")
    request.client_channel = SimpleNamespace(framed=False)
    assert "protocol" not in strict(line_of(request))


def test_a_call_of_grpc_has_its_status() -> None:
    request = ask()
    assert "grpc_status" not in strict(line_of(request))
    request.grpc_status = 0
    assert strict(line_of(request))["grpc_status"] == 0
    request.grpc_status = 14
    assert strict(line_of(request))["grpc_status"] == 14
    assert b" grpc_status=14" in line_of(request, fmt="console")
