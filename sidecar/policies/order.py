"""The order of the policies, and the handler of a route that is made by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..message import Handler, Request, Response
from ..routing.settings import RouteSettings
from .answer import answer
from .base import Policy, wrap
from .body_limit import BodyLimit
from .headers import RequestHeaders, ResponseHeaders
from .rewrite import HostHeader, Rewrite

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


def failure_edit(settings: RouteSettings) -> Callable[[Request, Response], None] | None:
    """What the route does to the response of a failure, which meets no policy on its way; None: nothing."""
    headers = ResponseHeaders.of(settings)
    return None if headers is None else headers.edit
