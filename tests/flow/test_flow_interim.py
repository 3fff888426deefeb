"""Interim responses, Expect, answers before the request is over, and upgrades to a tunnel."""

from __future__ import annotations

import pytest
from gevent.event import Event

from tests.support.proxies import Path, exchange
from tests.support.streams import TIMEOUT, ServerSide, settle, wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nDate: x\r\n\r\nhi"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


# -- 1xx


def test_interim_responses_are_passed_on_before_the_final_one() -> None:
    got = exchange(GET, [[b"HTTP/1.1 102 Processing\r\n\r\n" + HINTS + OK]])
    assert got.client == (
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" + OK
    )
    assert got.records[0]["status"] == 200


def test_an_interim_response_does_not_wait_for_the_final_one() -> None:
    def script(side: ServerSide) -> None:
        side.read_request()
        side.send(HINTS)
        side.read(2)
        side.send(OK)

    with Path(script) as path:
        client = path.connect()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 103 ")
        path.server.connections[0].sock.shutdown(0)


def test_a_client_of_http_1_0_gets_no_interim_response() -> None:
    got = exchange(b"GET / HTTP/1.0\r\n\r\n", [[HINTS + CONTINUE + OK]])
    assert got.client.count(b"HTTP/1.1 ") == 1
    assert got.status == 200


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_server_that_never_comes_to_its_final_response_is_cut_off(version: bytes) -> None:
    got = exchange(b"GET / HTTP/%b\r\nHost: a\r\n\r\n" % version, [[HINTS * 10_000]])
    assert got.records[0]["status"] == 502
    assert got.records[0]["reason"] == "malformed_response"
    assert b"HTTP/1.1 502 " in got.client


# -- Expect: 100-continue

EXPECT = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"


def test_the_server_decides_whether_the_client_shall_continue() -> None:
    def script(side: ServerSide) -> None:
        assert b"\r\nExpect: 100-continue\r\n" in side.read_until(b"\r\n\r\n")
        side.send(CONTINUE)
        side.read(5)
        side.send(OK)

    with Path(script) as path:
        client = path.connect()
        client.send(EXPECT)
        assert client.read_until(b"\r\n\r\n") == CONTINUE
        client.send(b"hello")
        assert client.read(len(OK)) == OK
        assert path.received[0].endswith(b"hello")


def test_a_server_that_refuses_is_heard_without_the_body() -> None:
    refusal = b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\nDate: x\r\n\r\n"

    def script(side: ServerSide) -> None:
        side.read_until(b"\r\n\r\n")
        side.send(refusal)

    with Path(script) as path:
        client = path.connect()
        client.send(EXPECT)
        client.sock.settimeout(TIMEOUT)
        assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 417 ")
        # The client may send the body all the same, so nothing more is read from this connection.
        client.finish()
        assert client.read_all() == b""


