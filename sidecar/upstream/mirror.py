"""A copy of some requests for another upstream: a new version on real traffic, its answers thrown away.

Law: the original neither waits for a copy nor fails with it. Copies are bounded in number. One is made when
all of the body is known, maybe after the original was answered; a body too large to be kept has none.
"""

from __future__ import annotations

from typing import Final

from ..errors import Failure, Malformed
from ..message import Handler, Request, Response
from ..net.body import RequestBody
from ..runtime import Tasks
from ..wire.head import LENGTH
from .relay import Relay

#: Copies in progress at one time; what comes on top is not copied.
_MOST: Final = 100
#: Bytes of an answer that are read so that its connection can be used again.
_LARGEST: Final = 1 << 20


class Copied:
    """The body of a copy: bytes in memory."""

    __slots__ = ("continued", "expects", "framing", "kept", "length", "moved")

    is_whole = True

    def __init__(self, content: bytes) -> None:
        self.kept = content
        self.framing = LENGTH
        self.length = len(content)
        self.moved = 0
        self.expects = self.continued = False

    def fill(self, size: int) -> None:
        """It is there."""

    def keep(self, limit: int) -> None:
        """It is kept."""


class Mirror:
    """A handler around another; `percent` of its requests go to `other` too. `largest`: bytes of a body."""

    __slots__ = ("_active", "_credit", "_handler", "_largest", "_other", "_percent", "_tasks", "skipped")

    def __init__(self, handler: Handler, other: Handler, percent: int, largest: int, tasks: Tasks) -> None:
        self._handler = handler
        self._other = other
        self._percent = percent
        self._largest = largest
        self._tasks = tasks
        self._credit = 0
        self._active = 0
        self.skipped = 0  # requests that should have been copied and were not

    def __call__(self, request: Request) -> Response:
        """What the original's upstream answers. Raises Failure."""
        self._credit += self._percent
        if self._credit < 100:
            return self._handler(request)
        self._credit -= 100
        body = request.body
        if body is not None:
            body.keep(self._largest)
        if body is None or body.kept is not None:
            self._copy(request, _copy_of(request))
            return self._handler(request)
        # Its end is known when it has passed; what is on the way may still change the request.
        copy = _copy_of(request)
        try:
            response = self._handler(request)
        except Failure:
            self._copy(request, copy)
            raise
        self._copy(request, copy)
        return response

    def _copy(self, request: Request, copy: Request) -> None:
        body: RequestBody | None = request.body
        content = None if body is None else body.content
        if self._active >= _MOST or (body is not None and content is None):
            self.skipped += 1
            return
        if content is not None:
            copy.body = Copied(content)
        self._tasks.spawn("mirror", self._send, copy)
        self._active += 1

    def _send(self, copy: Request) -> None:
        response = None
        try:
            response = self._other(copy)
            if isinstance(response.body, Relay):
                response.body.drain(_LARGEST)
        except (Failure, Malformed):
            # Passive health and the log of its servers' transitions tell; nobody waits for this answer.
            pass
        finally:
            self._active -= 1
            if response is not None and response.body is not None:
                response.body.close()


def _copy_of(request: Request) -> Request:
    copy = Request(request.head, request.path, request.client, request.scheme, request.listener)
    for name in (
        "endpoints",
        "host",
        "port",
        "extra",
        "drop",
        "host_header",
        "match",
        "route",
        "target",
        "tls",
    ):
        setattr(copy, name, getattr(request, name))
    return copy
