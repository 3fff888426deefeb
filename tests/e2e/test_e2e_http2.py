"""HTTP/2 towards clients: real clients by prior knowledge, WebSocket, attacks, reloads and the end."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import struct
import subprocess
from collections.abc import Iterator

import httpx
import pytest
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri

from sidecar.net.h2 import PREFACE
from tests.support import http2, websocket
from tests.support.http2 import DATA, END_STREAM, GET, GOAWAY, HEADERS, PING, POST, Client, frame, number
from tests.support.live import Live, until
from tests.support.peers import Accepting, Answering, Message, Stream, response
from tests.support.programs import program

APP = "[upstream app]\nserver.a = {}\n[route app]\nupstream = app\n"


@contextlib.contextmanager
def talk(port: int, *settings: tuple[int, int]) -> Iterator[Client]:
    """A client of raw frames."""
    with Stream.connect(port) as stream:
        client = Client(stream)
        client.greet(*settings)
        yield client


def get(path: str) -> list[tuple[str, str]]:
    return [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "test")]


def run(*words: str, timeout: float = 60) -> str:
    """What a program says; it must end well."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# -- real clients


def test_curl_and_nghttp_are_served(live: Live) -> None:
    with Answering(lambda message: response(message.target.encode(), X_A="b")) as app:
        sidecar = live.start(APP.format(app.address))
        url = f"http://127.0.0.1:{live.port}"
        curl = [program("curl"), "-sS", "--http2-prior-knowledge", "-i"]
        text = run(*curl, f"{url}/a?b") + run(*curl, f"{url}/c")
        assert re.findall(r"HTTP/2 200", text) == ["HTTP/2 200"] * 2
        assert "x-a: b" in text and "/a?b" in text and text.endswith("/c")
        assert run(program("nghttp", "nghttp2-client"), "-n", f"{url}/one", f"{url}/two") == ""
        lines = sidecar.wait_exchanges(4)
        assert [line["protocol"] for line in lines] == ["h2"] * 4
        assert {line["path"] for line in lines} == {"/a?b", "/c", "/one", "/two"}


def test_curl_uploads_what_arrives(live: Live, tmp_path: os.PathLike[str]) -> None:
    file = os.path.join(tmp_path, "big")
    data = os.urandom(5_000_000)
    with open(file, "wb") as out:
        out.write(data)
    with Answering() as app:
        live.start(APP.format(app.address))
        url = f"http://127.0.0.1:{live.port}/"
        text = run(program("curl"), "-sS", "--http2-prior-knowledge", "-T", file, url)
        assert hashlib.sha256(data).hexdigest() in text


def test_httpx_is_served(live: Live) -> None:
    with Answering(lambda message: response(message.body or b"hi")) as app:
        live.start(APP.format(app.address))
        with httpx.Client(http1=False, http2=True, base_url=f"http://127.0.0.1:{live.port}") as client:
            assert client.get("/").http_version == "HTTP/2"
            assert client.post("/", content=b"a" * 300_000).content == b"a" * 300_000
            assert client.head("/").status_code == 200


def test_ten_thousand_streams_over_a_hundred_connections_finish(live: Live) -> None:
    # They all wait for a few connections: a test server of threads is not what is tested.
    few = "max_connections=64\nqueue = 10000\nqueue_timeout = 60s"
    with Answering(lambda message: response(b"hi")) as app:
        live.start(APP.format(f"{app.address} {few}"))
        load = program("h2load", "nghttp2-client")
        text = run(
            load, "-n", "10000", "-c", "100", "-m", "100", f"http://127.0.0.1:{live.port}/", timeout=100
        )
    assert "10000 succeeded, 0 failed, 0 errored, 0 timeout" in text
    assert "10000 2xx" in text


# -- messages


