"""TLS towards clients as `openssl s_client` sees it: names, protocols, versions, sessions, bad beginnings."""

from __future__ import annotations

import contextlib
import socket
import ssl
import statistics
import time

import pytest

from tests.support.certificates import Files
from tests.support.chain import PublicAuthority
from tests.support.live import Live, Sidecar
from tests.support.openssl import Said, s_client
from tests.support.peers import Stream

HELLO = "[route hello]\nrespond = 200 hello\n"


@pytest.fixture(scope="module")
def authority() -> PublicAuthority:
    return PublicAuthority()


class Site:
    """A sidecar with certificates for several names."""

    def __init__(self, live: Live, authority: PublicAuthority) -> None:
        self.live = live
        self.authority = authority
        self.root = live.folder / "root.pem"
        self.root.write_bytes(authority.pem)
        self.files: dict[str, Files] = {}

    @property
    def port(self) -> int:
        return self.live.port

    def certificate(self, name: str, *names: str, options: str = "", rsa: bool = False) -> str:
        """The section of a certificate for these names; with `rsa` it has an RSA one besides."""
        files = self.files[name] = Files(self.live.folder / name, self.authority.issue(*names))
        certificates, keys = [files.certificate], [files.key]
        if rsa:
            more = Files(self.live.folder / name, self.authority.issue(*names, rsa_bits=2048), "rsa-")
            certificates.append(more.certificate)
            keys.append(more.key)
        listed = [", ".join(map(str, paths)) for paths in (certificates, keys)]
        return f"[certificate {name}]\ncertificate = {listed[0]}\nkey = {listed[1]}\n{options}\n"

    def start(self, listener: str, *sections: str) -> Sidecar:
        self.live.listen(listener)
        return self.live.start("".join(sections) + HELLO)

    def asked(self, *options: str, **how: bytes) -> Said:
        """What s_client says; it knows the authority."""
        return s_client(self.port, "-CAfile", str(self.root), *options, **how)

    def hello(self, *options: str) -> Said:
        """The same, and it must have been served."""
        said = self.asked(*options)
        assert said.body.startswith("hello"), said
        assert said.is_ended_well, said
        return said


@pytest.fixture
def site(live: Live, authority: PublicAuthority) -> Site:
    return Site(live, authority)


# What is agreed upon ----------------------------------------------------------------------------------------


def test_the_name_that_a_client_asks_for_chooses_its_certificate(site: Site) -> None:
    site.start(
        "tls = first, shop, deep",
        site.certificate("first", "first.example"),
        site.certificate("shop", "*.shop.example", "shop.example"),
        site.certificate("deep", "api.shop.example"),
    )
    for name, subject in {
        "first.example": "first.example",
        "shop.example": "*.shop.example",
        "WWW.Shop.Example": "*.shop.example",
        "api.shop.example": "api.shop.example",
        "a.b.shop.example": "first.example",
        "unknown.example": "first.example",
    }.items():
        said = site.hello("-servername", name)
        assert (said.subject, said.is_verified) == (subject, True), name
    assert site.hello("-noservername").subject == "first.example"


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_each_version_is_spoken_with_the_certificate_that_a_client_takes(version: str, site: Site) -> None:
    site.start("tls = both", site.certificate("both", "localhost", rsa=True))
    only = f"-tls{version.replace('.', '_')}"
    both = site.hello(only)
    assert (both.version, both.kind, both.is_verified) == (f"TLSv{version}", "ECDSA", True)
    rsa = site.hello(only, "-sigalgs", "rsa_pss_rsae_sha256:ECDSA+SHA1")
    assert (rsa.version, rsa.kind, rsa.is_verified) == (f"TLSv{version}", "RSA-PSS", True)


def test_what_is_spoken_is_agreed_by_alpn(site: Site) -> None:
    site.start("tls = site", site.certificate("site", "localhost"))
    for offered in ("http/1.1", "http/1.0", ""):
        assert site.hello(*(["-alpn", offered] if offered else [])).alpn == offered
    for offered in ("http/1.1,h2", "h2,http/1.1", "h2", "foo,h2"):
        # What it sends then is no HTTP/2; that ends the connection, in order.
        said = site.asked("-alpn", offered)
        assert (said.alpn, said.is_ended_well) == ("h2", True), said


def test_a_listener_without_http2_does_not_offer_it(site: Site) -> None:
    site.start("tls = site\nhttp2 = off", site.certificate("site", "localhost"))
    assert site.hello("-alpn", "h2,http/1.1").alpn == "http/1.1"


