"""The order of the policies, the handler of a route that is made by it, and what is around all routes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..message import Handler, Request, Response
from ..net.https import HSTS_FIELD
from ..net.settings import ListenerSettings
from ..routing.settings import RouteSettings
from .answer import answer
from .base import Policy, wrap
from .body_limit import BodyLimit
from .headers import RequestHeaders, ResponseHeaders
from .https import certifying, redirecting
from .rewrite import HostHeader, Rewrite

Edit = Callable[[Request, Response], None]

#: Outermost first: the order a request meets them, the reverse of the order its response does.
ORDER: Final[tuple[type[Policy], ...]] = (
    ResponseHeaders,  # every answer of the route carries them, also those that policies below give
    BodyLimit,  # nothing below is done for a request that is refused for its size
    RequestHeaders,  # before all that looks at what the upstream will get
    HostHeader,  # the name by which the upstream is asked belongs to what it gets
    Rewrite,  # everything below sees the target the upstream will see
)


def chain(settings: RouteSettings, end: Handler | None) -> Handler:
    """The handler of a route: its policies around `end`; with no policy configured it is `end` itself.

    Without `end` the route ends in its `redirect` or `respond`. Raises ValueError when it has neither.
    """
    handler = end or answer(settings)
    if handler is None:
        raise ValueError("a route without an action has no end")
    for policy in reversed(ORDER):
        made = policy.of(settings)
        if made is not None:
            handler = wrap(made, handler)
    return handler


def failure_edit(settings: RouteSettings) -> Edit | None:
    """What the route does to the response of a failure, which meets no policy on its way; None: nothing."""
    headers = ResponseHeaders.of(settings)
    return None if headers is None else headers.edit


def around(settings: ListenerSettings, routes: Handler) -> Handler:
    """The handler of a listener: `routes`, within what holds for all of them; mostly `routes` itself."""
    # What only the other kind of listener does may stand in `[defaults listener]`.
    if settings.tls:
        handler = certifying(routes, settings.client_certificate_header)
    else:
        handler = redirecting(routes, settings.https_redirect)
    hsts = _hsts(settings)
    return handler if hsts is None else wrap(hsts, handler)


def failure_edit_around(settings: ListenerSettings, routes: Edit) -> Edit:
    """What a listener does to the response of a failure, after `routes`; mostly `routes` itself."""
    hsts = _hsts(settings)
    if hsts is None:
        return routes
    own = hsts.edit

    def edit(request: Request, response: Response) -> None:
        routes(request, response)
        own(request, response)

    return edit


def _hsts(settings: ListenerSettings) -> ResponseHeaders | None:
    if settings.hsts is None or not settings.tls:
        return None
    return ResponseHeaders.always(HSTS_FIELD, settings.hsts.value)
