"""Who the client is by TLS, with real handshakes: what routes and upstreams make of it."""

from __future__ import annotations

import datetime
import json
import socket
import ssl
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from typing import Any

import pytest

from sidecar.wire.certificate import parse, pem_blocks
from tests.support.certificates import Authority, Files
from tests.support.live import Live, Sidecar, free_port, tell
from tests.support.peers import Answering, Stream
from tests.support.programs import program

EXPIRED = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)

CONFIG = """\
[certificate site]
{site}
client_ca = {ca}
verify_client = optional
[upstream app]
server.a = {app}
[route echo]
path = /echo
upstream = app
request_header.X-Client = {{tls.client_verify}} {{tls.client_dns}}
[route cart]
path = /who
tls.client_dns = cart.example
tls.version = TLSv1.3
respond = 200 cart {{tls.client_serial}} {{tls.resumed}}
[route anybody]
path = /who
respond = 403 {{tls.client_verify}}|{{tls.client_subject}}
"""


class Site:
    """A sidecar that asks its clients for certificates on `port`, with what is configured there besides."""

    def __init__(self, live: Live, app: str) -> None:
        self.live = live
        self.authority = Authority()
        self.port = free_port()
        self._ca = live.folder / "ca.pem"
        self._ca.write_bytes(self.authority.pem)
        self._site = Files(live.folder / "site", self.authority.issue("localhost"))
        self._app = app

    def start(self, options: str = "hsts = 1y") -> Sidecar:
        listener = f"[listener secure]\nbind = 127.0.0.1:{self.port}\ntls = site\n{options}\n"
        config = CONFIG.format(site=self._site.options, ca=self._ca, app=self._app)
        return self.live.start(listener + config)

    def client(self, *names: str, authority: Authority | None = None, **options: Any) -> Files:
        return Files(self.live.folder / "client", (authority or self.authority).issue(*names, **options))

    def context(self, files: Files | None = None) -> ssl.SSLContext:
        context = self.authority.trust()
        if files is not None:
            context.load_cert_chain(files.certificate, files.key)
        return context

    def connect(self, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> Stream:
        sock = socket.create_connection(("127.0.0.1", self.port), 10)
        return Stream(context.wrap_socket(sock, server_hostname="localhost", session=session))

    def who(self, files: Files | None) -> tuple[int, str]:
        with self.connect(self.context(files)) as stream:
            answer = stream.ask("GET", "/who")
            return answer.status, answer.body.decode()


@pytest.fixture
def site(live: Live) -> Iterator[Site]:
    with Answering() as app:
        yield Site(live, app.address)


def test_routes_are_chosen_by_a_certificate_that_is_verified(site: Site) -> None:
    site.start()
    cart = site.client("other.example", "cart.example")
    serial = parse(pem_blocks(cart.certificate.read_bytes())[0]).serial
    assert site.who(cart) == (200, f"cart {serial} off")
    assert site.who(None) == (403, "none|")
    status, said = site.who(site.client("shop.example", common_name="shop"))
    assert (status, said.split(",")[0]) == (403, "success|CN=shop")
    for stranger in ({"authority": Authority()}, {"not_after": EXPIRED}):
        status, said = site.who(site.client("cart.example", **stranger))
        assert (status, said[:8], said[-1]) == (403, "failed: ", "|")


def test_a_client_that_shows_a_certificate_shows_it_each_time(site: Site) -> None:
    """A session that is resumed is not looked up in the list of those revoked, so there is none."""
    site.start()
    context = site.context(site.client("cart.example"))
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    with site.connect(context) as stream:
        assert stream.ask("GET", "/who").body.endswith(b" off")
        session = stream.sock.session  # type: ignore[attr-defined]
    with site.connect(context, session) as stream:
        again = stream.ask("GET", "/who")
        assert (again.status, again.body.split()[-1]) == (200, b"off")


@pytest.mark.parametrize("form", ["off", "x-forwarded-client-cert", "client-cert"])
@pytest.mark.parametrize("trusted", ["", "127.0.0.1"])
def test_upstreams_hear_of_a_certificate_and_strangers_cannot_claim_one(
    form: str, trusted: str, site: Site
) -> None:
    site.start(f"client_certificate_header = {form}\ntrusted_proxies = {trusted}\n")
    cart = site.client("cart.example", common_name="cart")
    claims = {"X_Forwarded_Client_Cert": "Hash=0", "Client_Cert": ":ZXZpbA==:"}

    def heard(files: Files | None) -> dict[str, str]:
        with site.connect(site.context(files)) as stream:
            fields = json.loads(stream.ask("GET", "/echo", **claims).body)["fields"]
        kept = ("x-forwarded-client-cert", "client-cert", "x-client")
        return {name: fields[name] for name in kept if name in fields}

    believed = {"x-forwarded-client-cert": "Hash=0", "client-cert": ":ZXZpbA==:"}
    passed = believed if trusted and form == "off" else {}
    assert heard(None) == passed | {"x-client": "none"}
    found = heard(cart)
    assert found.pop("x-client") == "success cart.example"
    (der,) = pem_blocks(cart.certificate.read_bytes())
    if form == "client-cert":
        assert b64decode(found.pop("client-cert").strip(":")) == der
    elif form != "off":
        told = found.pop("x-forwarded-client-cert")
        assert told.startswith(f'Hash={parse(der).sha256};Subject="CN=cart,')
        assert told.endswith(";DNS=cart.example")
    assert found == passed


def test_the_log_tells_who_came(site: Site) -> None:
    sidecar = site.start()
    site.who(site.client("cart.example", common_name="cart"))
    site.who(None)
    first, second = sidecar.wait_exchanges(2)
    assert (first["tls"], first["client_cert"].split(",")[0]) == ("TLSv1.3", "CN=cart")
    assert second["tls"] == "TLSv1.3"
    assert "client_cert" not in second


def test_only_answers_over_tls_have_hsts_failures_too(site: Site) -> None:
    site.start()
    for target, status in (("/who", 403), ("/nothing", 404)):
        with site.connect(site.context()) as stream:
            answer = stream.ask("GET", target)
        assert (answer.status, answer.fields["strict-transport-security"]) == (status, "max-age=31536000")
        with Stream.connect(site.live.port) as plain:
            assert "strict-transport-security" not in plain.ask("GET", target).fields


def test_curl_follows_to_https_and_remembers(site: Site) -> None:
    site.live.listen(f"https_redirect = {site.port}")
    sidecar = site.start()
    known = site.live.folder / "hsts"
    curl = [
        program("curl"),
        "--silent",
        "--location",
        "--cacert",
        site.live.folder / "ca.pem",
        "--hsts",
        known,
    ]
    url = f"http://localhost:{site.live.port}/who"
    done = subprocess.run([*curl, "--ipv4", url], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout == "none|"
    assert "localhost" in known.read_text()
    first, second = sidecar.wait_exchanges(2)
    assert (first["listener"], first["status"], second["listener"]) == ("public", 301, "secure")


def test_explain_tells_what_a_certificate_would_do(site: Site) -> None:
    site.live.listen()
    site.start()
    cart = site.client("cart.example")
    url = f"https://localhost:{site.port}/who"
    told = tell("explain", url, "--conf", str(site.live.conf.path), "--client-cert", str(cart.certificate))
    assert "  route     cart (" in told.stdout
    told = tell("explain", url, "--conf", str(site.live.conf.path))
    assert "tls.client_dns needs a client certificate that is verified: none" in told.stdout
