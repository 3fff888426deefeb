# cython: language_level=3, annotation_typing=False
"""The end of a TCP route: a connection to a server for one client's, and both joined byte for byte.

Law: whatever server is chosen is given back, exactly once: here when it could not be reached, else by the end
of the connection. Until a server is reached nothing was sent to any, so another one may always be asked.
"""

from __future__ import annotations

from ..errors import Broken, Failure
from ..message import Attempt, Request
from ..net.channel import Channel
from ..net.flow import Flow, pump
from ..wire.head import CLOSE
from .exchange import Terms
from .group import Group
from .guard import Guard
from .retry import COUNTED, Retry
from .server import Server


class Link:
    """A connection to a server, in the service of one client."""

    __slots__ = ("_attempt", "_channel", "_server", "_started", "_terms")

    def __init__(
        self, terms: Terms, server: Server, channel: Channel, attempt: Attempt, started: float
    ) -> None:
        self._terms = terms
        self._server = server
        self._channel = channel
        self._attempt = attempt
        self._started = started

    def join(self, client: Channel) -> str:
        """Move bytes both ways until both sides have ended; each end is passed on. The reason of another end.

        client_gone and connection_terminated: that side reset the connection, and so does the proxy with the
        other, which must not take what it got for all. tunnel_idle: both were silent for too long.
        """
        server = self._channel
        up = Flow(client, server, CLOSE, 0, CLOSE, 0, 0)
        down = Flow(server, client, CLOSE, 0, CLOSE, 0, 0)
        up.half_close = down.half_close = True
        try:
            pump(up, down, None, None, False, self._terms.timeouts.tunnel)
        except Broken as broken:
            if broken.what == "timeout":
                self._attempt.reason = "tunnel_idle"
                return "tunnel_idle"
            self.abort()
            client.abort()
            if broken.side == ("source" if up.broken is not None else "sink"):
                return "client_gone"
            self._attempt.reason = "connection_terminated"
            return "connection_terminated"
        return ""

    def abort(self) -> None:
        """Cut the connection off: the server must not take what it got for all."""
        self._channel.abort()

    def close(self) -> None:
        """Close the connection, and give the server back."""
        self._attempt.total = self._terms.now() - self._started
        self._channel.close()
        self._server.give_back()


class Connect:
    """Connects to a group of servers: one is dialed, and another when it cannot be reached."""

    __slots__ = ("_group", "_guard", "_retry", "_terms")

    def __init__(self, group: Group, retry: Retry, terms: Terms, guard: Guard | None = None) -> None:
        self._group = group
        self._retry = retry
        self._terms = terms
        self._guard = guard

    def __call__(self, request: Request) -> Link:
        """A connection for `request`, of which only the client and its name are known. Raises Failure."""
        return self._serve(request) if self._guard is None else self._guard.connect(request, self._serve)

    def _serve(self, request: Request) -> Link:
        began = self._terms.now()
        server = self._group.choose(request, began)
        tried = [server]
        try:
            return self._dial(request, server)
        except Failure as error:
            failure = error
        while (following := self._following(request, tried, began, failure)) is not None:
            tried.append(following)
            try:
                return self._dial(request, following)
            except Failure as error:
                failure = error
            finally:
                self._group.retried()
        raise failure

    def _following(
        self, request: Request, tried: list[Server], began: float, failure: Failure
    ) -> Server | None:
        """The server that is dialed next, taken; None: what the last one did is final."""
        retry = self._retry
        now = self._terms.now()
        if not retry.allows(request, len(tried)) or not retry.after_failure(failure, request):
            return None
        if retry.timeout and now - began >= retry.timeout:
            return None
        return self._group.choose_other(request, now, tried)

    def _dial(self, request: Request, server: Server) -> Link:
        """Gives the server back on failure."""
        now = self._terms.now
        started = now()
        attempt = Attempt(server.name)
        request.attempts.append(attempt)
        try:
            channel = self._connected(request, server)
        except BaseException as error:
            attempt.total = now() - started
            if isinstance(error, Failure):
                attempt.reason = error.reason
            if isinstance(error, Failure) and error.reason in COUNTED:
                server.failed(now())
            elif server.observer is not None:
                # It was cut off, or we ourselves are short of something: that says nothing about the server.
                server.observer(server, None, 0.0)
            server.give_back()
            raise
        attempt.connect = now() - started
        server.succeeded(started + attempt.connect, 0, attempt.connect)
        return Link(self._terms, server, channel, attempt, started)

    def _connected(self, request: Request, server: Server) -> Channel:
        terms = self._terms
        channel: Channel = server.pool.connect(terms.timeouts.connect)
        if terms.introduce is not None:
            try:
                channel.send(terms.introduce(request), terms.timeouts.send)
            except BaseException as error:
                channel.close()
                if isinstance(error, Broken):
                    raise Failure("connection_terminated", "at its start", repeatable=True) from error
                raise
        return channel
