# cython: language_level=3, annotation_typing=False
"""How long a connection to a server may rest, learned from what the server says and does.

A server closes connections that rest too long, and may do so while a request is on its way: who sent it
cannot know whether it was executed. So connections are closed here before the server would (by what it says
in the Keep-Alive field, or by when it closes), and a request that must not be sent twice takes only one that
rested no longer than others that were still good.
"""

from __future__ import annotations

import re
from typing import Final

#: Seconds of rest that are no risk with a server of which nothing is known.
_HARMLESS: Final = 0.2
#: How much earlier than the server: its clock began when it sent, ours when we had received.
_EARLIER: Final = 0.9
#: Two connections that the server closed after times as near to each other show that it was for their rest.
_NEAR: Final = 0.1
_SHORTEST: Final = 0.05  # seconds; a limit below that would be no rest at all

_TIMEOUT: Final = re.compile(rb"(?:^|[\s,;])timeout\s*=\s*\"?([0-9]{1,9})", re.IGNORECASE)


class Rest:
    """What is known of one server. Times in seconds; `longest` is what the configuration allows."""

    __slots__ = ("_closed_after", "_harmless", "limit", "longest", "proven")

    def __init__(self, longest: float) -> None:
        self.longest = longest
        self.limit = longest  # a connection that rests longer is closed
        self.proven = 0.0  # a connection that rested so long was still good
        self._harmless = _HARMLESS
        self._closed_after = 0.0  # when the server closed one last; 0: never

    def allow(self, longest: float) -> None:
        """The configuration allows another time."""
        if longest != self.longest:
            self.limit = longest if self.limit == self.longest else min(self.limit, longest)
            self.longest = longest

    def told(self, keep_alive: bytes) -> None:
        """The server's Keep-Alive field (RFC 2068 section 19.7.1.1): how long it keeps connections."""
        found = _TIMEOUT.search(keep_alive)
        if found is not None:
            seconds = int(found[1]) * _EARLIER
            self.limit = max(_SHORTEST, min(self.longest, seconds))
            self.proven = max(self.proven, seconds)

    def survived(self, seconds: float) -> None:
        """A connection that rested so long answered."""
        if self.proven < seconds <= self.limit:
            self.proven = seconds

    def closed(self, seconds: float) -> None:
        """The server closed a connection that had rested so long."""
        before, self._closed_after = self._closed_after, seconds
        self.proven = min(self.proven, seconds * _EARLIER)
        self._harmless = min(self._harmless, seconds * _EARLIER)
        if abs(seconds - before) <= max(seconds, before) * _NEAR:
            self.limit = max(_SHORTEST, min(self.limit, min(seconds, before) * _EARLIER))

    def is_safe(self, seconds: float) -> bool:
        """Whether a connection that rested so long is good for a request that must not be sent twice."""
        return seconds <= self._harmless or seconds <= self.proven * _EARLIER
