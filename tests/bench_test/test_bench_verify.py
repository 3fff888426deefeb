"""A proxy is asked as the load will ask it, and is not measured when it speaks something else."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.certificate import Certificate, make_certificate
from tests.bench.neighbours import Nginx
from tests.bench.process import BenchError, Server, free_port
from tests.bench.proxy import Place
from tests.bench.rows import GRPC_MESSAGE, GRPC_PATH, PLAIN, ROWS, LoadRow, Wire
from tests.bench.upstream import Upstream, start_upstream
from tests.bench.verify import verify
from tests.support.programs import program

BY_NAME = {row.name: row for row in ROWS if isinstance(row, LoadRow)}
#: One row for each wire.
BY_WIRE = {row.wire: row for row in reversed(BY_NAME.values())}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """The certificate of the upstream and of all proxies here."""
    program("curl")
    program("nghttp", "nghttp2-client")
    return make_certificate(tmp_path_factory.mktemp("bench") / "certificate")


@pytest.fixture(scope="module")
def upstream(certificate: Certificate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    """The upstream of the benchmark."""
    started = start_upstream(tmp_path_factory.mktemp("bench") / "upstream", certificate)
    try:
        yield started
    finally:
        started.server.stop()


class Starter:
    """Starts nginx for a wire."""

    def __init__(self, certificate: Certificate, upstream: Upstream, folder: Path) -> None:
        self.certificate = certificate
        self.upstream = upstream
        self.folder = folder
        self.started: list[Server] = []

    def __call__(self, wire: Wire) -> Server:
        place = Place(self.folder, free_port(), self.upstream.port_for(wire), self.certificate, wire)
        launch = Nginx().launch(place)
        server = Server.start("nginx", place.port, launch.command, launch.environment, self.folder)
        self.started.append(server)
        return server


@pytest.fixture
def start(certificate: Certificate, upstream: Upstream, tmp_path: Path) -> Iterator[Starter]:
    """Start nginx as the benchmark does."""
    starter = Starter(certificate, upstream, tmp_path)
    try:
        yield starter
    finally:
        for server in starter.started:
            server.stop()


@pytest.mark.parametrize("row", BY_WIRE.values(), ids=lambda row: row.name)
def test_a_proxy_that_speaks_what_the_row_does_is_taken(start: Starter, row: LoadRow):
    verify(start(row.wire), row, start.certificate)


def test_http_1_is_not_taken_for_http_2(start: Starter):
    row = BY_NAME["h2-small"]
    server = start(dataclasses.replace(row.wire, http2=False))
    with pytest.raises(BenchError, match=r"nginx: it spoke HTTP/1\.1, not HTTP/2"):
        verify(server, row, start.certificate)


def test_a_certificate_of_a_stranger_is_not_taken(start: Starter, tmp_path: Path):
    row = BY_NAME["tls-small"]
    stranger = make_certificate(tmp_path / "stranger")
    with pytest.raises(BenchError, match="nginx: curl exited with 60"):
        verify(start(row.wire), row, stranger)


def test_no_tls_is_told(start: Starter):
    with pytest.raises(BenchError, match="nginx: curl exited with 35"):
        verify(start(PLAIN), BY_NAME["tls-small"], start.certificate)


def test_an_answer_that_is_not_the_upstreams_is_told(start: Starter):
    server = start(PLAIN)
    row = dataclasses.replace(BY_NAME["post"], path="/nothing")
    with pytest.raises(BenchError, match="POST /nothing gave status 404"):
        verify(server, row, start.certificate)


def test_http_1_is_not_taken_for_http_2_at_the_upstream_either(start: Starter):
    server = start.upstream.server
    client = Server(server.name, start.upstream.http2_port, server.pid, server._process, server._output)
    status, _ = client.ask("POST", GRPC_PATH, GRPC_MESSAGE)
    assert status == 505


def test_an_upstream_over_tls_with_the_certificate_of_a_stranger_is_not_asked(start: Starter, tmp_path: Path):
    start.certificate = make_certificate(tmp_path / "stranger")
    row = BY_NAME["tls-upstream-small"]
    with pytest.raises(BenchError, match="gave status 502"):
        verify(start(row.wire), row, start.certificate)