def test_answers_without_a_body_have_none(live: Live) -> None:
    answers = {
        "/204": b"HTTP/1.1 204 No Content\r\n\r\n",
        "/304": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nETag: x\r\n\r\n",
        "/head": b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n",
        "/empty": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    }
    with Answering(lambda message: answers[message.target]) as app:
        live.start(APP.format(app.address))
        with talk(live.port) as client:
            for stream, path in ((1, "/204"), (3, "/304"), (5, "/head"), (7, "/empty")):
                fields = get(path)
                fields[0] = (":method", "HEAD" if path == "/head" else "GET")
                client.ask(stream, fields)
                answer = client.answer(stream)
                assert (answer.body, answer.code) == (b"", -1)
            assert [one.flags & END_STREAM for one in client.seen if one.kind == HEADERS] == [1] * 4


def test_interim_answers_pass_before_the_final_one(live: Live) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n"
    with Answering(lambda message: hints + response(b"hi")) as app:
        live.start(APP.format(app.address))
        with talk(live.port) as client:
            client.ask(1)
            answer = client.answer(1)
    assert [head[0][1] for head in answer.heads] == ["103", "200"]
    assert ("link", "</a>; rel=preload") in answer.heads[0]


def test_a_client_that_waits_for_100_gets_it_and_sends(live: Live) -> None:
    with Accepting() as app:
        live.start(APP.format(app.address))
        with talk(live.port) as client:
            fields = [*POST, ("content-length", "4"), ("expect", "100-continue")]
            client.send(client.headers(1, fields, False))
            with app.accept() as server:
                head = server.read_head()
                assert head.fields["expect"] == "100-continue"
                server.send(b"HTTP/1.1 100 Continue\r\n\r\n")
                client.until(HEADERS, 1)
                client.decoder.decode(client.seen[-1].payload)
                client.send(frame(DATA, END_STREAM, 1, b"body"))
                assert server.read(4) == b"body"
                server.send(response(b"done"))
                assert client.answer(1).body == b"done"


def test_trailers_pass_both_ways(live: Live) -> None:
    with Accepting() as app:
        live.start(APP.format(app.address))
        with talk(live.port) as client:
            client.send(client.headers(1, [*POST, ("trailer", "x-sum")], False), frame(DATA, 0, 1, b"hello"))
            with app.accept() as server:
                assert server.read_head().fields["transfer-encoding"] == "chunked"
                assert server.read_chunk() == b"hello"
                client.send(client.headers(1, [("x-sum", "5")]))
                assert server.read(len(b"0\r\nx-sum: 5\r\n\r\n")) == b"0\r\nx-sum: 5\r\n\r\n"
                server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                server.send(b"2\r\nhi\r\n0\r\nX-Back: 6\r\n\r\n")
                answer = client.answer(1)
    assert (answer.body, answer.trailers, answer.code) == (b"hi", [("x-back", "6")], -1)


def test_an_answer_that_breaks_off_is_reset(live: Live) -> None:
    with Accepting() as app:
        live.start(APP.format(app.address))
        with talk(live.port) as client:
            client.ask(1)
            with app.accept() as server:
                server.read_head()
                server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
            assert client.answer(1).code == http2.INTERNAL_ERROR
            assert client.is_alive()


def test_a_request_that_is_given_up_is_given_up_at_the_server(live: Live) -> None:
    with Accepting() as app:
        sidecar = live.start(APP.format(app.address))
        with talk(live.port) as client:
            client.ask(1)
            with app.accept() as server:
                server.read_head()
                client.send(number(http2.RST_STREAM, 1, http2.CANCEL))
                assert server.is_ended()
            assert client.is_alive()
        assert sidecar.wait_exchanges(1)[0]["reason"] == "client_gone"


def test_an_early_answer_ends_the_upload(live: Live) -> None:
    with Accepting() as app:
        live.start(APP.format(app.address))
        with talk(live.port) as client:
            client.send(client.headers(1, [*POST, ("content-length", "1000000")], False))
            client.send(frame(DATA, 0, 1, bytes(1000)))
            with app.accept() as server:
                server.read_head()
                server.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
                answer = client.answer(1)
                assert (answer.status, answer.body) == (413, b"no")
                assert client.reset_with(1) in (http2.NO_ERROR, http2.CANCEL)
            client.send(frame(DATA, 0, 1, bytes(1000)))
            assert client.is_alive()


