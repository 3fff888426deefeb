"""What an upstream learned about its servers, by address: it survives reloads and changes of DNS answers.

Law: a generation that is being built may add; only `keep`, when it serves, takes away and changes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping

from ..config.addresses import Address
from .group import Queue
from .health import Checker
from .pool import AnyPool
from .server import State

#: Where a server is: an address, or one of each family; with TLS also the name that it must prove to have.
Place = tuple[Address | str, ...]


class Member:
    """One address: its connections and what is known of it."""

    __slots__ = ("pool", "state")

    def __init__(self, pool: AnyPool, state: State) -> None:
        self.pool = pool
        self.state = state

    def close(self) -> None:
        """Close what rests; attempts in progress go on."""
        self.pool.close()


class Check:
    """A health check that is wanted: `key` gives its history a meaning, `make` makes one."""

    __slots__ = ("key", "make")

    def __init__(self, key: Hashable, make: Callable[[], Checker]) -> None:
        self.key = key
        self.make = make


class Roster:
    """The members of one upstream, who watches them, and who waits for them."""

    def __init__(self) -> None:
        self._members: dict[Place, Member] = {}
        self._checkers: dict[Hashable, Checker] = {}
        self.queue = Queue()
        self.departures = 0  # how often members went: who was built before must look again
        #: How many servers of the generation that serves may be asked; checks outlive generations.
        self.left: Callable[[], int] = lambda: 0

    def count_left(self) -> int:
        """How many servers may be asked now."""
        return self.left()

    def member(self, place: Place, new_pool: Callable[[], AnyPool], new_state: Callable[[], State]) -> Member:
        """The member at a place; known or new."""
        member = self._members.get(place)
        if member is None:
            member = self._members[place] = Member(new_pool(), new_state())
        return member

    def refresh(self) -> None:
        """No connection that stands takes another request: whom is trusted has changed."""
        for member in self._members.values():
            member.pool.refresh()

    def keep(self, checks: Mapping[Place, Check | None], keepalive: int, keepalive_timeout: float) -> None:
        """These addresses are served from now on, each with its check; the others go."""
        for place in [one for one in self._members if one not in checks]:
            self._members.pop(place).close()
            self.departures += 1
        for member in self._members.values():
            member.pool.resize(keepalive, keepalive_timeout)
        wanted = {(address, check.key): check for address, check in checks.items() if check is not None}
        # The old ones first: closing one makes its server usable, starting one may find otherwise.
        for key in [one for one in self._checkers if one not in wanted]:
            self._checkers.pop(key).close()
        for key, check in wanted.items():
            if key not in self._checkers:
                self._checkers[key] = check.make()
                self._checkers[key].start()

    def close(self) -> None:
        """The upstream is gone: close its connections and let go of who waits."""
        for checker in self._checkers.values():
            checker.close()
        for member in self._members.values():
            member.close()
        self.queue.close()
