"""Certificates of a real process: chosen by name, renewed under load, refused when they are broken."""

from __future__ import annotations

import contextlib
import hashlib
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import echo_server
from tests.support.certificates import Authority, Files, Issued, Secret
from tests.support.chain import PublicAuthority
from tests.support.live import Live, Sidecar, tell, until
from tests.support.load import Load, echo
from tests.support.peers import Stream
from tests.support.programs import program

#: Renewals under load, one after the other. 1,000 take some minutes: change it here for that.
RENEWALS = 100
CLIENTS = 4
#: Requests that a client makes on one connection before it takes another.
ON_ONE = 20
#: Seconds within which a renewed certificate is in use.
SOON = 1.0

CONFIG = """
[sidecar]
access_log = off
[certificate site]
{options}
[upstream load]
server.a = 127.0.0.1:{load}
[route load]
upstream = load
"""


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def _connect(port: int, context: ssl.SSLContext, name: str = "a.example") -> tuple[Stream, str]:
    """A connection, and the serial number of the certificate that it got."""
    sock = socket.create_connection(("127.0.0.1", port), 20)
    try:
        secure = context.wrap_socket(sock, server_hostname=name)
    except BaseException:
        sock.close()
        raise
    shown = secure.getpeercert()
    assert shown is not None
    return Stream(secure), str(shown["serialNumber"])


def _served(port: int, context: ssl.SSLContext, name: str = "a.example") -> str:
    stream, serial = _connect(port, context, name)
    stream.close()
    return serial


def _await(port: int, context: ssl.SSLContext, issued: Issued) -> float:
    """Wait until new connections get this certificate; the seconds that it took."""
    began = time.monotonic()
    until(lambda: _served(port, context) == issued.serial, "the new certificate is in use", 10)
    return time.monotonic() - began


