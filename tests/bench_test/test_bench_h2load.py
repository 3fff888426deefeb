"""The result of h2load is read exactly, and its handshakes are full ones, unlike those of wrk."""

from __future__ import annotations

import dataclasses
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.bench import h2load, load
from tests.bench.certificate import Certificate, make_certificate
from tests.bench.h2load import options, parse, percentile, response_times
from tests.bench.load import Load, believe
from tests.bench.process import BenchError
from tests.bench.rows import ROWS, LoadRow
from tests.support.programs import program

BY_NAME = {row.name: row for row in ROWS if isinstance(row, LoadRow)}
OUTPUT = """\
finished in 998.50ms, 4006.00 req/s, 832.29KB/s
requests: 4006 total, 4012 started, 4006 done, 4000 succeeded, 6 failed, 4 errored, 2 timeout
status codes: 4000 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 832.29KB (852264) total, 410.16KB (420000) headers (space savings 40.34%), 351.56KB (360000) data
"""
LOG = (
    "1795268396739718\t200\t1599\n1795268396732775\t200\t300\n1795268396732775\t-1\t-1\n1795268396732336\t200"
)


def test_the_result_is_read_from_the_output_and_the_log():
    assert parse(OUTPUT, LOG) == Load(
        requests=4000,
        bytes=360_000,
        duration_us=998_500,
        connect=0,
        read=4,
        write=0,
        timeout=2,
        status=0,
        p50_us=1599,
        p99_us=1599,
    )


def test_answers_that_are_errors_are_not_believed():
    bad = OUTPUT.replace("4000 2xx, 0 3xx, 0 4xx, 0 5xx", "3990 2xx, 1 3xx, 2 4xx, 7 5xx")
    with pytest.raises(BenchError, match="10 of 4000 answers were errors"):
        believe(parse(bad, LOG), BY_NAME["h2-small"])


def test_output_without_a_result_is_an_error_that_shows_it():
    with pytest.raises(BenchError, match="no supported application protocol"):
        parse("Server does not offer: no supported application protocol\n", "")


def test_only_answers_have_a_time():
    assert response_times(LOG) == [300, 1599]
    assert response_times("") == []


@pytest.mark.parametrize(("percent", "told"), [(0, 1), (50, 51), (99, 100), (100, 100)])
def test_a_percentile_is_one_of_the_values(percent: int, told: int):
    assert percentile(list(range(1, 101)), percent) == told
    assert percentile([7], percent) == 7


def test_without_values_there_is_no_percentile():
    assert percentile([], 50) == 0


def test_streams_and_connections_make_what_the_row_asks_for():
    told = options(BY_NAME["h2-small"], 3)
    assert told == ["-c16", "-m4", "-D3", "--npn-list=h2"]


def test_a_handshake_row_has_one_request_on_each_connection():
    told = options(BY_NAME["tls-handshake"], 3)
    assert "-n3000" in told
    assert "-c3000" in told
    assert "--h1" in told


@contextmanager
def listening(certificate: Certificate) -> Iterator[tuple[int, list[bool]]]:
    """A TLS server that answers one request on each connection, and what it saw resumed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.chain, certificate.key)
    resumed: list[bool] = []
    body = b"x" * 90
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\nConnection: close\r\n\r\n" + body

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return  # the test has ended
            try:
                client.settimeout(5)
                with context.wrap_socket(client, server_side=True) as channel:
                    if channel.recv(65536):
                        resumed.append(bool(channel.session_reused))
                        channel.sendall(answer)
                        channel.unwrap()
            except OSError:
                continue  # a client that left

    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        threads = [threading.Thread(target=serve, args=(listener,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        try:
            yield listener.getsockname()[1], resumed
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join(10)


@pytest.mark.parametrize(
    ("name", "run", "is_mostly_resumed"),
    [("tls-handshake", h2load.run, False), ("tls-resume", load.run, True)],
)
def test_each_row_has_the_handshakes_it_is_named_after(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    run: Callable[[LoadRow, int, int, int, Path], Load],
    is_mostly_resumed: bool,
):
    program("h2load", "nghttp2-client")
    program("wrk")
    monkeypatch.setattr(h2load, "HANDSHAKES_PER_SECOND", 100)
    row = dataclasses.replace(BY_NAME[name], connections=8)
    with listening(make_certificate(tmp_path / "certificate")) as (port, resumed):
        seen = run(row, port, 1, min(os.sched_getaffinity(0)), tmp_path)
    assert seen.requests > 8
    if is_mostly_resumed:
        assert sum(resumed) >= len(resumed) - row.connections
    else:
        assert len(resumed) == 100
        assert not any(resumed)
