"""Names that are watched: asked for again as their answers grow old, in the background; nobody waits for DNS.

Laws. The last good answer is served until there is a better one. What is told is told once: that a name
fails, that it is known again, and each change of its addresses. A name that nobody watches costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import gevent
from gevent.event import Event
from gevent.lock import Semaphore

from ..runtime import Clock, Random, Tasks
from .agenda import Agenda
from .lookup import Found, Host, Looked, Service, Subject
from .name_files import Files, read_files, setup_of
from .resolver import AT_ONCE, Resolver

#: Seconds between two questions for a name that is known, whatever its TTL says.
SHORTEST: Final = 1.0
LONGEST: Final = 3600.0
#: Seconds after the first failure; each further one doubles them.
FIRST_RETRY: Final = 1.0
LAST_RETRY: Final = 30.0
#: The share of the time that is left out, at most and by chance: a thousand sidecars do not ask in step.
EARLY: Final = 0.1
#: Seconds between two looks at the files of the machine.
FILES_EVERY: Final = 5.0

__all__ = ["Found", "Name", "Names"]


class Names:
    """All names of the process. It survives reloads, and must be used in the hub's thread."""

    def __init__(
        self,
        tasks: Tasks,
        clock: Clock,
        random: Random,
        event: Callable[..., None],
        name_servers: Sequence[str] = (),
    ) -> None:
        """`name_servers`: `address`, `address:port` or `[v6]:port`; empty: the system's and its search list.

        Raises ValueError for one that is no numeric address.
        """
        self.tasks, self.clock, self.random, self.event = tasks, clock, random, event
        self.resolver = Resolver(clock)
        self.agenda = Agenda("names", tasks, clock, AT_ONCE)
        self._named = setup_of(name_servers) if name_servers else None
        self._names: dict[tuple[str, int], Name] = {}
        self._files: Files | None = None
        self._reading = Semaphore()
        self._is_following = False

    def watch(self, host: str, port: int) -> Name:
        """The name of a host. Does not wait. Close it as often as this returned it."""
        return self._watch((host.lower(), port), lambda: Host(host, port))

    def watch_service(self, name: str) -> Name:
        """The name of a service, `_http._tcp.app.example`: the addresses and ports of its targets."""
        return self._watch((name.lower(), 0), lambda: Service(name))

    def _watch(self, key: tuple[str, int], make: Callable[[], Subject]) -> Name:
        name = self._names.get(key)
        if name is None:
            name = self._names[key] = Name(self, key, make())
            if not self._is_following:
                self._is_following = True
                self.tasks.spawn("name_files", self._follow_files)
        name.watchers += 1
        return name

    def forget(self, key: tuple[str, int]) -> None:
        """Nobody watches this name any more."""
        del self._names[key]

    def close(self) -> None:
        """Nothing is held but by its names, which are closed one by one; this is for `Kept`."""

    # -- the files of the machine

    def files(self, host: str) -> Files:
        """What the machine says, about this host among others; read when it was not yet."""
        with self._reading:
            if self._files is None or host not in self._files.wanted:
                return self._read_files(host)
            return self._files

    def _read_files(self, *more: str) -> Files:
        # All that are watched at once: ten thousand new names are one reading.
        wanted = {"", *more, *(host for name in self._names.values() for host in name.subject.hosts())}
        pool = gevent.get_hub().threadpool
        files: Files = pool.apply(read_files, (self._named, wanted, self._files))
        self._files = files
        return files

    def _follow_files(self) -> None:
        """As long as there are names: see what changes, and ask again for those it is about."""
        never = Event()
        while self._names:
            never.wait(FILES_EVERY)
            with self._reading:
                before = self._files
                if before is None or not self._names:
                    continue
                after = self._read_files()
            if after is not before:
                self._notice(before, after)
        self._is_following = False

    def _notice(self, before: Files, after: Files) -> None:
        for name in self._names.values():
            has_moved = any(before.hosts.get(host) != after.hosts.get(host) for host in name.subject.hosts())
            if has_moved or before.setup != after.setup:
                name.ask_again()


