"""Messages through a session and a forward: bodies framed anew, fields kept or dropped, targets untouched."""

from __future__ import annotations

import httptools
import pytest

from tests.support.proxies import Exchanged, Path, exchange
from tests.support.streams import Script, ServerSide

pytestmark = pytest.mark.usefixtures("no_leaks")

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
BODY = b"hello world" * 300


def fields(head: bytes) -> list[bytes]:
    return head.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]


class _Reader:
    """What llhttp makes of a response."""

    def __init__(self, data: bytes) -> None:
        self.body = b""
        self.complete = False
        self.parser = httptools.HttpResponseParser(self)
        self.parser.feed_data(data)

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.complete = True


def ends_after(*pieces: bytes) -> Script:
    """A server that answers and then closes."""

    def script(side: ServerSide) -> None:
        side.read_request()
        for piece in pieces:
            side.send(piece)
        side.finish()

    return script


LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n%x\r\n%b\r\n0\r\n\r\n" % (
    len(BODY) - 5,
    BODY[5:],
)
CLOSE = b"HTTP/1.1 200 OK\r\n\r\n" + BODY
OLD = b"HTTP/1.0 200 OK\r\nServer: old\r\n\r\n" + BODY


@pytest.mark.parametrize("answer", [LENGTH, CHUNKS, CLOSE, OLD], ids=["length", "chunked", "close", "http10"])
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_response_reaches_every_client_in_a_framing_it_knows(answer: bytes, version: bytes) -> None:
    got = exchange(b"GET / HTTP/%b\r\nHost: a\r\n\r\n" % version, [ends_after(answer)])
    assert got.client.startswith(b"HTTP/1.1 200 OK\r\n")
    reader = _Reader(got.client)
    if answer is not LENGTH and version == b"1.0":
        assert b"transfer-encoding" not in got.head.lower()
        assert b"Connection: close" in fields(got.head)
        assert got.body == BODY
    else:
        assert reader.complete
        assert reader.body == BODY
    assert not got.was_reset


@pytest.mark.parametrize("answer", [LENGTH, CHUNKS, CLOSE], ids=["length", "chunked", "close"])
def test_a_response_that_comes_byte_by_byte_is_the_same(answer: bytes) -> None:
    def drip(side: ServerSide) -> None:
        side.read_request()
        side.send_pieces(answer[:400])
        side.send(answer[400:])
        side.finish()

    reader = _Reader(exchange(GET, [drip]).client)
    assert reader.complete
    assert reader.body == BODY


@pytest.mark.parametrize("piece", [0, 1, 3])
@pytest.mark.parametrize(
    ("framing", "wire"),
    [
        (b"Content-Length: 11", b"hello world"),
        (b"Transfer-Encoding: chunked", b"5;a=b\r\nhello\r\n006\r\n world\r\n0\r\n\r\n"),
    ],
)
def test_a_request_body_arrives_in_its_framing_without_the_senders_decorations(
    framing: bytes, wire: bytes, piece: int
) -> None:
    request = b"POST /in HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n%b" % (framing, wire)
    got = exchange(request, [[OK]], piece=piece)
    head, _, body = got.upstream[0].partition(b"\r\n\r\n")
    assert framing in fields(head)
    assert b"a=b" not in body
    if framing.startswith(b"Transfer"):
        assert body.endswith(b"0\r\n\r\n")
        assert b"006" not in body
    else:
        assert body == wire
    assert got.status == 200
    assert got.records[0]["status"] == 200


def test_trailers_reach_a_client_that_knows_chunks_without_those_that_frame() -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
        b"2\r\nhi\r\n0\r\nX-Sum: 42\r\nContent-Length: 999\r\nSet-Cookie: a=b\r\n\r\n"
    )
    assert exchange(GET, [[answer]]).body == b"2\r\nhi\r\n0\r\nX-Sum: 42\r\n\r\n"
    assert exchange(b"GET / HTTP/1.0\r\n\r\n", [[answer]]).body == b"hi"


def test_request_trailers_reach_the_server_without_those_that_frame() -> None:
    def read_on(side: ServerSide) -> None:
        side.read_until(b"\r\n\r\n")
        side.read_until(b"\r\n\r\n")
        side.send(OK)

    request = (
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nhi\r\n0\r\nX-Sum: 42\r\nHost: evil\r\nContent-Length: 3\r\n\r\n"
    )
    got = exchange(request, [read_on])
    assert got.upstream[0].endswith(b"2\r\nhi\r\n0\r\nX-Sum: 42\r\n\r\n")


# -- responses without a body


