"""Keeps a client from asking, on a connection that was opened for one name, for what another name protects.

A certificate is chosen by the name in the handshake (SNI), and with it what the client must show. A Host that
stands for other demands gets 421 (RFC 9110 section 15.5.20): the client asks again on a connection for it.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import Failure
from ..message import Handler, Request, Response


def directed(handler: Handler, demands: Callable[[str], object]) -> Handler:
    """`handler` for requests whose host demands the same as the name their connection was opened for.

    `demands(name)` tells what a client has to show for a name; the empty name: of a client without SNI.
    """

    def handle(request: Request) -> Response:
        tls = request.tls
        if tls is not None and demands(request.host) != demands(tls.sni):
            raise Failure("misdirected_request", f"opened for {tls.sni or 'no name'}")
        return handler(request)

    return handle