def test_a_final_response_right_behind_100_is_heard_although_the_body_does_not_come() -> None:
    def script(side: ServerSide) -> None:
        side.read_until(b"\r\n\r\n")
        side.send(CONTINUE + b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    with Path(script) as path:
        client = path.connect()
        client.send(EXPECT)
        assert client.read_until(b"\r\n\r\n") == CONTINUE
        assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 403 ")
        client.close()


def test_a_server_that_never_asks_for_the_body_is_the_one_that_is_late() -> None:
    def silent(side: ServerSide) -> None:
        side.read_until(b"\r\n\r\n")

    with Path(silent, body_timeout=0.01) as path:
        client = path.connect()
        client.send(EXPECT)
        assert client.read(12) == b"HTTP/1.1 504"
        assert path.records[0]["reason"] == "upstream_read_timeout"
        client.close()


# -- an answer before the request is over

UPLOAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"


def test_the_rest_of_the_upload_goes_on_while_an_early_answer_streams() -> None:
    def script(side: ServerSide) -> None:
        side.read_until(b"\r\n\r\n")
        side.read(1000)
        side.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nearly")
        side.read(999_000)
        side.send(b" late")

    with Path(script) as path:
        client = path.connect()
        client.send(UPLOAD + b"x" * 1000)
        head = client.read_until(b"\r\n\r\n")
        assert b"\r\nConnection: close\r\n" in head
        assert client.read(5) == b"early"
        client.send(b"x" * 999_000)
        assert client.read(5) == b" late"
        client.finish()
        assert client.read_all() == b""
        assert not client.was_reset
        client.end()
        assert path.records[0]["status"] == 200
        assert path.pool.pool.items == [] or path.server.open_connections == 1


@pytest.mark.parametrize("answer", [b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n", OK])
def test_an_early_answer_ends_both_connections_when_the_upload_is_not_over(answer: bytes) -> None:
    def script(side: ServerSide) -> None:
        side.read_until(b"\r\n\r\n")
        side.send(answer)

    with Path(script, [OK]) as path:
        client = path.connect()
        client.send(UPLOAD + b"x" * 1000)
        assert b"Connection: close" in client.read_until(b"\r\n\r\n")
        client.send(b"x" * 1000 + GET)
        client.finish()
        client.read_all()
        assert not client.was_reset
        client.end()
        assert len(path.records) == 1
        assert path.pool.pool.items == []
        wait_until(lambda: path.server.open_connections == 0)


def test_an_answer_sent_before_the_server_stopped_listening_reaches_the_client() -> None:
    def script(side: ServerSide) -> None:
        side.read_until(b"\r\n\r\n")
        side.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
        settle()
        side.close()

    with Path(script) as path:
        client = path.connect()
        client.send(UPLOAD + b"x" * 200_000)
        assert client.read(12) == b"HTTP/1.1 413"
        client.close()


def test_an_answer_is_heard_although_sending_fails_first() -> None:
    with Path(lambda side: Event().wait()) as path:
        client = path.connect()
        client.send(UPLOAD + b"x" * 1000)
        wait_until(lambda: path.server.connections)
        settle()
        # In one turn, and in this order: more of the upload, the answer, and the reset.
        client.send(b"x" * 1000)
        server = path.server.connections[0]
        server.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
        server.close()
        assert client.read(12) == b"HTTP/1.1 413"
        client.close()


# -- upgrades

UPGRADE = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


def test_an_upgrade_becomes_a_tunnel_and_early_bytes_of_both_sides_are_kept() -> None:
    def script(side: ServerSide) -> None:
        head = side.read_until(b"\r\n\r\n")
        assert b"\r\nConnection: upgrade\r\nUpgrade: websocket\r\n" in head
        side.send(SWITCHED + b"welcome")
        assert side.read(5) == b"early"
        side.send(b"bye")
        assert side.read_all() == b"more"
        side.send(b"last")
        side.finish()

    with Path(script) as path:
        client = path.connect()
        client.send(UPGRADE + b"early")
        head = client.read_until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"\r\nUpgrade: websocket\r\n" in head
        assert b"\r\nConnection: upgrade\r\n" in head
        assert client.read(10) == b"welcomebye"
        client.send(b"more")
        client.finish()
        assert client.read_all() == b"last"
        assert not client.was_reset
        client.end()
        assert path.records[0]["status"] == 101
        assert path.pool.pool.items == []


def test_a_tunnel_whose_server_ends_first_lets_the_client_finish() -> None:
    def script(side: ServerSide) -> None:
        side.read_until(b"\r\n\r\n")
        side.send(SWITCHED)
        side.finish()
        side.read_all()

    with Path(script) as path:
        client = path.connect()
        client.send(UPGRADE)
        client.read_until(b"\r\n\r\n")
        assert client.read_all() == b""
        client.send(b"still here")
        client.finish()
        client.end()
        wait_until(lambda: path.server.open_connections == 0)
        assert path.received[0].endswith(b"still here")


def test_a_tunnel_that_is_silent_too_long_ends() -> None:
    def script(side: ServerSide) -> None:
        side.read_until(b"\r\n\r\n")
        side.send(SWITCHED)

    with Path(script, timeouts={"tunnel": 0.01}) as path:
        client = path.connect()
        client.send(UPGRADE)
        client.read_until(b"\r\n\r\n")
        client.read_all()
        client.end()
        assert path.records[0]["attempts"][0]["reason"] == "tunnel_idle"


def test_a_tunnel_that_is_reset_ends_both_sides() -> None:
    def script(side: ServerSide) -> None:
        side.read_until(b"\r\n\r\n")
        side.send(SWITCHED)

    with Path(script) as path:
        client = path.connect()
        client.send(UPGRADE)
        client.read_until(b"\r\n\r\n")
        client.reset()
        client.end()
        wait_until(lambda: path.server.open_connections == 0)
        assert path.records[0]["attempts"][0]["reason"] == "tunnel_reset"


def test_a_server_that_does_not_switch_answers_as_always() -> None:
    got = exchange(UPGRADE + GET, [[OK, OK]], requests=2)
    assert got.client == OK * 2


@pytest.mark.parametrize(
    ("request_bytes", "forward"),
    [
        (GET, {}),
        (UPGRADE, {"upgrade": False}),
        (UPGRADE.replace(b"websocket", b"h2c"), {}),
        (UPGRADE.replace(b"HTTP/1.1", b"HTTP/1.0"), {}),
        (UPGRADE.replace(b"Connection: Upgrade\r\n", b""), {}),
    ],
)
def test_a_101_that_was_not_asked_for_is_a_bad_gateway(
    request_bytes: bytes, forward: dict[str, bool]
) -> None:
    got = exchange(request_bytes, [[SWITCHED + b"\x81\x05hello"]], forward=forward)
    assert got.status == 502
    assert got.records[0]["reason"] == "upgrade_failed"
    assert b"upgrade" not in got.upstream[0].lower()


def test_a_101_in_the_middle_of_the_request_body_is_a_bad_gateway() -> None:
    def script(side: ServerSide) -> None:
        side.read_until(b"\r\n\r\n")
        side.send(SWITCHED)

    request = UPGRADE.replace(b"GET", b"POST").replace(b"Host: a", b"Host: a\r\nContent-Length: 100")
    with Path(script) as path:
        client = path.connect()
        client.send(request + b"x" * 50)
        assert client.read(12) == b"HTTP/1.1 502"
        assert path.records[0]["reason"] == "upgrade_failed"
        client.close()


def test_an_upgrade_with_a_body_switches_when_the_body_is_over() -> None:
    def script(side: ServerSide) -> None:
        side.read_until(b"\r\n\r\n")
        side.read(5)
        side.send(SWITCHED)
        assert side.read(3) == b"raw"
        side.send(b"done")
        side.finish()

    request = UPGRADE.replace(b"GET", b"POST").replace(b"Host: a", b"Host: a\r\nContent-Length: 5")
    with Path(script) as path:
        client = path.connect()
        client.send(request + b"helloraw")
        client.read_until(b"\r\n\r\n")
        assert client.read(4) == b"done"
        client.close()
        client.end()
