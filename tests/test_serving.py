"""What connections find of the generation that serves."""

from __future__ import annotations

from typing import Any

from sidecar.config.addresses import Address
from sidecar.message import Request, Response
from sidecar.net.settings import ListenerSettings
from sidecar.serving import Current, Serving
from sidecar.wire.head import ResponseHead


def handler(request: Request) -> Response:
    return Response(ResponseHead.make(200, [], length=0))


def serving(**options: Any) -> Serving:
    settings = ListenerSettings(bind=(Address("127.0.0.1", 80),), **options)
    return Serving("public", settings, handler, None, lambda *_, **__: None)


def test_the_settings_of_a_listener_are_at_hand() -> None:
    known = serving(header_timeout=3.0, idle_timeout=4.0, max_headers=7, max_streams=9, http2=False)
    assert (known.name, known.scheme, known.handler, known.tls, known.ended) == (
        "public",
        "http",
        handler,
        None,
        False,
    )
    assert (known.header_timeout, known.idle_timeout, known.limits.max_headers) == (3.0, 4.0, 7)
    assert (known.max_streams, known.http2) == (9, False)


def test_a_reload_puts_another_in() -> None:
    before, after = serving(), serving()
    current = Current(before)
    current.serving = after
    assert current.serving is after