class _Load(Load):
    """Clients that ask, on connections they keep and on new ones."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        super().__init__(CLIENTS)
        self._port = port
        self._context = context
        self.serials: set[str] = set()

    def _connection(self, number: int) -> Iterator[None]:
        stream, serial = _connect(self._port, self._context)
        self.serials.add(serial)
        with stream:
            for at in range(ON_ONE):
                size = (90, 2_000, 20_000)[at % 3]
                answer = stream.ask("GET", f"/bytes/{size}")
                assert answer.status == 200, answer.start
                assert answer.body == echo_server.pattern(size), "another body"
                yield


def _start(live: Live, files: Files | Secret, load: int) -> Sidecar:
    live.listen("tls = site")
    return live.start(CONFIG.format(options=files.options, load=load))


@contextlib.contextmanager
def _loaded(port: int, context: ssl.SSLContext) -> Iterator[_Load]:
    """Load, and a connection from before that must live through all of it."""
    lasting, _ = _connect(port, context)
    load = _Load(port, context)
    load.start()
    try:
        until(lambda: load.done > 100 or load.errors, "the load has begun", 20)
        yield load
        body = hashlib.sha512(b"lasting").digest()
        assert lasting.ask("POST", "/echo", body).body == body
    finally:
        load.stop()
        lasting.close()


def test_curl_is_served(live: Live, authority: Authority, tmp_path: Path) -> None:
    files = Files(tmp_path / "tls", authority.issue("a.example"))
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    live.listen("tls = site")
    live.start(f"[certificate site]\n{files.options}[route a]\nrespond = 200 hello\n")
    asked = [program("curl"), "-sS", "--cacert", str(tmp_path / "ca.pem"), "--http1.1"]
    asked += ["--resolve", f"a.example:{live.port}:127.0.0.1", f"https://a.example:{live.port}/"]
    for version in (["--tlsv1.3"], ["--tls-max", "1.2"]):
        done = subprocess.run([*asked, *version], capture_output=True, text=True, timeout=20)
        assert (done.returncode, done.stdout, done.stderr) == (0, "hello", "")


def test_renewals_under_load_lose_nothing(live: Live, authority: Authority, tmp_path: Path) -> None:
    """One renewal after the other, in each way that people make them; every one is in use within a second."""
    context = authority.trust()
    files = Files(tmp_path / "tls", authority.issue("a.example"))
    slowest = 0.0
    with echo() as port:
        sidecar = _start(live, files, port)
        with _loaded(live.port, context) as load:
            for number in range(RENEWALS):
                issued = authority.issue("a.example")
                (files.rename if number % 2 else files.write)(issued)
                slowest = max(slowest, _await(live.port, context, issued))
        print(
            f"renewals {RENEWALS}, requests {load.done}, errors {len(load.errors)}, slowest {slowest:.3f} s"
        )
        assert load.errors == []
        assert len(sidecar.wait_event("certificate_renewed", RENEWALS)) == RENEWALS
        assert sidecar.events("certificate_refused") == []
        assert len(load.serials) > RENEWALS / 10
        assert slowest < SOON


def test_a_mounted_secret_is_renewed_under_load(live: Live, authority: Authority, tmp_path: Path) -> None:
    context = authority.trust()
    secret = Secret(tmp_path / "secret", authority.issue("a.example"))
    with echo() as port:
        sidecar = _start(live, secret, port)
        with _loaded(live.port, context) as load:
            for _ in range(10):
                issued = authority.issue("a.example")
                secret.swap(issued)
                assert _await(live.port, context, issued) < SOON
        assert load.errors == []
        assert sidecar.events("certificate_refused") == []


def test_a_live_directory_of_links_is_renewed(live: Live, authority: Authority, tmp_path: Path) -> None:
    """As certbot does it: new files in the archive, then one link after the other."""
    context = authority.trust()
    archive, links = tmp_path / "archive", tmp_path / "live"
    links.mkdir()
    files = Files(archive, authority.issue("a.example"), "1-")

    def link(of: Files) -> None:
        for name, file in (("fullchain.pem", of.certificate), ("privkey.pem", of.key)):
            (links / "new").symlink_to(f"../archive/{file.name}")
            (links / "new").rename(links / name)

    link(files)
    live.listen("tls = site")
    options = f"certificate = {links}/fullchain.pem\nkey = {links}/privkey.pem\n"
    sidecar = live.start(f"[certificate site]\n{options}[route a]\nrespond = 200\n")
    for number in range(2, 5):
        issued = authority.issue("a.example")
        link(Files(archive, issued, f"{number}-"))
        assert _await(live.port, context, issued) < SOON
    assert sidecar.events("certificate_refused") == []


def test_a_broken_renewal_is_refused_and_the_old_one_serves(
    live: Live, authority: Authority, tmp_path: Path
) -> None:
    context = authority.trust()
    before = authority.issue("a.example")
    files = Files(tmp_path / "tls", before)
    with echo() as port:
        sidecar = _start(live, files, port)
        with _loaded(live.port, context) as load:
            files.key.write_bytes(authority.issue("a.example").key)
            (event,) = sidecar.wait_event("certificate_refused", timeout=10)
            assert event["file"] == str(files.key)
            assert event["error"] == "the key does not belong to the certificate"
            assert load.serials == {before.serial}
            assert _served(live.port, context) == before.serial
            sidecar.signal(signal.SIGHUP)
            sidecar.wait_event("reload_unchanged")
            issued = authority.issue("a.example")
            files.rename(issued)
            assert _await(live.port, context, issued) < SOON
        assert load.errors == []
        assert len(sidecar.events("certificate_refused")) == 1


def test_two_certificates_of_a_listener(live: Live, authority: Authority, tmp_path: Path) -> None:
    one, two = authority.issue("a.example"), authority.issue("*.b.example")
    live.listen("tls = one, two")
    live.start(
        f"[certificate one]\n{Files(tmp_path / 'one', one).options}"
        f"[certificate two]\n{Files(tmp_path / 'two', two).options}"
        "[route a]\nrespond = 200\n"
    )
    context = authority.trust()
    assert _served(live.port, context) == one.serial
    assert _served(live.port, context, "x.b.example") == two.serial


def test_check_tells_what_is_wrong_with_files(live: Live, authority: Authority, tmp_path: Path) -> None:
    files = Files(tmp_path / "tls", authority.issue("a.example"))
    live.listen("tls = site")
    file = live.conf.write("10-site.ini", f"[certificate site]\n{files.options}")
    done = tell("check", "--conf", str(live.conf.path))
    assert done.returncode == 0
    doubt = f"{file}:2: [certificate site] certificate: {files.certificate}: holds no chain"
    assert f"warning: {doubt}" in done.stderr
    files.key.write_bytes(b"no key")
    done = tell("check", "--conf", str(live.conf.path))
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{file}:3: [certificate site] key: {files.key}: no key is in it" in done.stderr
    shown = tell("show", "--conf", str(live.conf.path)).stdout
    assert str(files.key) in shown
    assert "no key" not in shown


def test_a_broken_certificate_stops_the_start(live: Live, authority: Authority, tmp_path: Path) -> None:
    files = Files(tmp_path / "tls", authority.issue("a.example"))
    files.key.unlink()
    live.listen("tls = site")
    sidecar = live.launch(config=f"[certificate site]\n{files.options}")
    assert sidecar.wait_exit() == 1
    assert any(f"{files.key}: does not exist" in line for line in sidecar.complaints())


def test_a_list_of_the_revoked_that_is_over_is_told_and_renewed(
    live: Live, authority: Authority, tmp_path: Path
) -> None:
    """OpenSSL refuses everybody by it, so whoever forgets it should hear of it before."""
    clients = PublicAuthority("Clients")
    shown = Files(tmp_path / "client", clients.issue("right"))
    ca, crl = tmp_path / "clients.pem", tmp_path / "clients.crl"
    ca.write_bytes(clients.pem)
    crl.write_bytes(clients.revoke(days=0.5))
    files = Files(tmp_path / "tls", authority.issue("a.example"))
    options = f"client_ca = {ca}\nclient_crl = {crl}\nverify_client = require\n"
    live.listen("tls = site")
    file = live.conf.write(
        "10-site.ini", f"[certificate site]\n{files.options}{options}[route a]\nrespond = 200\n"
    )
    said = f"[certificate site] client_crl: {crl}: the list of CN=Clients Intermediate"
    done = tell("check", "--conf", str(live.conf.path))
    assert done.returncode == 0
    assert said not in done.stderr, "of half a day, nearly all is left"
    crl.write_bytes(clients.revoke(days=-1.5))
    done = tell("check", "--conf", str(live.conf.path))
    assert done.returncode == 0
    assert f"warning: {file}:5: {said} expired 1 day ago, so clients are refused: renew it" in done.stderr

    sidecar = live.start()
    (event,) = sidecar.wait_event("certificate_expires")
    assert (event["about"], event["issuer"], event["days"]) == ("client_crl", "CN=Clients Intermediate", -2)
    context = authority.trust()
    context.load_cert_chain(shown.certificate, shown.key)

    def is_served() -> bool:
        try:
            with _connect(live.port, context)[0] as stream:
                return stream.ask("GET", "/").status == 200
        except (OSError, EOFError):
            return False

    assert not is_served()
    sidecar.wait_event("tls_handshake_failed")
    crl.write_bytes(clients.revoke())
    sidecar.wait_event("certificate_renewed")
    until(is_served, "a client is served again")
