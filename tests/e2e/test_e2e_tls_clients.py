"""Ordinary clients over TLS: curl, Python's own, httpx, websockets; whole bodies, whole ends."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import socket
import ssl
import subprocess
import threading
import urllib.request
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from tests.support import websocket
from tests.support.certificates import Files
from tests.support.chain import PublicAuthority
from tests.support.live import Live, Sidecar
from tests.support.openssl import s_client
from tests.support.peers import Accepting, Stream
from tests.support.programs import program
from tests.support.sink import LARGE, Sink, blocks

CONFIG = """
[certificate site]
{files}
[upstream app]
server.a = {app}
[route app]
upstream = app
[route small]
path = /small
upstream = app
max_body_size = 1k
"""


class Site:
    """A sidecar with TLS on `port` before an app."""

    def __init__(self, live: Live, authority: PublicAuthority) -> None:
        self.live = live
        self.root = live.folder / "root.pem"
        self.root.write_bytes(authority.pem)
        self._files = Files(live.folder / "tls", authority.issue("localhost"))
        self.context = ssl.create_default_context(cafile=str(self.root))

    @property
    def port(self) -> int:
        return self.live.port

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def start(self, app: str, listener: str = "") -> Sidecar:
        self.live.listen(f"tls = site\n{listener}")
        return self.live.start(CONFIG.format(files=self._files.options, app=app))

    def connect(self) -> Stream:
        sock = socket.create_connection(("127.0.0.1", self.port), 10)
        return Stream(self.context.wrap_socket(sock, server_hostname="localhost"))

    def curl(self, target: str, *options: str) -> subprocess.CompletedProcess[bytes]:
        words = [program("curl"), "-sS", "--ipv4", "--cacert", str(self.root), *options]
        return subprocess.run([*words, f"{self.url}{target}"], capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def authority() -> PublicAuthority:
    return PublicAuthority()


@pytest.fixture
def site(live: Live, authority: PublicAuthority) -> Site:
    return Site(live, authority)


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


# Whole bodies -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("http", ["--http1.1", "--http2"])
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_large_bodies_arrive_whole_in_both_directions(
    http: str, version: str, site: Site, tmp_path: Path
) -> None:
    """64 MiB up, and the same down."""
    file, back = tmp_path / "up", tmp_path / "down"
    with file.open("wb") as out:
        for block in blocks(LARGE):
            out.write(block)
    digest = _digest(file)
    with Sink() as app:
        site.start(app.address)
        only = [http, f"--tlsv{version}", "--tls-max", version]
        up = site.curl("/", *only, "-T", str(file), "-w", " %{http_version}")
        assert (up.returncode, up.stderr) == (0, b"")
        assert up.stdout.decode().split() == [digest, "2" if http == "--http2" else "1.1"]
        down = site.curl("/large", *only, "-o", str(back))
        assert (down.returncode, down.stderr) == (0, b"")
    assert _digest(back) == digest


# Whole ends -------------------------------------------------------------------------------------------------


def test_the_end_of_a_body_that_lasts_until_close_is_no_truncation(site: Site) -> None:
    """For HTTP/1.0 the end of the connection is the end of the body, so TLS must say that it is meant."""
    with Accepting() as app:
        sidecar = site.start(app.address)

        def serve_once() -> None:
            with app.accept() as server:
                server.read_message()
                server.send(b"HTTP/1.0 200 OK\r\n\r\nuntil the end")

        for options in (["--http1.0"], ["--http1.0", "--tls-max", "1.2"], ["--http1.1"], ["--http2"]):
            thread = threading.Thread(target=serve_once)
            thread.start()
            done = site.curl("/", *options)
            thread.join()
            assert (done.returncode, done.stdout, done.stderr) == (0, b"until the end", b""), options
    assert len(sidecar.wait_exchanges(4)) == 4


@pytest.mark.parametrize("options", [("--http1.0",), ("--http1.1",), ("--http2",)])
def test_a_body_that_is_cut_short_is_not_taken_for_whole(options: tuple[str, ...], site: Site) -> None:
    """The server dies in the middle: the client hears of it, in its version's way."""
    with Accepting() as app:
        sidecar = site.start(app.address)

        def serve_once() -> None:
            with app.accept() as server:
                server.read_message()
                server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")

        thread = threading.Thread(target=serve_once)
        thread.start()
        done = site.curl("/", *options)
        thread.join()
        assert b"hello".startswith(done.stdout)
        assert done.returncode != 0
        assert done.stderr
        (line,) = sidecar.wait_exchanges(1)
        assert line["reason"] == "response_incomplete"


