"""Slow and vanishing peers: each is noticed in its time, and each side learns the truth."""

from __future__ import annotations

import time

from tests.support.live import Live, until
from tests.support.peers import Accepting, Stream, ask, request

APP = "[upstream app]\nserver.a = {}\nread_timeout = 400ms\n[route app]\nupstream = app\n"
HELLO = "[route hello]\npath = /hello\nrespond = 200 hello\n"
#: Longest time for what should take 400 ms.
SOON = 3.0


def test_head_that_drips_gets_408_in_time(live: Live) -> None:
    """Bytes that keep coming do not prolong the time for the whole head."""
    live.listen("header_timeout = 400ms")
    sidecar = live.start(HELLO)
    with Stream.connect(live.port) as drip:
        before = time.monotonic()
        drip.send(b"GET /hello HTTP/1.1\r\nX-Drip: ")
        drip.sock.settimeout(0.05)
        answer = b""
        while not answer:
            assert time.monotonic() - before < SOON
            try:
                answer = drip.sock.recv(65536)
            except TimeoutError:
                drip.send(b"x")
        assert time.monotonic() - before >= 0.35
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close" in answer.lower()
    (line,) = sidecar.wait_exchanges(1)
    assert (line["status"], line["reason"]) == (408, "request_timeout")


def test_idle_connection_is_closed_silently(live: Live) -> None:
    """Neither one that never asked nor one that was answered gets a word, and no line is logged."""
    live.listen("idle_timeout = 400ms")
    sidecar = live.start(HELLO)
    with Stream.connect(live.port) as silent, Stream.connect(live.port) as kept:
        assert kept.ask("GET", "/hello").status == 200
        before = time.monotonic()
        assert silent.read_all() == kept.read_all() == b""
        assert time.monotonic() - before < SOON
    assert len(sidecar.wait_exchanges(1)) == 1


def test_body_that_stalls_gets_408(live: Live) -> None:
    """The client learns why; the server sees that the request is not whole."""
    live.listen("body_timeout = 400ms")
    with Accepting() as upstream:
        sidecar = live.start(APP.format(upstream.address))
        with Stream.connect(live.port) as stalled:
            stalled.send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhello")
            with upstream.accept() as server:
                assert server.read_head().fields["content-length"] == "10"
                assert server.read_all() == b"hello"
            answer = stalled.read_message()
            assert answer.status == 408
            assert stalled.read_all() == b""
        (line,) = sidecar.wait_exchanges(1)
        assert (line["status"], line["reason"]) == (408, "request_body_timeout")


def test_server_that_does_not_answer_gets_504(live: Live) -> None:
    """And its connection is closed, not used again."""
    with Accepting() as upstream:
        sidecar = live.start(APP.format(upstream.address))
        with Stream.connect(live.port) as client:
            client.send(request("GET", "/"))
            with upstream.accept() as server:
                server.read_message()
                answer = client.read_message()
                assert answer.status == 504
                assert "connection_read_timeout" in answer.fields["proxy-status"]
                assert server.is_ended()
        (line,) = sidecar.wait_exchanges(1)
        assert line["reason"] == line["attempts"][0]["reason"] == "upstream_read_timeout"


def test_server_that_stalls_in_its_body_never_looks_complete(live: Live) -> None:
    """The head is sent, so only the end of the connection can tell; the last chunk is missing."""
    with Accepting() as upstream:
        sidecar = live.start(APP.format(upstream.address))
        with Stream.connect(live.port) as client:
            client.send(request("GET", "/"))
            with upstream.accept() as server:
                server.read_message()
                server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
                assert client.read_head().status == 200
                assert client.read_all() == b"5\r\nhello\r\n"
        assert sidecar.wait_exchanges(1)[0]["reason"] == "upstream_read_timeout"


def test_client_that_leaves_ends_the_exchange_at_the_server(live: Live) -> None:
    """Before the response begins the server learns at once that nobody waits for it."""
    with Accepting() as upstream:
        sidecar = live.start(APP.replace("400ms", "30s").format(upstream.address))
        with Stream.connect(live.port) as client:
            client.send(request("GET", "/"))
            with upstream.accept() as server:
                server.read_message()
                client.close()
                assert server.is_ended()
        (line,) = sidecar.wait_exchanges(1)
        assert (line["status"], line["reason"]) == (499, "client_gone")


def test_client_that_leaves_in_a_response_ends_it_at_the_server(live: Live) -> None:
    """In the middle of a body the server's next bytes find no one."""
    with Accepting() as upstream:
        sidecar = live.start(APP.replace("400ms", "30s").format(upstream.address))
        with Stream.connect(live.port) as client:
            client.send(request("GET", "/"))
            with upstream.accept() as server:
                server.read_message()
                server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
                assert client.read_head().status == 200
                client.reset()

                def is_cut() -> bool:
                    try:
                        server.send(b"x" * 10_000)
                    except OSError:
                        return True
                    return False

                until(is_cut, "the server's connection is cut")
        assert sidecar.wait_exchanges(1)[0]["reason"] == "client_gone"


def test_server_that_dies_in_its_body_is_never_a_clean_end(live: Live) -> None:
    """Whether it resets or closes, by length or in chunks: the client can tell that the body is short."""
    with Accepting() as upstream:
        sidecar = live.start(APP.format(upstream.address))
        heads = (b"Content-Length: 10\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        for head in heads:
            for ends in ("reset", "close"):
                with Stream.connect(live.port) as client:
                    client.send(request("GET", "/"))
                    with upstream.accept() as server:
                        server.read_message()
                        server.send(b"HTTP/1.1 200 OK\r\n" + head)
                        assert client.read_head().status == 200
                        getattr(server, ends)()
                    rest = client.read_all()
                    assert rest in (b"", b"hello", b"5\r\nhello\r\n", b"5\r\nhello")
        lines = sidecar.wait_exchanges(4)
        assert {line["reason"] for line in lines} == {"response_incomplete"}


def test_server_that_is_not_there_gets_502_with_the_reason(live: Live) -> None:
    """A refused connection is the server's fault, and is told as such."""
    with Accepting() as upstream:
        address = upstream.address
    sidecar = live.start(APP.format(address))
    answer = ask(live.port, "/")
    assert answer.status == 502
    assert "connection_refused" in answer.fields["proxy-status"]
    (line,) = sidecar.wait_exchanges(1)
    assert line["reason"] == "connection_refused"