def test_a_slow_stream_stalls_no_other(live: Live) -> None:
    """A download that nobody reads and an upload that the server does not take; others pass them."""

    def answer(message: Message) -> bytes:
        return response(bytes(3_000_000) if message.target == "/large" else b"hi")

    with Accepting() as slow, Answering(answer) as app:
        other = "[upstream slow]\nserver.a = {}\n[route slow]\npath_prefix = /slow\nupstream = slow\n"
        live.start(APP.format(app.address) + other.format(slow.address))
        with talk(live.port) as client:
            client.send(number(http2.WINDOW_UPDATE, 0, 1 << 30))
            client.ask(1, get("/large"))
            fields = [(":method", "POST"), *get("/slow")[1:]]
            client.send(client.headers(3, fields, False))
            client.send(*[frame(DATA, 0, 3, bytes(16000)) for _ in range(4)])
            for stream in range(5, 105, 2):
                client.ask(stream, get("/quick"))
                assert client.answer(stream).body == b"hi"


def test_bodies_pass_tiny_windows(live: Live) -> None:
    with Answering(lambda message: response(message.body)) as app:
        live.start(APP.format(app.address))
        with talk(live.port, (http2.WINDOW, 50)) as client:
            body = os.urandom(20_000)
            client.send(client.headers(1, [*POST, ("content-length", "20000")], False))
            client.send(*[frame(DATA, 0, 1, body[at : at + 7]) for at in range(0, 20_000, 7)])
            client.send(frame(DATA, END_STREAM, 1))
            assert client.answer(1, opens=True).body == body


def test_priorities_are_never_an_error(live: Live) -> None:
    with Answering(lambda message: response(b"hi")) as app:
        live.start(APP.format(app.address))
        with talk(live.port) as client:
            client.send(frame(http2.PRIORITY, 0, 1, struct.pack("!IB", 1, 3)))
            client.send(frame(0x10, 0, 0, struct.pack("!I", 1) + b"u=9, bad"))
            client.ask(1, [*GET, ("priority", "u=1, i")])
            assert client.answer(1).status == 200


def test_a_head_that_is_too_large_gets_431_and_the_connection_goes_on(live: Live) -> None:
    with Answering(lambda message: response(b"hi")) as app:
        sidecar = live.start(APP.format(app.address))
        with talk(live.port) as client:
            client.ask(1, [*GET, *[(f"x{n}", "a") for n in range(200)]])
            assert client.answer(1).status == 431
            client.ask(3)
            assert client.answer(3).status == 200
        assert sidecar.wait_exchanges(2)[0]["reason"] == "too_many_fields"


# -- WebSocket (RFC 8441)


def test_a_websocket_inside_of_http2(live: Live) -> None:
    """The stream carries what the connection would; others go on beside it."""
    with websocket.echo() as address:
        sidecar = live.start(APP.format(address))
        with talk(live.port) as client:
            assert client.until(http2.SETTINGS).payload.count(b"\0\x08\0\0\0\x01") == 1
            fields = [
                (":method", "CONNECT"),
                (":protocol", "websocket"),
                (":scheme", "http"),
                (":path", "/chat"),
                (":authority", "test"),
                ("sec-websocket-version", "13"),
            ]
            client.send(client.headers(1, fields, False))
            opened = client.until(HEADERS, 1)
            assert not opened.flags & END_STREAM
            assert dict(client.decoder.decode(opened.payload))[":status"] == "200"
            protocol = ClientProtocol(parse_uri("ws://test/chat"), max_size=None)
            protocol.state = protocol.state.__class__.OPEN
            protocol.parser = _parser(protocol)
            for message in (b"hello", os.urandom(50_000)):
                protocol.send_binary(message)
                for data in protocol.data_to_send():
                    for at in range(0, len(data), 16000):
                        client.send(frame(DATA, 0, 1, data[at : at + 16000]))
                got = _message(client, protocol)
                assert got.data == message
            protocol.send_close(1000, "bye")
            for data in protocol.data_to_send():
                client.send(frame(DATA, 0, 1, data))
            while not client.next().flags & END_STREAM:  # type: ignore[union-attr]
                pass
            client.send(frame(DATA, END_STREAM, 1))
            client.is_alive()
        line = sidecar.wait_exchanges(1)[0]
        assert (line["status"], line["protocol"], line.get("reason")) == (101, "h2", None)


