"""Whom an upstream believes, and what it shows of itself: a TLS context that is renewed with its files.

Law: reading blocks, so it happens in a thread; what is in use goes on until what replaces it is whole. With
new files connections are made anew; none that stands takes another request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, NamedTuple

from ..config.merge import Configuration
from ..errors import ConfigurationError, TlsError
from ..kept import Kept
from ..net.agenda import Agenda
from ..net.certificate_files import Flaw, Flawed, mark_of, read_file
from ..net.renewal import Renewed
from ..net.tls import ClientContext, Pair
from ..runtime import World
from .settings import UpstreamSettings
from .trust_settings import TrustOptions

_ALPN: Final = {"https": (b"http/1.1",), "h2": (b"h2",)}


class Made(NamedTuple):
    """A context, and the mark of the files that it was made from: another one when they are others."""

    mark: bytes
    context: ClientContext


def make(options: TrustOptions, seen: bytes = b"") -> Made | Flawed | None:
    """Read the files and make a context of them (blocks); None when their mark is `seen`."""
    named = [
        (key, path) for key in ("tls_ca", "tls_certificate", "tls_key") if (path := getattr(options, key))
    ]
    files = {key: read_file(path) for key, path in named}
    mark = mark_of(files)
    if mark == seen:
        return None
    flaws = tuple(Flaw(key, path, files[key].trouble) for key, path in named if files[key].trouble)
    if flaws:
        return Flawed(mark, flaws)
    ca = files["tls_ca"].data if "tls_ca" in files and options.tls_verify else None
    pair = Pair(files["tls_certificate"].data, files["tls_key"].data) if options.tls_certificate else None
    try:
        context = ClientContext(verify=options.tls_verify, ca=ca, pair=pair, alpn=_ALPN[options.protocol])
    except TlsError as error:
        return Flawed(mark, (_flaw(options, error),))
    return Made(mark, context)


def _flaw(options: TrustOptions, error: TlsError) -> Flaw:
    key = {"certificate": "tls_certificate", "key": "tls_key"}.get(error.option, error.option or "protocol")
    return Flaw(
        key, getattr(options, key) if key in ("tls_ca", "tls_certificate", "tls_key") else "", str(error)
    )


class Trust(Renewed[Made]):
    """The context of an upstream. A value for `Kept`."""

    def __init__(self, name: str, options: TrustOptions, made: Made, world: World, agenda: Agenda) -> None:
        super().__init__(made, world.clock, agenda)
        self._name = name
        self._options = options
        self._event = world.event
        self.renewed: Callable[[], None] = _nobody  # told when the context is another one

    @property
    def context(self) -> ClientContext:
        """What connections are made with now."""
        return self._made.context

    @property
    def files(self) -> tuple[str, ...]:
        """All files that it comes from."""
        own = self._options
        return tuple(filter(None, (own.tls_ca, own.tls_certificate, own.tls_key)))

    def close(self) -> None:
        """It is of no more use."""
        super().close()
        self.renewed = _nobody

    def _read(self, seen: bytes) -> Made | Flawed | None:
        return make(self._options, seen)

    def _take(self, made: Made) -> None:
        self.renewed()
        self._event("upstream_tls_renewed", upstream=self._name)

    def _refuse(self, flaw: Flaw) -> None:
        self._event("upstream_tls_refused", upstream=self._name, file=flaw.file, error=flaw.text)


def _nobody() -> None:
    """Nobody wants to know."""


class Examined(NamedTuple):
    """What became of the files of each upstream that speaks TLS, and whole lines for the user about it."""

    made: dict[str, Made]
    mistakes: dict[str, list[str]]  # by the names of those whose files cannot be used
    warnings: list[str]

    def claim(self, settings: Mapping[str, UpstreamSettings], kept: Kept, world: World) -> dict[str, Trust]:
        """Whom each of those believes. One that serves already goes on, whatever its files say now.

        Raises ConfigurationError when the files of another cannot be used.
        """
        keys = {name: ("trust", name, own.trust_key) for name, own in settings.items() if own.is_secure}
        mistakes = [
            line for name, lines in self.mistakes.items() if not kept.has(keys[name]) for line in lines
        ]
        if mistakes:
            raise ConfigurationError(mistakes)

        agenda = Agenda("upstream tls files", world.tasks, world.clock, 1)

        def make(name: str) -> Trust:
            return Trust(name, settings[name], self.made[name], world, agenda)

        return {name: kept.claim(key, partial(make, name)) for name, key in keys.items()}


def examine(configuration: Configuration) -> Examined:
    """Make the contexts of all upstreams that need one (blocks)."""
    examined = Examined({}, {}, [])
    for name, settings in configuration.named(UpstreamSettings).items():
        if not settings.is_secure:
            continue
        made = make(settings)
        if isinstance(made, Made):
            examined.made[name] = made
        elif made is not None:
            examined.mistakes[name] = [
                configuration.mistake(UpstreamSettings.KIND, name, flaw.key, str(flaw)) for flaw in made.flaws
            ]
        if not settings.tls_verify:
            text = "whoever stands on the way to its servers can read and change all: write on, and tls_ca"
            examined.warnings.append(configuration.mistake(UpstreamSettings.KIND, name, "tls_verify", text))
    return examined
