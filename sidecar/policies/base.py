"""What a policy is: one concern of a route, wrapped around the rest of the path."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

from ..message import Handler, Request, Response
from ..routing.settings import RouteSettings


class Policy(ABC):
    """One concern of a route. It runs in the greenlet of the connection, so it may block.

    It may change the request it was given, and the edits of the response it returns; never a head.
    """

    __slots__ = ()

    @classmethod
    @abstractmethod
    def of(cls, settings: RouteSettings) -> Self | None:
        """The policy that a route's settings ask for; None when they ask for nothing: off means absent."""

    @abstractmethod
    def handle(self, request: Request, forward: Handler) -> Response:
        """Answer `request`, forwarding it never, once or several times."""


def wrap(policy: Policy, forward: Handler) -> Handler:
    """`policy` around `forward`."""
    handle = policy.handle

    def handler(request: Request) -> Response:
        return handle(request, forward)

    return handler