def _parser(protocol: ClientProtocol) -> object:
    parser = protocol.parse()
    next(parser)
    return parser


def _message(client: Client, protocol: ClientProtocol) -> Frame:
    while True:
        one = client.until(DATA, 1)
        client.send(
            number(http2.WINDOW_UPDATE, 1, len(one.payload)), number(http2.WINDOW_UPDATE, 0, len(one.payload))
        )
        protocol.receive_data(one.payload)
        for event in protocol.events_received():
            assert isinstance(event, Frame)
            if event.opcode in (Opcode.BINARY, Opcode.TEXT):
                return event


# -- the listener


def test_http2_off_refuses_the_preface(live: Live) -> None:
    live.listen("http2 = off")
    with Answering() as app:
        live.start(APP.format(app.address))
        with Stream.connect(live.port) as stream:
            stream.send(PREFACE)
            assert stream.read_message().status == 505


def test_a_proxy_header_comes_before_the_preface(live: Live) -> None:
    live.listen("proxy_protocol = require")
    with Answering(lambda message: response(message.fields["x-forwarded-for"].encode())) as app:
        live.start(APP.format(app.address))
        with Stream.connect(live.port) as stream:
            stream.send(b"PROXY TCP4 203.0.113.9 127.0.0.1 1234 80\r\n")
            client = Client(stream)
            client.greet()
            client.ask(1)
            assert client.answer(1).body == b"203.0.113.9"


def test_http1_goes_on_beside_it(live: Live) -> None:
    with Answering(lambda message: response(b"hi")) as app:
        sidecar = live.start(APP.format(app.address))
        with Stream.connect(live.port) as stream:
            assert stream.ask("GET", "/").body == b"hi"
        assert "protocol" not in sidecar.wait_exchanges(1)[0]


# -- what is refused is told


def test_an_attack_is_an_event_with_the_rule(live: Live) -> None:
    with Answering(lambda message: response(b"hi")) as app:
        sidecar = live.start(APP.format(app.address))
        with talk(live.port) as attacker, contextlib.suppress(OSError):
            attacker.send(*[attacker.headers(n) + number(http2.RST_STREAM, n, 8) for n in range(1, 4001, 2)])
            assert attacker.ended_with()[0] == http2.ENHANCE_YOUR_CALM
        event = sidecar.wait_event("http2_refused")[0]
        assert event["rule"] in ("rapid_reset", "too_many_streams")
        assert event["peer"] == "127.0.0.1"
        with talk(live.port) as client:
            client.ask(1)
            assert client.answer(1).status == 200


# -- reload and the end


def test_streams_pass_a_reload(live: Live) -> None:
    with Accepting() as old, Answering(lambda message: response(b"new")) as new:
        sidecar = live.start(APP.format(old.address))
        with talk(live.port) as client:
            client.ask(1)
            with old.accept() as server:
                server.read_head()
                live.conf.write("10-test.ini", APP.format(new.address))
                sidecar.signal(signal.SIGHUP)
                sidecar.wait_event("reload_applied")
                client.ask(3)
                assert client.answer(3).body == b"new"
                server.send(response(b"old"))
                assert client.answer(1).body == b"old"


