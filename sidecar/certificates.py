"""The certificates that listeners serve with: chosen by name, renewed meanwhile, watched for their end.

Law: what serves goes on until what replaces it is whole. A certificate outlives reloads; a listener of one
generation chooses among those it names, by one table that is replaced whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, NamedTuple

from .config.merge import Configuration
from .errors import ConfigurationError
from .kept import Kept
from .net import certificate_files
from .net.agenda import Agenda, Plan
from .net.certificate_check import Examined, Known, told
from .net.certificate_choice import Choice
from .net.certificate_files import Flaw, Flawed, Found, Loaded, Maker
from .net.certificate_settings import CertificateSettings
from .net.certificate_terms import Ending, endings
from .net.renewal import FileWatch, Follow, Renewed, in_thread
from .net.settings import ListenerSettings
from .net.tls import ServerContext, Terminator, Tickets
from .observe.metrics import Page
from .observe.text import time_text
from .runtime import World

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


class Certificate(Renewed[Loaded]):
    """A `[certificate NAME]` that serves. Raises Refused when what was found cannot."""

    def __init__(self, name: str, settings: CertificateSettings, found: Found, around: Around) -> None:
        maker = Maker(name, settings, around.tickets)
        made = in_thread(maker.make, found)
        if isinstance(made, Flawed):
            raise Refused(made.flaws)
        super().__init__(made, around.world.clock, around.agenda)
        self.name = name
        self.settings = settings
        self._event = around.world.event
        self._maker = maker
        self._expiry: Plan | None = None  # the next look at the date; None: it does not serve
        self._subscribers: list[Callable[[], None]] = []
        self._warned: dict[str, int] = {}  # digest of what ends → the last step that was told

    @property
    def files(self) -> tuple[str, ...]:
        """All files that it comes from."""
        return self.settings.files

    @property
    def context(self) -> ServerContext:
        """What serves now."""
        return self._made.context

    @property
    def names(self) -> tuple[str, ...]:
        """The names it is for now, lower case."""
        return self._made.names

    @property
    def demands(self) -> tuple[str, str, str]:
        """What clients have to show; equal when that is the same."""
        own = self.settings
        if own.verify_client == "off":
            return ("off", "", "")
        return (own.verify_client, own.client_ca, own.client_crl)

    def add_to(self, page: Page) -> None:
        """When what it serves with expires."""
        page.start("certificate", self.name)
        for path, leaf in zip(self.settings.certificate, self._made.leaves, strict=True):
            page.add("sidecar_certificate_expiry_timestamp_seconds", leaf.not_after, self.name, path)
        for one in self._made.lists:
            name = "sidecar_certificate_crl_expiry_timestamp_seconds"
            page.add(name, one.next_update, self.name, one.issuer)

    def seconds_left(self) -> float:
        """Until the first of its certificates expires; less than 0: it has."""
        return self._made.not_after - self._clock.time()

    def subscribe(self, changed: Callable[[], None]) -> None:
        """Have `changed` called after each renewal."""
        self._subscribers.append(changed)

    def unsubscribe(self, changed: Callable[[], None]) -> None:
        """No more of that; one that does not subscribe is no mistake."""
        if changed in self._subscribers:
            self._subscribers.remove(changed)

    def serve(self) -> None:
        """It serves from now on; of no effect when it does."""
        if self._expiry is None:
            self._watch_expiry()

    def close(self) -> None:
        """It serves no more."""
        super().close()
        self._subscribers.clear()
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None

    # -- renewal

    def _read(self, seen: bytes) -> Loaded | Flawed | None:
        found = certificate_files.look(self.settings, seen)
        return None if found is None else self._maker.make(found)

    def _take(self, made: Loaded) -> None:
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
        self._look_at_date()

    def _refuse(self, flaw: Flaw) -> None:
        self._event("certificate_refused", certificate=self.name, file=flaw.file, error=flaw.text)

    # -- expiry

    def _watch_expiry(self) -> None:
        self._expiry = self._agenda.plan(EXPIRY_EVERY, self._watch_expiry)
        self._look_at_date()

    def _look_at_date(self) -> None:
        """Tell of each step towards an end once."""
        now = self._clock.time()
        before, self._warned = self._warned, {}
        for one in endings(self._made, now):
            if one.step is not None:
                self._warned[one.sha256] = one.step
                if one.step < before.get(one.sha256, one.step + 1):
                    self._tell_expiry(one, now)

    def _tell_expiry(self, one: Ending, now: float) -> None:
        self._event(
            "certificate_expires",
            certificate=self.name,
            days=int((one.not_after - now) // 86_400),
            not_after=time_text(one.not_after),
            **one.told,
        )


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
    def all(self) -> tuple[Certificate, ...]:
        """Each of them."""
        return tuple(self._all.values())

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

    @property
    def known(self) -> Known:
        """What they are known by."""
        return frozenset((name, one.settings) for name, one in self._all.items())


# The process -----------------------------------------------------------------------------------------------


#: Of a configuration without certificates.
NONE: Final = Examined({}, {}, {}, [])


class Store:
    """What outlives the generations: ticket keys, plans, the watch; and the certificates that count now."""

    def __init__(self, world: World, follow: Follow) -> None:
        tickets = Tickets(os.urandom, world.clock.time)
        agenda = Agenda("certificates", world.tasks, world.clock, 1)
        self._around = Around(world, tickets, agenda)
        self._watch = FileWatch(follow)
        self._current = Certificates({})

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
        self._watch.serve(certificates.all)

    @property
    def known(self) -> Known:
        """Those that serve: a reload need not look at their files, which may just be being replaced."""
        return self._current.known

    def look(self) -> None:
        """Take into use what is new in the files (waits)."""
        self._watch.look()

    def seconds_left(self) -> dict[str, float]:
        """Name → seconds until it expires; less than 0: it has."""
        return self._current.seconds_left()

    def add_to(self, page: Page) -> None:
        """When those that count now expire."""
        for one in self._current.all:
            one.add_to(page)

    def close(self) -> None:
        """Watch nothing any more."""
        self._watch.close()
        self._current.retire()
