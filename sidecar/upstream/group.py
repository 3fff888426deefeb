# cython: language_level=3, annotation_typing=False
"""The servers of an upstream in one generation: which of them gets an attempt, and who waits for one.

Law: backups are asked only when no other server can be. A request waits only while some server is merely at
its limit; the line is bounded in length and time, and who leaves it leaves no trace.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

from gevent.event import Event

from ..errors import Failure
from ..message import Request
from ..net.channel import Channel
from .balance.base import Balance
from .balance.round_robin import RoundRobin
from .budget import Budget
from .server import Observer, Server
from .settings import QueueOptions
from .sticky import Sticky

#: Seconds after which who waits looks for a server anyway.
_LOOK: Final = 0.2

#: Takes a server for a request that waits; None: not now. Raises Failure: there will be none.
Look = Callable[[], Server | None]


class _Turn:
    """A place in the line, and what it led to."""

    __slots__ = ("failure", "is_over", "look", "over", "server")

    def __init__(self, look: Look) -> None:
        self.look = look
        self.over = Event()
        self.is_over = False
        self.server: Server | None = None
        self.failure: Failure | None = None

    def come(self) -> bool:
        """Look; whether there is nothing left to wait for."""
        try:
            self.server = self.look()
        except Failure as failure:
            self.failure = failure
        else:
            if self.server is None:
                return False
        self.end()
        return True

    def end(self) -> None:
        """Wake who waits."""
        self.is_over = True
        self.over.set()


class Queue:
    """Requests that wait for a server, first come first served. It survives reloads.

    Law: room is handed over at the moment when it is there, so who comes later finds none left.
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: deque[_Turn] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self, look: Look, timeout: float, client: Channel | None = None) -> Server | None:
        """What `look` found when it was one's turn; None: nothing in so many seconds. Raises Failure.

        When `client` leaves, its place is free at once: under overload clients give up first.
        """
        turn = _Turn(look)
        self._waiting.append(turn)
        try:
            if client is not None:
                self._watch(client, turn)
            self._stand(turn, timeout)
        except BaseException:
            if turn.server is not None:
                # Killed with the room in hand: it is the next one's.
                turn.server.give_back()
            raise
        finally:
            if client is not None:
                client.unpark()
            if not turn.is_over:
                self._waiting.remove(turn)
        if turn.failure is not None:
            raise turn.failure
        return turn.server

    def _watch(self, client: Channel, turn: _Turn) -> None:
        def look(client: Channel) -> None:
            # Else it has sent something, the next request say.
            if client.peer_finished and not turn.is_over:
                self._waiting.remove(turn)
                turn.failure = Failure("client_gone", "while it waited for a server")
                turn.end()

        if client.fileno() >= 0 and not client.peer_finished:
            client.park(look, 0.0)
        look(client)

    def _stand(self, turn: _Turn, timeout: float) -> None:
        """Wait for one's turn."""
        left = timeout
        while not turn.over.wait(min(left, _LOOK)) and left > _LOOK:
            left -= _LOOK
            # Room also comes without the end of an attempt: a ban is over, a server is well or new.
            self.wake()

    def wake(self) -> None:
        """A server may have room: hand it over."""
        waiting = self._waiting
        while waiting and waiting[0].come():
            waiting.popleft()

    def close(self) -> None:
        """Let all go: what they waited for is gone."""
        while self._waiting:
            self._waiting.popleft().end()