@pytest.mark.parametrize("http", ["--http1.1", "--http2"])
def test_an_answer_that_comes_before_the_end_of_an_upload_is_heard(
    http: str, site: Site, tmp_path: Path
) -> None:
    """The client learns why its body is not wanted, though it is still sending it."""
    file = tmp_path / "up"
    file.write_bytes(bytes(200_000))
    with Sink() as app:
        site.start(app.address)
        for _ in range(5):
            done = site.curl("/small", http, "-H", "Expect:", "-T", str(file), "-w", "%{http_code}")
            assert (done.returncode, done.stderr) == (0, b"")
            assert done.stdout.endswith(b"413"), done.stdout


def test_an_upload_that_breaks_off_is_no_request(site: Site) -> None:
    """Whether the client leaves with a goodbye, without one, or with a reset."""
    with Accepting() as app:
        sidecar = site.start(app.address)
        for number, leave in enumerate(("goodbye", "end", "reset"), 1):
            stream = site.connect()
            stream.send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhalf")
            with app.accept() as server:
                server.read_head()
                assert server.read(4) == b"half"
                assert isinstance(stream.sock, ssl.SSLSocket)
                if leave == "goodbye":
                    with contextlib.suppress(ssl.SSLError):
                        stream.sock.settimeout(0.2)
                        stream.sock.unwrap()
                if leave == "reset":
                    stream.reset()
                else:
                    stream.close()
                assert server.is_ended()
            sidecar.wait_exchanges(number)
    assert [line["reason"] for line in sidecar.exchanges()] == ["client_gone"] * 3


# Clients of Python ------------------------------------------------------------------------------------------


def test_pythons_own_clients(site: Site) -> None:
    with Sink() as app:
        site.start(app.address)
        body = b"".join(blocks(1 << 20))
        digest = hashlib.sha256(body).hexdigest()
        kept = http.client.HTTPSConnection("localhost", site.port, context=site.context, timeout=20)
        with contextlib.closing(kept):
            for _ in range(3):
                kept.request("PUT", "/", body)
                assert kept.getresponse().read().decode() == digest
        asked = urllib.request.Request(site.url, body, method="PUT")
        with urllib.request.urlopen(asked, context=site.context, timeout=20) as answer:
            assert answer.read().decode() == digest


def test_httpx_over_both_versions(site: Site) -> None:
    with Sink() as app:
        sidecar = site.start(app.address)
        body = b"".join(blocks(1 << 20))
        digest = hashlib.sha256(body).hexdigest()
        for http2, version in ((True, "HTTP/2"), (False, "HTTP/1.1")):
            with httpx.Client(http2=http2, verify=site.context, trust_env=False, timeout=20) as client:
                for _ in range(3):
                    answer = client.put(site.url, content=body)
                    assert (answer.http_version, answer.text) == (version, digest)
        lines = sidecar.wait_exchanges(6)
    assert [line.get("protocol") for line in lines] == ["h2"] * 3 + [None] * 3


def test_a_websocket_carries_large_messages(site: Site) -> None:
    with websocket.echo() as address:
        site.start(address)
        where = f"wss://localhost:{site.port}/chat"
        with connect(where, ssl=site.context, max_size=None, proxy=None) as client:
            for message in ("hello", *(os.urandom(1 << 20) for _ in range(8))):
                client.send(message)
                assert client.recv(timeout=15) == message
            assert client.ping().wait(10)


def test_a_client_that_asked_for_the_end_gets_a_goodbye(site: Site) -> None:
    """close_notify: without it, clients cannot tell an end from an attack."""
    with Sink() as app:
        site.start(app.address)
        for version in ("-tls1_2", "-tls1_3"):
            asked = b"PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            said = s_client(site.port, version, send=asked)
            assert said.body.startswith(hashlib.sha256().hexdigest()), said
            assert said.is_ended_well, said
