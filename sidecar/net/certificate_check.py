"""What is wrong, or doubtful, with the certificates of a configuration: their files are read and tried."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final, NamedTuple

from ..config.merge import Configuration
from ..runtime import Clock
from .certificate_files import Flaw, Found, Loaded, Maker, look
from .certificate_settings import CertificateSettings
from .certificate_terms import doubts
from .settings import ListenerSettings
from .tls import Tickets

_KIND: Final = CertificateSettings.KIND


#: Name and settings of certificates that serve.
Known = frozenset[tuple[str, CertificateSettings]]


class Examined(NamedTuple):
    """What was read, and what is to be said about it in whole lines for the user."""

    found: dict[str, Found]  # by the names of all certificates that were not known
    names: dict[str, tuple[str, ...]]  # what those of them that can be used are for
    mistakes: dict[str, list[str]]  # by the names of those that cannot be used
    warnings: list[str]


def examine(configuration: Configuration, clock: Clock, known: Known = frozenset()) -> Examined:
    """Read the files of all certificates but the known ones (blocks), and try whether they can serve."""
    # Nothing ever serves with what is made here.
    tickets = Tickets(os.urandom, clock.time)
    now = clock.time()
    examined = Examined({}, {}, {}, [])
    for name, settings in configuration.named(CertificateSettings).items():
        if (name, settings) in known:
            continue
        found = look(settings)
        assert found is not None
        examined.found[name] = found
        made = Maker(name, settings, tickets).make(found)
        if isinstance(made, Loaded):
            examined.names[name] = made.names
        else:
            examined.mistakes[name] = told(configuration, name, made.flaws)
        if found.material is not None:
            for flaw in doubts(settings, found.material, now):
                examined.warnings.append(configuration.mistake(_KIND, name, flaw.key, str(flaw)))
    examined.warnings.extend(_idle(configuration))
    examined.warnings.extend(_shared(configuration, examined.names))
    return examined


def told(configuration: Configuration, name: str, flaws: tuple[Flaw, ...]) -> list[str]:
    """The lines for what is wrong with a certificate."""
    return [configuration.mistake(_KIND, name, flaw.key, str(flaw)) for flaw in flaws]


def _idle(configuration: Configuration) -> Iterator[str]:
    """What is written and has no effect."""
    used = {name for one in configuration.named(ListenerSettings).values() for name in one.tls}
    for name, settings in configuration.named(CertificateSettings).items():
        if name not in used:
            text = f"no listener names it: write tls = {name} in the one that is to use it"
            yield configuration.mistake(_KIND, name, "", text)
        for key, text in settings.idle():
            yield configuration.mistake(_KIND, name, key, text)


def _shared(configuration: Configuration, names: dict[str, tuple[str, ...]]) -> Iterator[str]:
    """Names for which a listener has several certificates."""
    for listener, settings in configuration.named(ListenerSettings).items():
        first: dict[str, str] = {}
        for certificate in settings.tls:
            for name in names.get(certificate, ()):
                winner = first.setdefault(name, certificate)
                if winner != certificate:
                    text = f"{winner} and {certificate} are both for {name}: clients get {winner}"
                    yield configuration.mistake(ListenerSettings.KIND, listener, "tls", text)
