"""One probe: what is asked, how answers are judged, and that nothing lasts longer than it may."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import gevent
import pytest

from sidecar.errors import Failure
from sidecar.net.channel import Channel
from sidecar.net.dial import dial, numeric_target
from sidecar.runtime import Tasks
from sidecar.upstream.dialer import Dialer
from sidecar.upstream.health_check import Check, Statuses
from sidecar.upstream.multiplexed import MultiplexedPool
from sidecar.upstream.probe import BODY, Finding, Probe
from sidecar.wire.head import Limits
from tests.support.http2_server import Speaker, speak
from tests.support.streams import TIMEOUT, FakeServer, Script, ServerSide, settle, start, wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")

GET = Check("GET", "/healthz")
SOON = 0.02
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def connecting(server: FakeServer) -> Callable[[float], Channel]:
    target = numeric_target(server.address)
    assert target is not None
    return lambda timeout: dial([target], timeout)


def find(
    script: Script, check: Check = GET, timeout: float = TIMEOUT, body: bytes = b"", **options: Any
) -> Finding:
    """What a probe finds at a server that plays `script`; it leaves no connection."""
    with closing(FakeServer(script)) as server:
        probe = Probe(check, timeout, "app:80")
        probe.body = body
        for name, value in options.items():
            setattr(probe, name, value)
        found = probe.run(connecting(server), time.monotonic)
        wait_until(lambda: server.connections or check.is_tcp)
        wait_until(lambda: not server.open_connections)
        return found


# What is sent -----------------------------------------------------------------------------------------------


def test_a_probe_is_a_plain_request_that_ends_its_connection() -> None:
    with closing(FakeServer([OK])) as server:
        assert Probe(GET, TIMEOUT, "app:80").run(connecting(server), time.monotonic) == Finding()
        assert server.received == [
            b"GET /healthz HTTP/1.1\r\nHost: app:80\r\n"
            b"User-Agent: sidecar-health\r\nConnection: close\r\n\r\n"
        ]


def test_a_tcp_probe_sends_nothing() -> None:
    with closing(FakeServer([])) as server:
        assert Probe(Check(), TIMEOUT, "app:80").run(connecting(server), time.monotonic) == Finding()
        wait_until(lambda: server.connections and not server.open_connections)
        assert server.received == [b""]


def test_the_answer_is_read_to_its_end_so_that_the_server_sees_no_reset() -> None:
    sides: list[ServerSide] = []

    def answer(side: ServerSide) -> None:
        sides.append(side)
        side.read_request()
        side.send(b"HTTP/1.1 200 OK\r\nContent-Length: 30000\r\n\r\n")
        side.send(b"x" * 30000)
        side.read_all()

    assert find(answer) == Finding()
    assert not sides[0].was_reset


# What is good -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        OK,
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ],
)
def test_an_answer_is_good(answer: bytes) -> None:
    assert find([answer]) == Finding()


def test_an_answer_may_end_with_its_connection() -> None:
    def answer(side: ServerSide) -> None:
        side.read_request()
        side.send_all(b"HTTP/1.1 200 OK\r\n\r\nall is well")

    assert find(answer, body=b"is well") == Finding()


def test_an_answer_may_come_byte_by_byte() -> None:
    def answer(side: ServerSide) -> None:
        side.read_request()
        side.send_pieces(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)

    assert find(answer, body=b"ok") == Finding()


def test_an_answer_to_head_has_no_body() -> None:
    assert find([OK.removesuffix(b"ok")], Check("HEAD", "/")) == Finding()


def test_of_an_endless_body_the_first_64_kib_are_enough() -> None:
    def answer(side: ServerSide) -> None:
        side.read_request()
        side.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            side.send(b"x" * 65536)

    assert find(answer) == Finding()


@pytest.mark.parametrize("pieces", [1, 2])
def test_a_text_is_found_wherever_the_body_is_cut_into_pieces(pieces: int) -> None:
    body = b"5\r\nall i\r\n6\r\ns well\r\n0\r\n\r\n"

    def answer(side: ServerSide) -> None:
        side.read_request()
        data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body
        side.send_pieces(data, len(data) // pieces)

    assert find(answer, body=b"is well") == Finding()


# What is not ------------------------------------------------------------------------------------------------


def resetting(data: bytes) -> Script:
    def answer(side: ServerSide) -> None:
        side.read_request()
        side.send(data)
        # What was sent before a reset arrives only when it is taken out of the kernel first.
        settle()
        side.reset()

    return answer


def ending(data: bytes) -> Script:
    def answer(side: ServerSide) -> None:
        side.read_request()
        side.send_all(data)

    return answer


@pytest.mark.parametrize(
    ("script", "reason", "detail"),
    [
        ([b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"], "status", "503"),
        ([b"HTTP/1.1 404 Not Found\r\n\r\n"], "status", "404"),
        ([b"garbage\r\n\r\n"], "malformed_response", "bad_status_line"),
        ([b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n"], "malformed_response", "unasked_upgrade"),
        ([b"HTTP/1.1 102 Wait\r\n\r\n" * 64], "malformed_response", "too_many_interim"),
        (
            [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n"],
            "malformed_response",
            "bad_chunk_size",
        ),
        (ending(b""), "connection_terminated", "before the response began"),
        (ending(b"HTTP/1.1 200"), "connection_terminated", "before the response began"),
        (resetting(b""), "connection_terminated", "before the response began"),
        (ending(OK[:-1]), "response_incomplete", "the body is cut short"),
        (resetting(OK[:-1]), "response_incomplete", "the body is cut short"),
        (
            ending(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"),
            "response_incomplete",
            "the body is cut short",
        ),
    ],
)
def test_an_answer_is_bad(script: Script, reason: str, detail: str) -> None:
    assert find(script) == Finding(reason, detail)


def test_only_expected_statuses_are_good() -> None:
    expect = (Statuses(200, 200), Statuses(500, 503))
    assert find([b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"], expect=expect) == Finding()
    assert find([b"HTTP/1.1 204 No Content\r\n\r\n"], expect=expect) == Finding("status", "204")


def test_a_body_without_the_text_is_bad() -> None:
    assert find([OK], body=b"fine") == Finding("body", "the first 2 bytes do not hold the text")


def test_a_text_behind_the_first_64_kib_is_not_looked_for() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (BODY + 3, b"x" * (BODY - 1) + b"fine")
    assert find([answer], body=b"fine").reason == "body"


@pytest.mark.parametrize(
    "data",
    [b"", b"HTTP/1.1 2", b"HTTP/1.1 102 Wait\r\n\r\n", OK[:-1], b"HTTP/1.1 200 OK\r\n\r\n"],
    ids=["silence", "half a head", "only interim", "half a body", "a body without end"],
)
def test_a_server_that_hangs_is_given_up_in_time(data: bytes) -> None:
    def answer(side: ServerSide) -> None:
        side.read_request()
        side.send(data)

    found = find(answer, timeout=SOON)
    assert found == Finding("response_timeout", "not complete after 0.02 s")


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"", b"HTTP/1.1 102 Wait\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ],
    ids=["interim", "head", "body", "chunks"],
)
def test_a_server_that_trickles_gains_no_time_by_it(head: bytes, piece: bytes) -> None:
    def answer(side: ServerSide) -> None:
        side.read_request()
        side.send(head)
        while True:
            side.send(piece)
            # Nobody waits for this: to trickle is what such a server does.
            gevent.sleep(SOON / 5)

    with closing(FakeServer(answer)) as server:
        began = time.monotonic()
        found = Probe(GET, SOON, "app:80").run(connecting(server), time.monotonic)
        assert found.reason == "response_timeout"
        assert time.monotonic() - began < TIMEOUT / 2


# No connection ----------------------------------------------------------------------------------------------


def test_a_failure_to_connect_keeps_its_reason() -> None:
    server = FakeServer()
    connect = connecting(server)
    server.close()
    found = Probe(GET, TIMEOUT, "app:80").run(connect, time.monotonic)
    assert found.reason == "connection_refused"
    assert not found.is_ours


@pytest.mark.parametrize(
    "error", [Failure("descriptors_exhausted"), OSError(12, os.strerror(12))], ids=["failure", "OSError"]
)
def test_what_this_process_lacks_is_not_the_servers_fault(error: Exception) -> None:
    def connect(_: float) -> Channel:
        raise error

    found = Probe(GET, TIMEOUT, "app:80").run(connect, time.monotonic)
    assert found.reason
    assert found.is_ours


def test_connecting_takes_its_part_of_the_time() -> None:
    ticks = [0.0]
    with closing(FakeServer([OK])) as server:

        def connect(timeout: float) -> Channel:
            ticks[0] += timeout
            return connecting(server)(timeout)

        found = Probe(GET, TIMEOUT, "app:80").run(connect, lambda: ticks[0])
        assert found.reason == "response_timeout"


def test_a_probe_that_is_killed_gives_its_connection_back() -> None:
    with closing(FakeServer(lambda side: side.read_request())) as server:
        probing = start(Probe(GET, TIMEOUT, "app:80").run, connecting(server), time.monotonic)
        wait_until(lambda: server.connections and server.received[0])
        probing.kill()
        wait_until(lambda: not server.open_connections)


# HTTP/2 and gRPC -------------------------------------------------------------------------------------------


def find_http2(check: Check, script: Callable[[Speaker], None], **options: Any) -> Finding:
    """What a probe finds at a server of HTTP/2; its connection ends with it."""
    problems: list[BaseException] = []
    tasks = Tasks(lambda _, error: problems.append(error))
    with closing(FakeServer(speak(script))) as server:
        pool = MultiplexedPool(Dialer((server.address,)), Limits(), 0, 60.0, tasks)
        probe = Probe(check, TIMEOUT, "app:80")
        for name, value in options.items():
            setattr(probe, name, value)
        found = probe.run(pool.ask, time.monotonic)
        wait_until(lambda: not server.open_connections)
        wait_until(lambda: not tasks._group)
    assert problems == []
    return found


@pytest.mark.parametrize("length", [[("content-length", "5")], []])
def test_a_probe_goes_over_http_2(length: list[tuple[str, str]]) -> None:
    seen: list[dict[str, str]] = []

    def script(it: Speaker) -> None:
        stream, fields = it.request()
        seen.append(fields)
        it.answer(stream, b"fine!", fields=length)

    assert find_http2(GET, script, body=b"fine") == Finding()
    assert (seen[0][":path"], seen[0][":authority"]) == ("/healthz", "app:80")
    assert find_http2(GET, script, body=b"else").reason == "body"
    assert find_http2(GET, lambda it: it.answer(it.request()[0], status=503)) == Finding("status", "503")


def test_a_probe_whose_stream_is_cut_off() -> None:
    def script(it: Speaker) -> None:
        stream, _ = it.request()
        it.head(stream)
        it.data(stream, b"half")
        it.reset(stream, 2)

    assert find_http2(GET, script).reason in ("response_incomplete", "connection_terminated")


@pytest.mark.parametrize(
    ("state", "trailers", "expected"),
    [
        (b"\x08\x01", [("grpc-status", "0")], Finding()),
        (b"\x08\x02", [("grpc-status", "0")], Finding("status", "NOT_SERVING")),
        (b"\x08\x01", [("grpc-status", "13")], Finding("status", "grpc-status 13")),
    ],
)
def test_a_probe_asks_the_health_service_of_grpc(
    state: bytes, trailers: list[tuple[str, str]], expected: Finding
) -> None:
    seen: list[tuple[dict[str, str], bytes]] = []

    def script(it: Speaker) -> None:
        stream, fields = it.request()
        seen.append((fields, it.body(stream)))
        body = b"\0\0\0\0\x02" + state
        it.answer(stream, body, fields=[("content-type", "application/grpc")], trailers=trailers)

    assert find_http2(Check("grpc", "a.B"), script) == expected
    fields, body = seen[0]
    assert (fields[":method"], fields[":path"]) == ("POST", "/grpc.health.v1.Health/Check")
    assert (fields["content-type"], fields["te"]) == ("application/grpc", "trailers")
    assert body == b"\0\0\0\0\x05\n\x03a.B"


def test_a_server_that_does_not_know_the_health_service() -> None:
    def script(it: Speaker) -> None:
        fields = [("content-type", "application/grpc"), ("grpc-status", "12")]
        it.answer(it.request()[0], fields=fields)

    expected = Finding("status", "grpc-status 12: there is no health service")
    assert find_http2(Check("grpc"), script) == expected