@pytest.mark.parametrize(
    ("method", "answer", "kept"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", b"Content-Length: 99"),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b""),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (
            b"GET",
            b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\nContent-Length: 99\r\n\r\n',
            b"Content-Length: 99",
        ),
        (b"GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"Content-Length: 0"),
    ],
)
def test_what_has_no_body_gets_none_and_both_connections_go_on(
    method: bytes, answer: bytes, kept: bytes
) -> None:
    request = method + b" / HTTP/1.1\r\nHost: a\r\n\r\n"
    got = exchange(request * 2, [[answer, answer]], requests=2)
    first, second, rest = got.client.split(b"\r\n\r\n")
    assert rest == b""
    # The sidecar dates what the server did not; a second may pass between the two.
    assert [f for f in fields(first) if b"Date:" not in f] == [f for f in fields(second) if b"Date:" not in f]
    assert kept == b"" or kept in fields(first)
    assert b"transfer-encoding" not in first.lower()
    assert len(got.upstream) == 1
    assert [attempt["reused"] for record in got.records for attempt in record["attempts"]] == [False, True]


def test_a_204_loses_a_content_length_it_must_not_have() -> None:
    got = exchange(GET, [[b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"]])
    assert b"content-length" not in got.head.lower()


# -- fields and targets


def test_hop_by_hop_fields_stay_behind_and_the_others_keep_names_order_and_duplicates() -> None:
    request = (
        b"GET / HTTP/1.1\r\nHost: a\r\nAccept: x\r\nx-multi: 1\r\nConnection: keep-alive, X-Hop, x-hop2\r\n"
        b"Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nX-Hop: 1\r\nX-Multi: 2\r\nX-HOP2: 1\r\n"
        b"TE: gzip\r\nUpgrade: h2c\r\nProxy-Authorization: Basic x\r\nAccept: y\r\n\r\n"
    )
    answer = (
        b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nConnection: keep-alive, X-Secret\r\nX-Secret: 1\r\n"
        b"Keep-Alive: timeout=5\r\nX-Odd-CASE:  v \r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n"
        b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n"
    )
    got = exchange(request, [[answer]])
    sent = [line for line in fields(got.upstream[0]) if not line.startswith((b"X-Forwarded", b"X-Real"))]
    gone = (b"connection", b"keep-alive", b"proxy-connection", b"x-hop", b"te:", b"upgrade")
    assert not [line for line in sent if line.lower().startswith(gone)]
    assert [line for line in sent if line.lower().startswith((b"accept", b"x-multi"))] == [
        b"Accept: x",
        b"x-multi: 1",
        b"X-Multi: 2",
        b"Accept: y",
    ]
    assert fields(got.head) == [
        b"Set-Cookie: a=1",
        b"X-Odd-CASE:  v ",
        b"Set-Cookie: b=2",
        b"Content-Length: 0",
        b"Date: Thu, 01 Jan 1970 00:00:00 GMT",
    ]


@pytest.mark.parametrize(
    "target",
    [
        b"/api/a%2Fb%2fc?x=%zz&y=[1]",
        b"/a//b/./c",
        b"/%7Euser;p=1?a=b?c",
        b"/" + b"x" * 4000,
        b"/utf8/\xc3\xa4",
        b"/?",
        b'/a|b{c}^`"<>',
    ],
)
def test_a_target_goes_on_byte_for_byte(target: bytes) -> None:
    got = exchange(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % target, [[OK]])
    if got.status == 400:
        assert got.upstream == []
    else:
        assert got.upstream[0].startswith(b"GET %b HTTP/1.1\r\n" % target)


def test_an_absolute_target_is_sent_in_origin_form_and_its_host_wins() -> None:
    got = exchange(b"GET http://b.example:81/x?y HTTP/1.1\r\nHost: a\r\n\r\n", [[OK]])
    assert got.upstream[0].startswith(b"GET /x?y HTTP/1.1\r\n")
    assert fields(got.upstream[0])[0] == b"Host: b.example:81"
    assert got.records[0]["host"] == "b.example"


def test_what_a_client_claims_about_itself_is_replaced() -> None:
    request = (
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\nX_Real_IP: 6.6.6.6\r\n"
        b"Forwarded: for=6.6.6.6\r\nX-Forwarded-Proto: https\r\n\r\n"
    )
    (upstream,) = exchange(request, [[OK]]).upstream
    assert b"6.6.6.6" not in upstream
    assert (
        b"\r\nX-Forwarded-For: 192.0.2.7\r\nX-Real-IP: 192.0.2.7\r\nX-Forwarded-Proto: http\r\n" in upstream
    )


def test_a_large_body_goes_through_both_ways_unharmed() -> None:
    size = 3_000_000
    data = bytes(range(256)) * (size // 256)

    def echo(side: ServerSide) -> None:
        body = side.read_request().partition(b"\r\n\r\n")[2]
        side.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    with Path(echo) as path:
        client = path.connect()
        client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
        client.read_until(b"\r\n\r\n")
        assert client.read(len(data)) == data
        path.proxy.wait_records(1, client)
        record = path.records[0]
        assert record["received"] > len(data)
        assert record["sent"] > len(data)


def test_bytes_received_and_sent_are_counted_with_their_heads() -> None:
    got: Exchanged = exchange(GET, [[OK]])
    assert got.records[0]["received"] == len(GET)
    assert got.records[0]["sent"] == len(got.client)