def test_a_client_that_speaks_nothing_of_ours_hears_it_in_an_alert(site: Site) -> None:
    sidecar = site.start("tls = site\nhttp2 = off", site.certificate("site", "localhost"))
    for offered in ("h2", "spdy/3,foo"):
        said = site.asked("-alpn", offered)
        assert said.status == 1
        assert said.alert == "no application protocol", said
    events = sidecar.wait_event("tls_handshake_failed", 2)
    assert "application protocol" in events[0]["error"]


def test_old_versions_are_refused_with_an_alert(site: Site) -> None:
    site.start("tls = site", site.certificate("site", "localhost"))
    for version in ("-tls1", "-tls1_1"):
        said = site.asked(version, "-cipher", "DEFAULT@SECLEVEL=0")
        assert (said.status, said.version) == (1, "")
        assert said.alert == "protocol version"


def test_a_certificate_with_a_newer_least_version_has_it_alone(site: Site) -> None:
    """What a certificate demands holds for its names, not for the listener."""
    site.start(
        "tls = loose, strict",
        site.certificate("loose", "loose.example"),
        site.certificate("strict", "strict.example", options="min_version = 1.3"),
    )
    assert site.hello("-servername", "loose.example", "-tls1_2").version == "TLSv1.2"
    assert site.hello("-servername", "strict.example").version == "TLSv1.3"
    refused = site.asked("-servername", "strict.example", "-tls1_2")
    assert (refused.status, refused.alert) == (1, "protocol version"), refused.text


# Sessions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_a_session_is_resumed_across_a_reload_and_a_renewal(version: str, site: Site) -> None:
    sidecar = site.start(
        "tls = site, other",
        site.certificate("site", "localhost"),
        site.certificate("other", "other.example"),
    )
    kept = str(site.live.folder / "session")
    assert not site.hello(version, "-sess_out", kept).is_reused
    assert site.hello(version, "-sess_in", kept).is_reused
    site.live.conf.write("20-more.ini", "[route more]\npath = /more\nrespond = 200 more\n")
    sidecar.wait_event("reload_applied")
    assert site.hello(version, "-sess_in", kept).is_reused
    site.files["site"].rename(site.authority.issue("localhost"))
    sidecar.wait_event("certificate_renewed")
    assert site.hello(version, "-sess_in", kept).is_reused
    # A session belongs to its certificate: another name's is asked for anew.
    other = site.hello(version, "-sess_in", kept, "-servername", "other.example")
    assert (other.is_reused, other.subject) == (False, "other.example")


def test_a_session_of_another_process_costs_a_handshake_and_nothing_else(site: Site) -> None:
    section = site.certificate("site", "localhost")
    first = site.start("tls = site", section)
    kept = str(site.live.folder / "session")
    site.hello("-sess_out", kept)
    first.stop()
    site.start("tls = site", section)
    assert not site.hello("-sess_in", kept).is_reused


# Client certificates ----------------------------------------------------------------------------------------


def test_a_required_certificate_must_be_right(site: Site) -> None:
    """None, a stranger's, an expired and a revoked one are refused with an alert; the right one is served."""
    ca, crl = site.live.folder / "clients.pem", site.live.folder / "clients.crl"
    clients = PublicAuthority("Clients")
    right, bad = clients.issue("right"), clients.issue("bad")
    shown = {
        "right": right,
        "revoked": bad,
        "expired": clients.issue("late", days=-1),
        "stranger": PublicAuthority("Strangers").issue("right"),
    }
    ca.write_bytes(clients.pem)
    crl.write_bytes(clients.revoke(bad))
    options = f"client_ca = {ca}\nclient_crl = {crl}\nverify_client = require"
    sidecar = site.start("tls = site", site.certificate("site", "localhost", options=options))
    for version in ("-tls1_2", "-tls1_3"):

        def tried(name: str, version: str = version) -> Said:
            files = Files(site.live.folder / "clients", shown[name], f"{name}-")
            chain = ["-cert_chain", str(files.certificate)]
            return site.asked(version, "-cert", str(files.certificate), "-key", str(files.key), *chain)

        assert tried("right").body.startswith("hello")
        assert [tried(name).alert for name in ("revoked", "expired", "stranger")] == [
            "certificate revoked",
            "certificate expired",
            "unknown ca",
        ]
        none = site.asked(version)
        assert none.alert == ("certificate required" if version == "-tls1_3" else "handshake failure")
        assert none.body == ""
    assert len(sidecar.wait_event("tls_handshake_failed", 8)) == 8
    for event in sidecar.events("tls_handshake_failed"):
        assert event["error"]


# Bad beginnings ---------------------------------------------------------------------------------------------


