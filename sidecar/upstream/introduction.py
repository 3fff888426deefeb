"""What a server hears of the client before its first byte: a PROXY header, when the upstream sends them.

Law: a connection that was introduced is its client's alone. It is never pooled, and no other takes it over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..message import Request
from ..net.endpoints import Endpoints, endpoints
from ..wire.proxy_protocol import LOCAL, render

#: The bytes that introduce the client of a request.
Introduce = Callable[[Request], bytes]

_VERSIONS: Final = {"v1": 1, "v2": 2}


def introduction(send_proxy: str) -> Introduce | None:
    """What to send ahead of a request; None: nothing."""
    version = _VERSIONS.get(send_proxy)
    if version is None:
        return None

    def introduce(request: Request) -> bytes:
        source, destination = _endpoints(request)
        return render(version, source, destination)

    return introduce


def _endpoints(request: Request) -> Endpoints:
    """Those of the client's connection, with the client as the proxies in front of us tell it."""
    if request.endpoints is not None:
        source, destination = request.endpoints
    elif request.client_channel is not None:
        source, destination = endpoints(request.client_channel)
    else:  # a copy, which goes on when its client has left
        source = destination = None
    if source is None or source[0] != request.client:
        # Fields of a trusted proxy name an address, and no port of it.
        source = None if destination is None else (request.client, 0)
    return Endpoints(source, destination)


def own_introduction(send_proxy: str) -> bytes:
    """What to send ahead on connections for the proxy's own purposes."""
    version = _VERSIONS.get(send_proxy)
    return b"" if version is None else LOCAL[version]
