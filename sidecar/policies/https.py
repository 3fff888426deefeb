"""What a listener does around all its routes: send clients to HTTPS, and tell who they are by TLS."""

from __future__ import annotations

from typing import Final

from ..message import Handler, Request, Response
from ..net.client_address import CLIENT_CERTIFICATE_FIELDS
from ..net.https import https_redirect
from ..wire.head import Names, ResponseHead

_CLIENT_CERTIFICATE: Final = Names(CLIENT_CERTIFICATE_FIELDS)


def redirecting(handler: Handler, port: int) -> Handler:
    """`handler` for what may come in plain HTTP; the rest is sent to HTTPS on `port`. 0: all may.

    It raises Malformed("missing_host") when an HTTP/1.0 request that would be sent there names no host.
    """
    if not port:
        return handler

    def redirect(request: Request) -> Response:
        found = https_redirect(request, port)
        if found is None:
            return handler(request)
        status, location = found
        fields = [(b"Location", location)]
        return Response(ResponseHead.make(status, fields, length=0, request_method=request.head.method))

    return redirect


def certifying(handler: Handler, form: str) -> Handler:
    """`handler` for requests that carry what `form` (`client_certificate_header`) tells of the client.

    What came in such fields is left out: of strangers it always is, here also of trusted proxies.
    """
    if form == "off":
        return handler

    def certify(request: Request) -> Response:
        if request.tls is not None:
            request.extra += request.tls.client_lines(form)
        if request.drop is None:
            request.drop = _CLIENT_CERTIFICATE
        return handler(request)

    return certify