def test_a_header_of_a_load_balancer_comes_before_the_handshake(site: Site) -> None:
    sidecar = site.start("tls = site\nproxy_protocol = require", site.certificate("site", "localhost"))
    context = ssl.create_default_context(cafile=str(site.root))
    sock = socket.create_connection(("127.0.0.1", site.port), 10)
    sock.sendall(b"PROXY TCP4 203.0.113.9 192.0.2.1 40000 443\r\n")
    with Stream(context.wrap_socket(sock, server_hostname="localhost")) as stream:
        assert stream.ask("GET", "/").body == b"hello"
    (line,) = sidecar.wait_exchanges(1)
    assert (line["client"], line["tls"]) == ("203.0.113.9", "TLSv1.3")
    with contextlib.suppress(OSError):
        assert site.asked().version == ""
    sidecar.wait_event("proxy_header_refused")


def test_plain_http_is_told_that_this_port_has_tls(site: Site) -> None:
    sidecar = site.start("tls = site", site.certificate("site", "localhost"))
    for start in (b"GET / HTTP/1.1\r\nHost: test\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
        with Stream.connect(site.port) as stream:
            stream.send(start)
            answer = stream.read_message()
            assert answer.status == 400
            assert b"this port speaks TLS" in answer.body, answer.body
            assert stream.is_ended()
    lines = sidecar.wait_exchanges(2)
    assert [(line["status"], line["reason"]) for line in lines] == [(400, "plain_http")] * 2


def _client_hello() -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


#: What scanners and lost clients send.
GARBAGE = {
    "zeros": b"\0" * 64,
    "a record that is too long": b"\x16\x03\x01\xff\xff" + b"\xaa" * 70_000,
    "a hello that is too short": b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
    "SSLv2": b"\x80\x2e\x01\x00\x02" + b"\x05" * 44,
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "an alert": b"\x15\x03\x01\x00\x02\x02\x28",
    "one byte": b"\x16",
    "nothing": b"",
}


def test_garbage_ends_the_connection_and_nothing_else(site: Site) -> None:
    site.start("tls = site\nheader_timeout = 1s", site.certificate("site", "localhost"))
    for what, data in GARBAGE.items():
        with Stream.connect(site.port) as stream:
            with contextlib.suppress(OSError):
                stream.send(data)
                if len(data) < 2:
                    stream.finish()
            assert len(stream.read_all()) < 600, what
    site.hello()


def test_half_a_handshake_is_cut_off_in_time(site: Site) -> None:
    """The time runs from the connection on: bytes that trickle in do not make it longer."""
    sidecar = site.start("tls = site\nheader_timeout = 1s", site.certificate("site", "localhost"))
    hello = _client_hello()
    began = time.monotonic()
    with Stream.connect(site.port) as silent, socket.create_connection(("127.0.0.1", site.port)) as slow:
        slow.settimeout(0.05)
        with contextlib.suppress(ConnectionError):
            for at in range(100):
                slow.send(hello[at : at + 1])
                with contextlib.suppress(TimeoutError):
                    if slow.recv(1) == b"":
                        break
        assert 0.8 < time.monotonic() - began < 3
        assert silent.read_all() == b""
    errors = [event["error"] for event in sidecar.wait_event("tls_handshake_failed", 2)]
    assert len(errors) == 2


@pytest.mark.alone
def test_slow_handshakes_delay_nobody(site: Site) -> None:
    """Two hundred clients that stop after their first flight; others are served as ever."""
    sidecar = site.start("tls = site\nheader_timeout = 60s", site.certificate("site", "localhost"))
    hello = _client_hello()
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(Stream.connect(site.port)).send(hello)
        context = ssl.create_default_context(cafile=str(site.root))
        times = []
        for _ in range(20):
            began = time.monotonic()
            sock = socket.create_connection(("127.0.0.1", site.port), 10)
            with Stream(context.wrap_socket(sock, server_hostname="localhost")) as stream:
                assert stream.ask("GET", "/").body == b"hello"
            times.append(time.monotonic() - began)
    usual = statistics.median(times)
    print(
        f"beside 200: one in {usual:.3f} s, the first in {times[0]:.3f} s, the slowest in {max(times):.3f} s"
    )
    assert usual < 0.2
    # All 200 are still there: each had its handshake begun and none is over.
    assert sidecar.events("tls_handshake_failed") == []


def test_clients_that_leave_early_are_an_event_and_no_more(site: Site) -> None:
    sidecar = site.start("tls = site", site.certificate("site", "localhost"))
    hello = _client_hello()
    with Stream.connect(site.port) as stream:
        stream.send(hello)
        assert stream.read(5)[0] == 22
    with Stream.connect(site.port) as stream:
        stream.send(hello)
        stream.read(5)
        stream.reset()
    sidecar.wait_event("tls_handshake_failed", 2)
    assert "Traceback" not in sidecar.log()
    site.hello()
