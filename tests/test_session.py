"""A client connection: requests in, responses out, and every way it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from sidecar.errors import Failure, Malformed
from sidecar.message import Handler, Request, Response
from sidecar.wire.head import ResponseHead
from tests.support.proxies import Proxy
from tests.support.streams import settle, wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")

SOON = 0.01
GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"


def answer(status: int = 200, body: bytes = b"hi", *fields: tuple[bytes, bytes]) -> Handler:
    def handle(request: Request) -> Response:
        head = ResponseHead.make(
            status, [(b"Date", b"now"), *fields], length=len(body), request_method=request.head.method
        )
        return Response(head, None if request.head.method == b"HEAD" else body)

    return handle


def refuse(error: Exception) -> Handler:
    def handle(request: Request) -> Response:
        raise error

    return handle


HI = b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 2\r\n\r\nhi"


Made = Callable[..., Proxy]


@pytest.fixture
def proxy() -> Iterator[Made]:
    proxies: list[Proxy] = []

    def make(handler: Handler, **settings: Any) -> Proxy:
        proxies.append(Proxy(handler, **settings))
        return proxies[-1]

    yield make
    for one in proxies:
        one.close()


def ask(proxy: Proxy, data: bytes) -> bytes:
    """Everything the client of a connection that ends gets."""
    client = proxy.connect()
    client.send(data)
    client.finish()
    return client.read_all()


# -- answers


def test_a_handlers_answer_is_sent_and_the_connection_stays(proxy: Made) -> None:
    it = proxy(answer())
    client = it.connect()
    for _ in range(3):
        client.send(GET)
        assert client.read(len(HI)) == HI
    assert [record["status"] for record in it.records] == [200, 200, 200]


def test_the_request_says_who_asks_and_how(proxy: Made) -> None:
    seen: list[Request] = []

    def handle(request: Request) -> Response:
        seen.append(request)
        return answer()(request)

    ask(proxy(handle), b"GET /a/../b%20c?d HTTP/1.1\r\nHost: X.example:81\r\n\r\n")
    (request,) = seen
    assert (request.client, request.scheme, request.listener) == ("192.0.2.7", "http", "public")
    assert (request.host, request.path) == ("x.example", "/b c")
    assert request.body is None
    assert b"X-Forwarded-Port: 8080\r\n" in request.extra


def test_an_answer_without_a_date_gets_one(proxy: Made) -> None:
    def handle(request: Request) -> Response:
        return Response(ResponseHead.make(204, []))

    assert b"\r\nDate: " in ask(proxy(handle), GET)


def test_what_a_route_adds_and_drops_is_added_and_dropped(proxy: Made) -> None:
    def handle(request: Request) -> Response:
        response = answer(200, b"", (b"Server", b"app"))(request)
        response.extra = b"X-Frame-Options: DENY\r\n"
        return response

    assert b"X-Frame-Options: DENY\r\n" in ask(proxy(handle), GET)


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_an_answer_to_head_has_the_length_and_no_body(proxy: Made, method: bytes) -> None:
    data = ask(proxy(answer()), GET.replace(b"GET", method))
    assert b"Content-Length: 2\r\n" in data
    assert data.endswith(b"hi") == (method == b"GET")


# -- failures


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (Failure("no_route"), 404, "no_route"),
        (Failure("connection_refused", "127.0.0.1:9: refused"), 502, "connection_refused"),
        (Malformed("bad_path"), 400, "malformed_request"),
        (ValueError("secret"), 500, "internal_error"),
    ],
)
def test_a_failure_is_a_response_without_its_details(
    proxy: Made, error: Exception, status: int, reason: str
) -> None:
    it = proxy(refuse(error))
    client = it.connect()
    client.send(GET)
    head = client.read_until(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"127.0.0.1" not in head
    assert b"secret" not in head
    it.wait_records(1, client)
    assert it.records[0]["reason"] == reason
    assert not client.greenlet.dead
    assert [name for name, _ in it.events] == (["exchange_failed"] if status == 500 else [])


def test_a_client_that_is_gone_is_logged_and_not_answered(proxy: Made) -> None:
    it = proxy(refuse(Failure("client_gone")))
    assert ask(it, GET) == b""
    assert it.records[0]["status"] == 499


class Breaks:
    """A body that cannot be sent."""

    is_whole_exchange = True

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.closed = 0

    def send_to(self, channel: Any, framing: int, write_timeout: float) -> None:
        channel.flush(write_timeout)
        raise self.error

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [(Failure("response_incomplete"), "response_incomplete"), (ValueError("bug"), "internal_error")],
)
def test_a_body_that_breaks_off_resets_the_client_and_is_closed_once(
    proxy: Made, error: Exception, reason: str
) -> None:
    body = Breaks(error)

    def handle(request: Request) -> Response:
        return Response(ResponseHead.make(200, [], length=5), body)

    it = proxy(handle)
    client = it.connect()
    client.send(GET)
    client.read_all()
    client.end()
    assert client.was_reset
    assert body.closed == 1
    assert (it.records[0]["status"], it.records[0]["reason"]) == (200, reason)


# -- requests that are none


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        (b"nonsense\r\n\r\n", 400, "bad_request_line"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "missing_host"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 40_000, 431, "header_section_too_large"),
    ],
)
def test_what_is_no_request_is_refused_and_the_connection_ends(
    proxy: Made, data: bytes, status: int, reason: str
) -> None:
    it = proxy(answer())
    got = ask(it, data)
    assert got.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nConnection: close\r\n" in got
    assert (it.records[0]["status"], it.records[0]["reason"]) == (status, reason)


def test_a_refused_client_can_read_why_although_it_goes_on_sending(proxy: Made) -> None:
    client = proxy(answer()).connect()
    client.send(b"nonsense\r\n\r\n" + b"x" * 100_000)
    assert client.read(12) == b"HTTP/1.1 400"
    client.finish()
    client.read_all()
    assert not client.was_reset


def test_a_head_that_does_not_come_to_its_end_is_a_408(proxy: Made) -> None:
    it = proxy(answer(), header_timeout=SOON)
    client = it.connect()
    client.send(b"GET / HT")
    assert client.read(12) == b"HTTP/1.1 408"
    assert it.records[0]["reason"] == "request_timeout"
    client.close()


@pytest.mark.parametrize("data", [b"", b"GET / HT"])
def test_a_client_that_leaves_without_a_request_is_no_exchange(proxy: Made, data: bytes) -> None:
    it = proxy(answer())
    assert ask(it, data) == b""
    assert it.records == []


def test_a_connection_without_a_request_is_kept_only_so_long(proxy: Made) -> None:
    client = proxy(answer(), idle_timeout=SOON).connect()
    assert client.read_all() == b""
    assert not client.was_reset


# -- bodies nobody wants


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", True),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", True),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\nhello", False),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", False),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", False),
    ],
)
def test_a_body_nobody_wants_is_never_taken_for_a_request(proxy: Made, data: bytes, kept: bool) -> None:
    it = proxy(answer())
    client = it.connect()
    client.send(data)
    head = client.read_until(b"\r\n\r\n")
    assert (b"Connection: close" in head) is not kept
    client.read(2)
    client.send(GET)
    if kept:
        assert client.read(len(HI)) == HI
    else:
        client.finish()
        assert client.read_all() == b""
        assert not client.was_reset
        assert len(it.records) == 1


def test_a_client_that_is_let_go_can_read_its_answer_although_it_sent_more(proxy: Made) -> None:
    it = proxy(answer())
    it.serving.ended = True
    client = it.connect()
    client.send(GET * 3)
    assert b"\r\nConnection: close\r\n" in client.read_until(b"\r\n\r\n")
    client.send(GET * 100)
    client.finish()
    assert client.read_all() == b"hi"
    assert not client.was_reset
    assert len(it.records) == 1


# -- retiring


def test_an_idle_connection_ends_at_once_when_it_retires(proxy: Made) -> None:
    client = proxy(answer()).connect()
    client.send(GET)
    assert client.read(len(HI)) == HI
    client.session.retire()
    client.end()
    assert client.read_all() == b""


def test_a_request_that_nobody_has_read_yet_is_served_when_its_connection_retires(proxy: Made) -> None:
    it = proxy(answer())
    client = it.connect()
    client.send(GET)
    assert client.read(len(HI)) == HI
    settle()
    it.serving.ended = True
    client.send(GET)
    client.session.retire()
    assert b"\r\nConnection: close\r\n" in client.read_until(b"hi")
    client.finish()
    client.end()


def test_who_was_promised_more_before_the_end_may_ask_once_more(proxy: Made) -> None:
    """A drain begins between the head of a response and the end of its body."""
    it = proxy(answer())
    client = it.connect()
    client.send(GET)
    assert client.read(len(HI)) == HI
    it.serving.ended = True
    settle()
    client.send(GET)
    assert b"\r\nConnection: close\r\n" in client.read_until(b"hi")
    client.finish()
    assert client.read_all() == b""
    client.end()


def test_a_connection_at_work_ends_after_its_exchange(proxy: Made) -> None:
    go = gevent.event.Event()

    def handle(request: Request) -> Response:
        go.wait()
        return answer()(request)

    it = proxy(handle)
    client = it.connect()
    client.send(GET)
    settle()
    client.session.retire()
    it.serving.ended = True
    go.set()
    data = client.read_until(b"hi")
    assert b"\r\nConnection: close\r\n" in data
    client.finish()
    client.end()


def test_a_request_on_its_way_in_is_still_served(proxy: Made) -> None:
    client = proxy(answer()).connect()
    client.send(GET[:10])
    settle()
    client.session.retire()
    client.send(GET[10:])
    assert client.read(len(HI)) == HI


def test_a_new_generation_serves_the_next_request(proxy: Made) -> None:
    it = proxy(answer())
    client = it.connect()
    client.send(GET)
    client.read(len(HI))
    it.serving = it.make_serving(answer(404, b"no"))
    client.send(GET)
    assert client.read(12) == b"HTTP/1.1 404"


# -- who the client is


def test_a_trusted_proxy_is_believed(proxy: Made) -> None:
    it = proxy(answer(), trusted_proxies=["192.0.2.0/24"])
    data = GET.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n")
    ask(it, data)
    assert it.records[0]["client"] == "203.0.113.9"


V1 = b"PROXY TCP4 203.0.113.9 198.51.100.1 40000 443\r\n"


@pytest.mark.parametrize("mode", ["accept", "require"])
@pytest.mark.parametrize("piece", [1, 1000])
def test_a_balancer_tells_who_the_client_is(proxy: Made, mode: str, piece: int) -> None:
    it = proxy(answer(), proxy_protocol=mode)
    client = it.connect()
    client.send_pieces(V1 + GET, piece)
    assert client.read(len(HI)) == HI
    assert it.records[0]["client"] == "203.0.113.9"


def test_without_a_header_an_accepting_listener_serves_and_a_requiring_one_does_not(proxy: Made) -> None:
    assert ask(proxy(answer(), proxy_protocol="accept"), GET) == HI
    it = proxy(answer(), proxy_protocol="require")
    assert ask(it, GET) == b""
    assert it.events[0][0] == "proxy_header_refused"
    assert it.records == []


def test_a_header_that_does_not_come_in_time_or_at_all_ends_the_connection(proxy: Made) -> None:
    it = proxy(answer(), proxy_protocol="require", header_timeout=SOON)
    client = it.connect()
    client.send(V1[:10])
    client.read_all()
    client.end()
    assert ask(proxy(answer(), proxy_protocol="require"), V1[:10]) == b""


def test_a_header_nobody_asked_for_is_no_request(proxy: Made) -> None:
    assert ask(proxy(answer()), V1 + GET).startswith(b"HTTP/1.1 400 ")


# -- the end


def test_a_client_that_does_not_take_its_answer_is_cut_off(proxy: Made) -> None:
    it = proxy(answer(200, b"x" * 5_000_000), write_timeout=SOON)
    client = it.connect(send_buffer=4096, receive_buffer=4096)
    client.send(GET)
    client.end()
    assert it.records[0]["reason"] == "client_write_timeout"
    assert it.records[0]["sent"] < 5_000_000


def test_a_session_that_is_killed_while_it_waits_leaves_nothing(proxy: Made) -> None:
    it = proxy(answer())
    client = it.connect()
    settle()
    client.greenlet.kill()
    assert client.read_all() == b""
    wait_until(lambda: client.channel.fd == -1)
    assert it.records == []