def test_a_drain_lets_started_streams_finish(live: Live) -> None:
    with Accepting() as app:
        sidecar = live.start(APP.format(app.address))
        with talk(live.port) as client, talk(live.port) as idle:
            idle.is_alive()
            client.ask(1)
            with app.accept() as server:
                server.read_head()
                sidecar.signal(signal.SIGTERM)
                told = client.until(GOAWAY)
                assert struct.unpack("!II", told.payload) == (0x7FFFFFFF, http2.NO_ERROR)
                # This one was on its way, as far as the server can tell.
                client.ask(3)
                with app.accept() as second:
                    second.read_head()
                    client.send(frame(PING, http2.ACK, 0, client.until(PING).payload))
                    assert struct.unpack("!II", client.until(GOAWAY).payload) == (3, http2.NO_ERROR)
                    second.send(response(b"second"))
                    assert client.answer(3).body == b"second"
                server.send(response(b"first"))
                assert client.answer(1).body == b"first"
            assert client.next() is None
            assert idle.ended_with() == (http2.NO_ERROR, "")
        assert sidecar.wait_exit() == 0


def test_a_drain_does_not_wait_for_a_client_that_does_not_answer(live: Live) -> None:
    with Answering() as app:
        sidecar = live.start(APP.format(app.address))
        with talk(live.port) as client:
            client.ask(1)
            assert client.answer(1).status == 200
            sidecar.signal(signal.SIGTERM)
            assert client.ended_with() == (http2.NO_ERROR, "")
        assert sidecar.wait_exit() == 0


@pytest.mark.parametrize("count", [200])
def test_idle_connections_cost_little(live: Live, count: int) -> None:
    """What a connection that once asked, and rests now, keeps in memory."""
    with Answering(lambda message: response(b"hi")) as app, contextlib.ExitStack() as stack:
        sidecar = live.start(APP.format(app.address))
        for n in range(2):
            before = sidecar.pss()
            for _ in range(count):
                client = stack.enter_context(talk(live.port))
                client.ask(1, [*GET, ("user-agent", "a" * 100), ("cookie", "b" * 300)])
                assert client.answer(1).status == 200
            until(lambda n=n: len(sidecar.exchanges()) == (n + 1) * count, "all are served")  # type: ignore[misc]
        assert (sidecar.pss() - before) / count < 40_000


# -- memory


def test_streams_that_nobody_reads_cost_bounded_memory(live: Live) -> None:
    """128 large answers whose windows were opened a little: what is kept is some dozens of KiB of each."""
    with Answering(lambda message: response(bytes(2_000_000))) as app:
        sidecar = live.start(APP.format(app.address))
        before = sidecar.rss()
        with talk(live.port, (http2.WINDOW, 20_000)) as client:
            client.send(number(http2.WINDOW_UPDATE, 0, 1 << 30))
            client.send(*[client.headers(n) for n in range(1, 257, 2)])
            seen: dict[int, int] = {}
            while sum(seen.values()) < 128 * 20_000:
                one = client.until(DATA)
                seen[one.stream] = seen.get(one.stream, 0) + len(one.payload)
            assert set(seen.values()) == {20_000}
            assert sidecar.rss() - before < 12 << 20


def test_uploads_that_nobody_takes_cost_bounded_memory(live: Live) -> None:
    """128 uploads to a server that reads none of them: what is kept is a window of each."""
    with Accepting() as app:
        sidecar = live.start(APP.format(app.address))
        before = sidecar.rss()
        with talk(live.port) as client:
            client.send(*[client.headers(n, POST, False) for n in range(1, 257, 2)])
            windows = dict.fromkeys(range(1, 257, 2), 65535)
            client.wire.sock.settimeout(1.0)  # type: ignore[attr-defined]
            with contextlib.suppress(TimeoutError):
                while True:
                    for n, window in windows.items():
                        size = min(window, 16384)
                        if size:
                            client.send(frame(DATA, 0, n, bytes(size)))
                            windows[n] -= size
                    if not any(windows.values()):
                        one = client.until(http2.WINDOW_UPDATE)
                        if one.stream:
                            windows[one.stream] += one.number
            assert sidecar.rss() - before < 40 << 20