class Group:
    """Chooses. Its servers may be replaced at any time: a name may have new addresses."""

    __slots__ = (
        "_backups",
        "_begun",
        "_budget",
        "_is_limited",
        "_now",
        "_only",
        "_primaries",
        "_queue",
        "_relent",
        "_room",
        "_wait",
        "servers",
        "sticky",
        "unknown",
    )

    def __init__(self, options: QueueOptions, queue: Queue, budget: Budget, now: Callable[[], float]) -> None:
        self.servers: tuple[Server, ...] = ()
        self.sticky: Sticky | None = None
        self.unknown = ""  # names of which no address is known, and why
        self._primaries: Balance = RoundRobin(())
        self._backups: Balance | None = None
        self._only: Server | None = None
        self._is_limited = False
        self._relent: Callable[[float], bool] | None = None
        self._queue = queue
        self._room = options.queue
        self._wait = options.queue_timeout
        self._now = now
        self._budget = budget
        self._begun = 0  # requests of which the budget was not told yet

    def replace(
        self,
        servers: Sequence[Server],
        balance: Callable[[Sequence[Server]], Balance],
        sticky: Sticky | None = None,
        observer: Observer | None = None,
        relent: Callable[[float], bool] | None = None,
    ) -> None:
        """Choose among these from now on. `balance` makes what chooses among primaries, or among backups.

        `relent` is asked when none is usable; when it says so another look is worth it.
        """
        primaries = [server for server in servers if not server.backup]
        backups = [server for server in servers if server.backup]
        self.servers = tuple(servers)
        self._primaries = balance(primaries) if primaries else RoundRobin(())
        self._backups = balance(backups) if backups else None
        self.sticky = sticky
        self._relent = relent
        self._only = None
        if len(servers) == 1:
            # Nobody could take its place: it is never banned (nginx).
            servers[0].max_fails = 0
            self._only = servers[0]
        self._is_limited = any(server.limit for server in servers)
        for server in servers:
            if self._is_limited:
                server.on_free = self._queue.wake
            server.observer = observer
        # Who waits may have use for one that is new.
        self._queue.wake()

    def choose(self, request: Request, now: float, patience: float = 0.0) -> Server:
        """A server for the first attempt, taken. Raises Failure: none is usable, or none has room in time.

        `patience`: seconds that the request may wait at most, however long others do; 0: as long as they.
        """
        if self._is_limited and self._queue:
            # Room may have come without the end of an attempt: a ban is over, a server has recovered.
            self._queue.wake()
        self._begun += 1
        server = self.pick(request, now, ())
        if server is None:
            return self._wait_for(request, patience)
        server.take(now)
        return server

    def choose_other(self, request: Request, now: float, tried: Sequence[Server]) -> Server | None:
        """A server for one more attempt, taken; None: there is none, or there were too many such attempts."""
        budget = self._budget
        budget.earn(self._begun)
        self._begun = 0
        if not budget.take(self.active() + 1):
            return None
        server = self.pick(request, now, tried)
        if server is None:
            budget.give_back()
        else:
            server.take(now)
        return server

    def retried(self) -> None:
        """An attempt at a server of `choose_other` has answered or failed."""
        self._budget.give_back()

    def pick(self, request: Request, now: float, tried: Sequence[Server]) -> Server | None:
        """A usable server that was not tried, not taken yet; None: there is none now."""
        only = self._only
        if only is not None:
            return only if not tried and only.is_usable(now) else None
        if self.sticky is not None and not tried:
            found = self.sticky.find(request)
            if found is not None and found.is_usable(now):
                return found
        server = self._primaries.pick(request, now, tried)
        if server is None and self._backups is not None:
            server = self._backups.pick(request, now, tried)
        return server

    def _wait_for(self, request: Request, patience: float) -> Server:
        look = partial(self._look, request)
        server = look()
        if server is not None:
            return server
        if len(self._queue) >= self._room:
            raise Failure("upstream_overloaded", "the queue is full", repeatable=True)
        # A TCP client may end its side long before it has its answer; there only a reset would tell.
        client = request.client_channel if request.scheme != "tcp" else None
        server = self._queue.wait(look, min(self._wait, patience) if patience else self._wait, client)
        if server is None:
            raise Failure("upstream_overloaded", "no server in time", repeatable=True)
        return server

    def _look(self, request: Request) -> Server | None:
        """A server, taken; None: all are busy. Raises Failure: it is not worth waiting."""
        now = self._now()
        server = self.pick(request, now, ())
        if server is None and self._relent is not None and self._relent(now):
            server = self.pick(request, now, ())
        if server is not None:
            server.take(now)
        elif not self.servers:
            raise Failure("dns_error", self.unknown, repeatable=True)
        elif not any(self._is_merely_busy(now)):
            raise Failure("no_server", "all are down or banned", repeatable=True)
        return server

    def _is_merely_busy(self, now: float) -> Iterator[bool]:
        for server in self.servers:
            yield server.is_fit(now) and not server.has_room()

    def active(self) -> int:
        """Attempts in progress at all servers."""
        return sum(server.state.active for server in self.servers)
