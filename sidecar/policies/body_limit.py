"""The bound on a request's body: `max_body_size`."""

from __future__ import annotations

from typing import Self

from ..message import Handler, Request, Response
from ..routing.settings import RouteSettings
from .base import Policy


class BodyLimit(Policy):
    """Refuses a body that is too large: at once when its length says so, else when it has grown too far."""

    __slots__ = ("_limit",)

    def __init__(self, limit: int) -> None:
        self._limit = limit

    @classmethod
    def of(cls, settings: RouteSettings) -> Self | None:
        """The policy for `max_body_size`; None when it is off."""
        return cls(settings.max_body_size) if settings.max_body_size else None

    def handle(self, request: Request, forward: Handler) -> Response:
        """Forward with the bound set. Raises Failure("request_body_too_large")."""
        if request.body is not None:
            request.body.bound(self._limit)
        return forward(request)
