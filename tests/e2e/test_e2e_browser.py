"""A real browser through the sidecar: HTTP/2, WebSocket as a stream, events, streams, redirect and HSTS."""

from __future__ import annotations

import hashlib

import pytest

from tests.support import websocket
from tests.support.browser import INSTALLATION, PARTS, TICKS, App, chromium
from tests.support.certificates import Files
from tests.support.chain import PublicAuthority
from tests.support.live import Live, free_port

CONFIG = """
[listener secure]
bind = 127.0.0.1:{secure}
tls = shop
hsts = 1y
[certificate shop]
{files}
[upstream app]
server.a = {app}
[upstream chat]
server.a = {chat}
[route shop]
upstream = app
[route chat]
path = /chat
upstream = chat
"""


@pytest.mark.timeout(INSTALLATION + 120)
def test_a_page_works_as_it_did_without_the_sidecar(live: Live) -> None:
    """It comes by a redirect, over HTTP/2; then the browser takes no step in plain HTTP any more."""
    issued = PublicAuthority().issue("shop.example")
    secure = free_port()
    live.listen("https_redirect = on")
    with App() as app, websocket.echo() as chat:
        files = Files(live.folder / "tls", issued).options
        sidecar = live.start(CONFIG.format(secure=secure, files=files, app=app.address, chat=chat))
        places = {"shop.example:80": live.port, "shop.example:443": secure}
        with chromium(live.folder / "browser", "http://shop.example/", issued.certificate, places):
            said = app.report("/")
            again = app.report("/again")
    assert said["page"] == "https://shop.example/"
    assert again["page"] == "https://shop.example/again"
    sent = bytes(number % 251 for number in range(3_000_000))
    for report in (said, again):
        assert report["parts"] == "whole"
        assert report["chat"] == ["hello", 1_000_000, True, 1000, True]
        assert report["ticks"] == [str(number) for number in range(TICKS)]
        assert report["stream"] == ["one", "two", "three"]
        assert report["upload"] == [len(sent), hashlib.sha256(sent).hexdigest()]
        assert set(report["protocols"]) == {"h2"}
        assert report["protocols"]["h2"] > PARTS
    lines = sidecar.wait_exchanges(1)
    plain = [(line["path"], line["status"]) for line in lines if line["listener"] == "public"]
    assert plain == [("/", 301)]
    assert all(line["protocol"] == "h2" for line in lines if line["listener"] == "secure")
    # A stream of the connection that is there already (RFC 8441), not a connection of its own.
    assert [line["path"] for line in lines].count("/chat") == 2