class Name:
    """A name and the addresses behind it; made by `Names`."""

    def __init__(self, names: Names, key: tuple[str, int], subject: Subject) -> None:
        self._names, self._event, self._key = names, names.event, key
        self._subscribers: list[Callable[[], None]] = []
        self._has_tried = Event()
        self._failures = 0
        self._failed_at = 0.0
        self._is_asking = self._shall_ask_again = False
        self._plan = names.agenda.plan(0.0, self._ask)
        self.subject = subject
        self.watchers = 0
        #: The last good answer, in a stable order. Empty: there was none yet.
        self.found: tuple[Found, ...] = ()
        #: Why the last try failed, in whole or in part; empty when it did not.
        self.error = ""

    def __str__(self) -> str:
        """As the configuration has it."""
        host, port = self._key
        return f"{host}:{port}" if port else f"srv:{host}"

    def subscribe(self, changed: Callable[[], None]) -> None:
        """Have `changed` called after each change of `found`, in a task of its own."""
        self._subscribers.append(changed)

    def unsubscribe(self, changed: Callable[[], None]) -> None:
        """No more of that; one that does not subscribe is no mistake."""
        if changed in self._subscribers:
            self._subscribers.remove(changed)

    def wait(self, timeout: float) -> bool:
        """Wait for the first answer or failure; whether it came within `timeout` seconds."""
        return bool(self._has_tried.wait(timeout))

    def ask_again(self) -> None:
        """Ask at once, however young the answer is; once more when it is being asked for."""
        if self._is_asking:
            self._shall_ask_again = True
        elif self.watchers:
            self._plan.cancel()
            self._plan = self._names.agenda.plan(0.0, self._ask)

    def close(self) -> None:
        """One watcher less; the last one takes the name with it."""
        self.watchers -= 1
        if self.watchers == 0:
            self._subscribers.clear()
            self._names.forget(self._key)
            self._plan.cancel()

    def _ask(self) -> None:
        self._is_asking, self._shall_ask_again = True, False
        # Also when this dies of something that nobody thought of: the name is not forgotten then.
        seconds = LAST_RETRY
        try:
            looked = self.subject.look(self._names)
            self._learn(looked.problem)
            seconds = 0.0 if self._shall_ask_again else pause(looked, self._failures, self._names.random)
        finally:
            self._is_asking = False
            if self.watchers:
                self._plan = self._names.agenda.plan(seconds, self._ask)

    def _learn(self, problem: str) -> None:
        # A service may have new targets, none of which is known.
        found = self.subject.found() or self.found
        self._judge(problem, len(found))
        self._change(found)
        self._has_tried.set()

    def _judge(self, problem: str, kept: int) -> None:
        had_failed, self.error = bool(self.error), problem
        if problem:
            self._failures += 1
        if problem and not had_failed:
            self._failed_at = self._names.clock.monotonic()
            self._event("dns_failed", name=str(self), error=problem, kept=kept)
        elif had_failed and not problem:
            self._failures = 0
            seconds = round(self._names.clock.monotonic() - self._failed_at, 3)
            self._event("dns_recovered", name=str(self), seconds=seconds)

    def _change(self, found: tuple[Found, ...]) -> None:
        if found == self.found:
            return
        before = dict.fromkeys(str(one.address) for one in self.found)
        after = dict.fromkeys(str(one.address) for one in found)
        self.found = found
        added = [one for one in after if one not in before]
        removed = [one for one in before if one not in after]
        self._event("dns_changed", name=str(self), added=added, removed=removed, addresses=len(found))
        for changed in tuple(self._subscribers):
            # One that blocks or fails must not stop this name, nor the other subscribers.
            self._names.tasks.spawn("name_changed", self._tell, changed)

    def _tell(self, changed: Callable[[], None]) -> None:
        if changed in self._subscribers:
            changed()


def pause(looked: Looked, failures: int, random: Random) -> float:
    """Seconds until a name is asked for again, `failures`: in a row, this one included."""
    early = 1.0 - EARLY * random.random()
    if looked.problem:
        return early * min(LAST_RETRY, FIRST_RETRY * 2.0 ** min(failures - 1, 16))
    return max(SHORTEST, early * min(LONGEST, looked.ttl))
