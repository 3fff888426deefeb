"""The certificates that listeners serve with: chosen by name, renewed meanwhile, watched for their end.

Law: what serves goes on until what replaces it is whole. A certificate outlives reloads; a listener of one
generation chooses among those it names, by one table that is replaced whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import gevent
from gevent.lock import BoundedSemaphore

from .config.merge import Configuration
from .errors import ConfigurationError
from .kept import Kept
from .net import certificate_files
from .net.agenda import Agenda, Plan
from .net.certificate_check import Examined, Known, told
from .net.certificate_choice import Choice
from .net.certificate_files import Flaw, Found, Loaded, Maker
from .net.certificate_settings import CertificateSettings
from .net.settings import ListenerSettings
from .net.tls import ServerContext, Terminator, Tickets
from .observe.text import time_text
from .runtime import World

if TYPE_CHECKING:
    from .wire.certificate import Certificate as Leaf

#: Seconds in which one of several files may be replaced without the others before that is a mistake.
GRACE: Final = 2.0

#: Seconds between two looks at the date.
EXPIRY_EVERY: Final = 3600.0

_H2: Final = b"h2"
#: Some clients of HTTP/1.0 offer that and no other, like curl.
_HTTP_1: Final = (b"http/1.1", b"http/1.0")


class Around(NamedTuple):
    """What certificates need of the process."""

    world: World
    tickets: Tickets
    agenda: Agenda


def _in_thread(function: Callable[..., Any], *args: Any) -> Any:
    # Disks may be slow, and so is the arithmetic of keys.
    return gevent.get_hub().threadpool.apply(function, args)


class Certificate:
    """A `[certificate NAME]` that serves. Raises Refused when what was found cannot."""

    def __init__(self, name: str, settings: CertificateSettings, found: Found, around: Around) -> None:
        self.name = name
        self.settings = settings
        self._event = around.world.event
        self._clock = around.world.clock
        self._agenda = around.agenda
        self._maker = Maker(name, settings, around.tickets)
        self._looking = BoundedSemaphore(1)
        self._is_closed = False
        self._plans: dict[str, Plan] = {}
        self._subscribers: list[Callable[[], None]] = []
        self._failed = b""  # the mark of files that could not be used, and since when
        self._failed_at = 0.0
        self._told = b""  # the mark of those whose refusal was told
        self._warned: dict[str, int] = {}  # digest of a leaf → the last step that was told
        made = _in_thread(self._maker.make, found)
        if not isinstance(made, Loaded):
            raise Refused(made)
        self._loaded = made

    @property
    def context(self) -> ServerContext:
        """What serves now."""
        return self._loaded.context

    @property
    def names(self) -> tuple[str, ...]:
        """The names it is for now, lower case."""
        return self._loaded.names

    @property
    def demands(self) -> tuple[str, str, str]:
        """What clients have to show; equal when that is the same."""
        own = self.settings
        if own.verify_client == "off":
            return ("off", "", "")
        return (own.verify_client, own.client_ca, own.client_crl)

    def seconds_left(self) -> float:
        """Until the first of its certificates expires; less than 0: it has."""
        return self._loaded.not_after - self._clock.time()

    def subscribe(self, changed: Callable[[], None]) -> None:
        """Have `changed` called after each renewal."""
        self._subscribers.append(changed)

    def unsubscribe(self, changed: Callable[[], None]) -> None:
        """No more of that; one that does not subscribe is no mistake."""
        if changed in self._subscribers:
            self._subscribers.remove(changed)

    def serve(self) -> None:
        """It serves from now on; of no effect when it does."""
        if "expiry" not in self._plans:
            self._watch_expiry()

    def close(self) -> None:
        """It serves no more."""
        self._is_closed = True
        self._subscribers.clear()
        for plan in self._plans.values():
            plan.cancel()
        self._plans.clear()

    # -- renewal

    def look(self) -> None:
        """Take into use what the files say, if that is new and whole."""
        with self._looking:
            found = _in_thread(certificate_files.look, self.settings, self._loaded.mark)
            if found is None:
                self._failed = self._told = b""
            elif found.mark != self._told:
                made = _in_thread(self._maker.make, found)
                if self._is_closed:
                    return
                if isinstance(made, Loaded):
                    self._renew(made)
                else:
                    self._refuse(found.mark, made)

    def _renew(self, made: Loaded) -> None:
        self._failed = self._told = b""
        self._loaded = made
        for changed in self._subscribers:
            changed()
        first = min(made.leaves, key=lambda leaf: leaf.not_after)
        self._event(
            "certificate_renewed",
            certificate=self.name,
            serial=first.serial,
            not_after=time_text(first.not_after),
            names=list(made.names),
        )
        self._watch_expiry()

    def _refuse(self, mark: bytes, flaws: tuple[Flaw, ...]) -> None:
        now = self._clock.monotonic()
        if mark != self._failed:
            # Often the first of two files; the other one follows, and brings another look.
            self._failed, self._failed_at = mark, now
        if now - self._failed_at < GRACE:
            self._plan("look", self._failed_at + GRACE - now, self.look)
            return
        self._told = mark
        flaw = flaws[0]
        self._event("certificate_refused", certificate=self.name, file=flaw.file, error=flaw.text)

    # -- expiry

    def _watch_expiry(self) -> None:
        """Tell of each step towards the end once, and look again later."""
        now = self._clock.time()
        before, self._warned = self._warned, {}
        for leaf in self._loaded.leaves:
            reached = certificate_files.step(leaf, now)
            if reached is not None:
                self._warned[leaf.sha256] = reached
                if reached < before.get(leaf.sha256, reached + 1):
                    self._tell_expiry(leaf, now)
        self._plan("expiry", EXPIRY_EVERY, self._watch_expiry)

    def _tell_expiry(self, leaf: Leaf, now: float) -> None:
        self._event(
            "certificate_expires",
            certificate=self.name,
            days=int((leaf.not_after - now) // 86_400),
            not_after=time_text(leaf.not_after),
            serial=leaf.serial,
        )

    def _plan(self, what: str, seconds: float, do: Callable[[], None]) -> None:
        """Do it later; once, however often that is said."""
        if what not in self._plans and not self._is_closed:
            self._plans[what] = self._agenda.plan(seconds, partial(self._due, what, do))

    def _due(self, what: str, do: Callable[[], None]) -> None:
        self._plans.pop(what, None)
        do()


class Refused(Exception):
    """The files of a certificate cannot be used."""

    def __init__(self, flaws: tuple[Flaw, ...]) -> None:
        super().__init__("; ".join(map(str, flaws)))
        self.flaws = flaws


# Of a generation -----------------------------------------------------------------------------------------


class Certificates:
    """All certificates that the listeners of one generation name."""

    def __init__(self, certificates: Mapping[str, Certificate]) -> None:
        self._all = certificates
        self._choices: dict[tuple[str, ...], Choice] = {}

    def terminator(self, listener: ListenerSettings) -> Terminator:
        """What makes the connections of a listener speak TLS."""
        if listener.protocol == "tcp":
            protocols: tuple[bytes, ...] = ()
        else:
            protocols = (_H2, *_HTTP_1) if listener.http2 else _HTTP_1
        return Terminator(self.choice(listener.tls), protocols)

    def choice(self, names: tuple[str, ...]) -> Choice:
        """The choice among these certificates, the default first."""
        choice = self._choices.get(names)
        if choice is None:
            choice = self._choices[names] = Choice([self._all[name] for name in names])
        return choice

    @property
    def files(self) -> tuple[str, ...]:
        """All files that they come from."""
        return tuple(sorted({path for one in self._all.values() for path in one.settings.files}))

    def seconds_left(self) -> dict[str, float]:
        """Name → seconds until it expires; less than 0: it has."""
        return {name: one.seconds_left() for name, one in self._all.items()}

    def serve(self) -> None:
        """These are what counts from now on."""
        for names, choice in self._choices.items():
            for name in names:
                self._all[name].subscribe(choice.renew)
            # One may have been renewed for the generation before while this one was built.
            choice.renew()
        for one in self._all.values():
            one.serve()

    def retire(self) -> None:
        """Others are what counts."""
        for names, choice in self._choices.items():
            for name in names:
                self._all[name].unsubscribe(choice.renew)

    def look(self) -> None:
        """Take into use what is new in the files."""
        for one in tuple(self._all.values()):
            one.look()

    @property
    def known(self) -> Known:
        """What they are known by."""
        return frozenset((name, one.settings) for name, one in self._all.items())


# The process -----------------------------------------------------------------------------------------------


class Watching(Protocol):
    """A `watch.Watch`."""

    def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """End; nothing is called any more."""


#: (files, what to call when they may have changed) → what watches them.
Follow = Callable[[Sequence[str], Callable[[], None]], Watching]


#: Of a configuration without certificates.
NONE: Final = Examined({}, {}, [])


class Store:
    """What outlives the generations: ticket keys, plans, the watch; and the certificates that count now."""

    def __init__(self, world: World, follow: Follow) -> None:
        tickets = Tickets(os.urandom, world.clock.time)
        agenda = Agenda("certificates", world.tasks, world.clock, 1)
        self._around = Around(world, tickets, agenda)
        self._follow = follow
        self._watch: Watching | None = None
        self._watched: tuple[str, ...] = ()
        self._current = Certificates({})
        self._looking = BoundedSemaphore(1)
        self._asked = self._begun = 0

    def build(self, configuration: Configuration, examined: Examined, kept: Kept) -> Certificates:
        """The certificates that the listeners of a configuration name. Raises ConfigurationError.

        `examined`: with all but those that serve already (`known`), which go on as they are.
        """
        settings = configuration.named(CertificateSettings)
        used = {name for one in configuration.named(ListenerSettings).values() for name in one.tls}
        mistakes = [line for lines in examined.mistakes.values() for line in lines]
        if mistakes:
            raise ConfigurationError(mistakes)
        certificates = {}
        for name in used:
            own = settings[name]
            make = partial(self._make, name, own, examined)
            try:
                certificates[name] = kept.claim(("certificate", name, own), make)
            except Refused as error:
                raise ConfigurationError(told(configuration, name, error.flaws)) from error
        return Certificates(certificates)

    def _make(self, name: str, settings: CertificateSettings, examined: Examined) -> Certificate:
        return Certificate(name, settings, examined.found[name], self._around)

    def serve(self, certificates: Certificates) -> None:
        """These are what counts from now on."""
        self._current.retire()
        self._current = certificates
        certificates.serve()
        if certificates.files != self._watched:
            self._stop_watching()
            self._watched = certificates.files
            if self._watched:
                self._watch = self._follow(self._watched, self.look)
                self._watch.start()

    @property
    def known(self) -> Known:
        """Those that serve: a reload need not look at their files, which may just be being replaced."""
        return self._current.known

    def look(self) -> None:
        """Take into use what is new in the files (waits)."""
        self._asked += 1
        number = self._asked
        with self._looking:
            # A look that begins after it was asked for is good for all who asked until then.
            if self._begun < number:
                self._begun = self._asked
                self._current.look()

    def seconds_left(self) -> dict[str, float]:
        """Name → seconds until it expires; less than 0: it has."""
        return self._current.seconds_left()

    def close(self) -> None:
        """Watch nothing any more."""
        self._stop_watching()
        self._current.retire()

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._watch.stop()
            self._watch = None
