"""Addresses that are bound, and whom they serve: what a reload changes in one step and an upgrade hands on.

Law: bind first, swap then. A bind that fails changes nothing.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from .config.addresses import Address
from .config.merge import Configuration
from .errors import ConfigurationError
from .net.channel import Channel
from .net.client_address import UNIX_PEER
from .net.connections import Connections
from .net.inherit import Inherited
from .net.listener import Listener, bind_advice
from .net.settings import ListenerSettings
from .serving import Current, Serving
from .session import Session
from .stream import Stream, StreamServing

#: What serves the connections of a listener.
AnyServing = Serving | StreamServing

#: Seconds that a client has for a request when it connected, or was told to ask again, as its listener ended.
LAST_CALL: Final = 1.0

#: Connections at one time to where the process is asked about itself. Clients have none of these places, and
#: probes none of theirs: a process without room for clients still says that it is well.
_PROBES: Final = 100
#: Seconds that they have for an answer which is on its way when the process ends.
_LAST_ANSWERS: Final = 0.1

#: In the place of a listener's name.
ADMIN: Final = "admin"

_IN_THE_WAY: Final = "is in the way of the process that is replaced: reload that one first, then replace it"


class Place(NamedTuple):
    """By what a bound address is known again."""

    address: Address
    written: str = ""  # where, for port 0; which, for inherited sockets: each is another socket; or ADMIN

    @property
    def is_admin(self) -> bool:
        """Whether the process itself answers there."""
        return self.written == ADMIN

    @property
    def key(self) -> str:
        """The same in the process that replaces this one."""
        return f"{self.address} {self.written}".rstrip()


class _Bound:
    """A bound address and whom it serves. `current`: where the sessions of HTTP look; None for TCP."""

    __slots__ = ("_serving", "current", "listener", "sessions")

    def __init__(self, serving: AnyServing) -> None:
        self._serving = serving
        self.current = Current(serving) if isinstance(serving, Serving) else None
        self.sessions: set[Session | Stream] = set()
        self.listener: Listener | None = None

    @property
    def serving(self) -> AnyServing:
        """What new connections are served by."""
        return self._serving

    def serve(self, serving: AnyServing) -> None:
        """Another generation: sessions go on with it, unless it is for another protocol."""
        if type(serving) is not type(self._serving):
            self.last_call()
            self._serving.ended = True
            self.current = Current(serving) if isinstance(serving, Serving) else None
        elif self.current is not None:
            assert isinstance(serving, Serving)
            self.current.serving = serving
        self._serving = serving

    def last_call(self) -> None:
        """Sessions end: who has asked for nothing at once, who was just accepted has a moment to."""
        if isinstance(self._serving, Serving):
            self._serving.idle_timeout = min(self._serving.idle_timeout, LAST_CALL)
        for session in list(self.sessions):
            session.retire()

    def session(self, channel: Channel, peer: Any, now: Callable[[], float]) -> Session | Stream:
        """The session of a connection that was accepted."""
        name = peer[0] if isinstance(peer, tuple) else UNIX_PEER
        if self.current is not None:
            return Session(channel, name, _listener(self).bound.port, self.current, now)
        assert isinstance(self._serving, StreamServing)
        return Stream(channel, name, self._serving, now)


class Places:
    """All that is bound now. `inherited`: sockets that are there already; a place takes its own from them."""

    def __init__(
        self,
        event: Callable[..., None],
        connections: Connections,
        now: Callable[[], float],
        inherited: Inherited,
    ) -> None:
        self._event = event
        self._connections = connections
        self._probes = Connections(_PROBES, self._on_probes)
        self._now = now
        self._inherited = inherited
        self._bound: dict[Place, _Bound] = {}
        self._left: list[_Bound] = []

    def __len__(self) -> int:
        return sum(not place.is_admin for place in self._bound)

    def _on_probes(self, is_full: bool) -> None:
        count = len(self._probes)
        if is_full:
            self._event("accept_paused", listener=ADMIN, reason="too many probes", connections=count)
        else:
            self._event("accept_resumed", listener=ADMIN, connections=count)

    def of(self, listener: str, settings: ListenerSettings) -> Iterator[Place]:
        """The places of a listener."""
        for at, address in enumerate(settings.bind):
            if address.is_inherited:
                # A name that is not there has one place, for which `bind` has something to say.
                for number in range(max(1, self._inherited.count(address.name))):
                    yield Place(address, str(number))
            else:
                yield Place(address, "" if address.is_fixed else f"{listener} {at}")

    # -- a reload

    def bind(self, configuration: Configuration, wanted: dict[Place, AnyServing]) -> dict[Place, _Bound]:
        """Bind what `wanted` lacks. Raises ConfigurationError; then nothing has changed."""
        fresh: dict[Place, _Bound] = {}
        given_up: list[Place] = []
        mistakes = []
        for place, serving in wanted.items():
            known = self._bound.get(place)
            if known is not None and not _listener(known).closed:
                continue
            bound = known or _Bound(serving)
            try:
                bound.listener = self._listen(place, bound, wanted, given_up)
                fresh[place] = bound
            except OSError as error:
                text = f"{place.address}: {self._advice(place, error)}"
                option = ("sidecar", "", "admin") if place.is_admin else ("listener", serving.name, "bind")
                mistakes.append(configuration.mistake(*option, text))
        if mistakes:
            for bound in fresh.values():
                listener = _listener(bound)
                # What was handed over is still served by the one that had it.
                (listener.leave if listener.is_adopted else listener.end)()
            self._reopen(given_up)
            raise ConfigurationError(mistakes)
        return fresh

    def _listen(
        self, place: Place, bound: _Bound, wanted: dict[Place, AnyServing], given_up: list[Place]
    ) -> Listener:
        make = self._maker(place, bound)
        if place.address.is_inherited:
            return make(self._inherited.open(place.address.name, int(place.written)))
        sock = self._inherited.take(place.key)
        if sock is not None:
            return make(sock)
        try:
            return make()
        except OSError as error:
            # 0.0.0.0:80 and 127.0.0.1:80 exclude one another: the one that leaves must go first.
            leaving = [one for one in self._bound if one not in wanted and _meet(one.address, place.address)]
            if error.errno != errno.EADDRINUSE or not leaving:
                raise
            for old in leaving:
                if old not in given_up:
                    given_up.append(old)
                    _listener(self._bound[old]).end()
            return make()

    def _maker(self, place: Place, bound: _Bound) -> Callable[..., Listener]:
        pool = self._probes if place.is_admin else self._connections
        return partial(Listener, place.address, partial(self._serve, bound), pool, self._event)

    def _advice(self, place: Place, error: OSError) -> str:
        if error.errno == errno.EADDRINUSE and self._inherited.holds_port(place.address.port):
            return _IN_THE_WAY
        return bind_advice(error)

    def _reopen(self, places: list[Place]) -> None:
        """Take back what was given up for a change that could not be made after all."""
        for place in places:
            bound = self._bound[place]
            try:
                bound.listener = self._maker(place, bound)()
            except OSError as error:
                # Somebody was faster. The next reload tries again.
                name, text = bound.serving.name, bind_advice(error)
                self._event("listener_failed", listener=name, address=str(place.address), error=text)
            else:
                bound.listener.start()

    def swap(self, wanted: dict[Place, AnyServing], fresh: Mapping[Place, _Bound]) -> None:
        """Serve `wanted` from now on, where `bind` has bound what was missing."""
        for place in [one for one in self._bound if one not in wanted]:
            bound = self._bound.pop(place)
            self._end(bound, _listener(bound).end)
            # Who connected at the last moment was still accepted, and gets a moment to ask.
            bound.last_call()
        for place, bound in self._bound.items():
            bound.serve(wanted[place])
        for place, bound in fresh.items():
            self._bound[place] = bound
            listener = _listener(bound)
            listener.start()
            how = {"inherited": True} if listener.is_adopted else {}
            self._event("listener_bound", listener=bound.serving.name, address=str(listener.bound), **how)
        self._inherited.close_rest()

    # -- serving

    def _serve(self, bound: _Bound, channel: Channel, peer: Any) -> None:
        session = bound.session(channel, peer, self._now)
        sessions = bound.sessions
        sessions.add(session)
        try:
            session.run()
        finally:
            sessions.discard(session)

    def addresses(self) -> dict[str, list[Address]]:
        """Listener name → the addresses it is bound to, port 0 resolved. The process itself has none."""
        found: dict[str, list[Address]] = {}
        for bound in [bound for place, bound in self._bound.items() if not place.is_admin]:
            found.setdefault(bound.serving.name, []).append(_listener(bound).bound)
        return found

    # -- ending, and handing on

    def descriptors(self) -> dict[str, int]:
        """Key → listening socket, of each place that this process has bound or was handed."""
        return {
            place.key: _listener(bound).socket.fileno()
            for place, bound in self._bound.items()
            if not place.address.is_inherited and not _listener(bound).closed
        }

    def keys(self) -> list[str]:
        """The keys of all places."""
        return [place.key for place in self._bound]

    def end(self, handed: frozenset[str] | None = None) -> None:
        """Take no more connections. Those there are end after one more exchange, or when they `retire`.

        `handed`: keys of the places that another process has taken over with all who wait there; None: there
        is no such process, and this one can be asked about itself until `close`.
        """
        stays = {place: bound for place, bound in self._bound.items() if place.is_admin and handed is None}
        for place, bound in self._bound.items():
            if place in stays:
                continue
            listener = _listener(bound)
            self._end(bound, listener.leave if handed and place.key in handed else listener.end)
            if place.is_admin:
                # The next question is for the other process.
                bound.last_call()
            else:
                self._left.append(bound)
        self._bound = stays

    def retire(self) -> None:
        """End the idle connections of the places that ended; who has begun to ask is answered."""
        for bound in self._left:
            bound.last_call()

    def close(self) -> None:
        """End what is left, at last where the process is asked about itself."""
        for bound in self._bound.values():
            self._end(bound, _listener(bound).end)
            bound.last_call()
        self._bound = {}
        self._probes.join(_LAST_ANSWERS)
        self._probes.kill(block=True, timeout=1)

    def _end(self, bound: _Bound, how: Callable[[], None]) -> None:
        how()
        bound.serving.ended = True
        name, address = bound.serving.name, str(_listener(bound).bound)
        self._event("listener_closed", listener=name, address=address)


def _listener(bound: _Bound) -> Listener:
    assert bound.listener is not None
    return bound.listener


def _meet(one: Address, other: Address) -> bool:
    """Whether one may be in the way of the other."""
    return one.port == other.port if other.port else one.is_unix and one.path == other.path
