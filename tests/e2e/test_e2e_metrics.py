"""`/metrics` of a real process, read as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from cryptography import x509

from tests.support import http2
from tests.support.certificates import Files
from tests.support.chain import PublicAuthority
from tests.support.http2 import Client, frame
from tests.support.live import Live, Sidecar, free_port, until
from tests.support.metrics import Numbers, parse
from tests.support.peers import Accepting, Stream, ask

CONFIG: Final = """
[sidecar]
admin = 127.0.0.1:{admin}
[route hello]
path = /hello
respond = 200 hello
"""
EXPIRY: Final = "sidecar_certificate_expiry_timestamp_seconds"


class Site:
    """A sidecar that is asked for its numbers."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self._admin = free_port()

    def start(self, more: str = "") -> Sidecar:
        return self.live.start(CONFIG.format(admin=self._admin) + more)

    def numbers(self) -> Numbers:
        return parse(ask(self._admin, "/metrics").body.decode())

    def until(self, condition: Callable[[Numbers], bool], what: str) -> Numbers:
        """The numbers once that holds."""
        return until(lambda: found if condition(found := self.numbers()) else None, what)


@pytest.fixture
def site(live: Live) -> Site:
    return Site(live)


def test_the_end_of_a_certificate_is_a_number_and_its_renewals_are_counted(
    site: Site, tmp_path: Path
) -> None:
    authority = PublicAuthority()
    files = Files(tmp_path, authority.issue("localhost", days=80))
    site.live.listen("tls = site")
    sidecar = site.start(f"[certificate site]\n{files.options}")
    key = EXPIRY, "site", str(files.certificate)
    before = _end(files)
    assert site.numbers()[key] == before
    files.rename(authority.issue("localhost", days=40))
    sidecar.wait_event("certificate_renewed")
    found = site.numbers()
    assert found[key] == _end(files) < before
    assert found["sidecar_certificate_renewed_total", "site"] == 1
    renewed = _end(files)
    files.certificate.write_text("nothing")
    sidecar.wait_event("certificate_refused", timeout=10)
    found = site.numbers()
    assert found["sidecar_certificate_refused_total", "site"] == 1
    assert found[key] == renewed


def _end(files: Files) -> float:
    return x509.load_pem_x509_certificate(files.certificate.read_bytes()).not_valid_after_utc.timestamp()


def test_attacks_are_counted_by_the_rule_that_they_break(site: Site) -> None:
    """Each of them, also those that the log leaves out."""
    sidecar = site.start()
    for _ in range(12):
        with Stream.connect(site.live.port) as stream:
            client = Client(stream)
            client.greet()
            client.send(frame(http2.PING, payload=bytes(8)) * 1200)
            assert client.ended_with() == (http2.ENHANCE_YOUR_CALM, "ping_flood")
    counted = "sidecar_http2_refused_total", "public", "ping_flood"
    found = site.until(lambda numbers: numbers.get(counted) == 12, "12 floods are counted")
    assert found["sidecar_events_total", "http2_refused"] == 12
    assert len(sidecar.wait_event("http2_refused", 10)) == 10


def test_failed_handshakes_and_clients_that_only_look_are_counted_apart(site: Site, tmp_path: Path) -> None:
    files = Files(tmp_path, PublicAuthority().issue("localhost"))
    site.live.listen("tls = site")
    sidecar = site.start(f"[certificate site]\n{files.options}")
    Stream.connect(site.live.port).close()
    with Stream.connect(site.live.port) as stream:
        stream.send(b"\x16\x03\x01\x00\x05hello")
        stream.read_all()
    names = "sidecar_tls_handshake_abandoned_total", "sidecar_tls_handshake_failed_total"
    site.until(lambda numbers: all(numbers.get((name, "public")) == 1 for name in names), "one of each")
    assert not sidecar.events("tls_handshake_abandoned")


def test_servers_connections_and_reloads(site: Site) -> None:
    with Accepting() as app:
        more = f"[upstream app]\nserver.a = {app.address}\nserver.b = 127.0.0.1:1 max_fails=1\n"
        sidecar = site.start(f"{more}[route app]\nupstream = app\n")
        with Stream.connect(site.live.port) as stream:
            stream.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            with app.accept() as server:
                server.read_message()
                found = site.numbers()
                assert found["sidecar_connections",] == 1
                assert found["sidecar_upstream_server_active", "app", app.address] == 1
                assert found["sidecar_upstream_server_usable", "app", "127.0.0.1:1"] == 1
        assert (found["sidecar_ready",], found["sidecar_configuration_last_reload_successful",]) == (1, 1)
        site.live.conf.write("20-bad.ini", "[route r]\npaht = /")
        sidecar.wait_event("reload_refused")
        assert site.numbers()["sidecar_configuration_last_reload_successful",] == 0
        site.live.conf.write("20-bad.ini", "")
        site.until(lambda found: found["sidecar_configuration_last_reload_successful",] == 1, "it is mended")
