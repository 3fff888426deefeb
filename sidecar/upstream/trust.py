"""Whom an upstream believes, and what it shows of itself: a TLS context that is renewed with its files.

Law: reading blocks, so it happens in a thread; what is in use goes on until what replaces it is whole. With
new files connections are made anew; none that stands takes another request.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple, Protocol

import gevent
from gevent.lock import BoundedSemaphore

from ..config.merge import Configuration
from ..errors import ConfigurationError, TlsError
from ..kept import Kept
from ..net.certificate_files import Flaw, PemFile, read_file
from ..net.tls import ClientContext, Pair
from ..runtime import World
from .settings import UpstreamSettings
from .trust_settings import TrustOptions

#: Seconds in which one of several files may be replaced without the others before that is a mistake.
GRACE: Final = 2.0

_ALPN: Final = {"https": (b"http/1.1",), "h2": (b"h2",)}


class Made(NamedTuple):
    """A context, and the mark of the files that it was made from: another one when they are others."""

    mark: bytes
    context: ClientContext


class Refused(NamedTuple):
    """Files that cannot be used."""

    mark: bytes
    flaw: Flaw


def make(options: TrustOptions, seen: bytes = b"") -> Made | Refused | None:
    """Read the files and make a context of them (blocks); None when their mark is `seen`."""
    named = [
        (key, path) for key in ("tls_ca", "tls_certificate", "tls_key") if (path := getattr(options, key))
    ]
    files = {key: read_file(path) for key, path in named}
    mark = _mark(files)
    if mark == seen:
        return None
    for key, path in named:
        if files[key].trouble:
            return Refused(mark, Flaw(key, path, files[key].trouble))
    ca = files["tls_ca"].data if "tls_ca" in files and options.tls_verify else None
    pair = Pair(files["tls_certificate"].data, files["tls_key"].data) if options.tls_certificate else None
    try:
        context = ClientContext(verify=options.tls_verify, ca=ca, pair=pair, alpn=_ALPN[options.protocol])
    except TlsError as error:
        return Refused(mark, _flaw(options, error))
    return Made(mark, context)


def _flaw(options: TrustOptions, error: TlsError) -> Flaw:
    key = {"certificate": "tls_certificate", "key": "tls_key"}.get(error.option, error.option or "protocol")
    return Flaw(
        key, getattr(options, key) if key in ("tls_ca", "tls_certificate", "tls_key") else "", str(error)
    )


def _mark(files: Mapping[str, PemFile]) -> bytes:
    digest = hashlib.sha256()
    for key, file in files.items():
        for part in (key.encode(), file.trouble.encode(), file.data):
            digest.update(b"%d:" % len(part))
            digest.update(part)
    return digest.digest()


class Trust:
    """The context of an upstream. A value for `Kept`."""

    def __init__(self, name: str, options: TrustOptions, made: Made, world: World) -> None:
        self._name = name
        self._options = options
        self._made = made
        self._world = world
        self._looking = BoundedSemaphore(1)
        self._is_closed = False
        self._failed = b""  # the mark of files that could not be used, and since when
        self._failed_at = 0.0
        self._told = b""  # the mark of those whose refusal was told
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
        self._is_closed = True
        self.renewed = _nobody

    def look(self) -> None:
        """Take into use what the files say, if that is new and whole (waits)."""
        with self._looking:
            made = gevent.get_hub().threadpool.apply(make, (self._options, self._made.mark))
            if self._is_closed:
                return
            if made is None:
                self._failed = self._told = b""
            elif isinstance(made, Refused):
                self._refuse(made)
            else:
                self._failed = self._told = b""
                self._made = made
                self.renewed()
                self._world.event("upstream_tls_renewed", upstream=self._name)

    def _refuse(self, refused: Refused) -> None:
        now = self._world.clock.monotonic()
        if refused.mark == self._told:
            return
        if refused.mark != self._failed:
            # Often the first of two files; the other one follows, and brings another look.
            self._failed, self._failed_at = refused.mark, now
        if now - self._failed_at < GRACE:
            self._world.tasks.spawn("upstream tls files", self._look_later, self._failed_at + GRACE - now)
            return
        self._told = refused.mark
        flaw = refused.flaw
        self._world.event("upstream_tls_refused", upstream=self._name, file=flaw.file, error=flaw.text)

    def _look_later(self, seconds: float) -> None:
        self._world.pause(seconds)
        if not self._is_closed:
            self.look()


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

        def make(name: str) -> Trust:
            return Trust(name, settings[name], self.made[name], world)

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
            flaw = made.flaw
            line = configuration.mistake(UpstreamSettings.KIND, name, flaw.key, str(flaw))
            examined.mistakes[name] = [line]
        if not settings.tls_verify:
            text = "whoever stands on the way to its servers can read and change all: write on, and tls_ca"
            examined.warnings.append(configuration.mistake(UpstreamSettings.KIND, name, "tls_verify", text))
    return examined


class Watching(Protocol):
    """A `watch.Watch`."""

    def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """End; nothing is called any more."""


#: (files, what to call when they may have changed) → what watches them.
Follow = Callable[[Sequence[str], Callable[[], None]], Watching]


class TrustWatch:
    """Watches the files of all upstreams that count now. A value for `Kept`."""

    def __init__(self, follow: Follow) -> None:
        self._follow = follow
        self._trusts: tuple[Trust, ...] = ()
        self._files: tuple[str, ...] = ()
        self._watch: Watching | None = None

    def serve(self, trusts: Sequence[Trust]) -> None:
        """These are what counts from now on."""
        self._trusts = tuple(trusts)
        files = tuple(sorted({path for one in trusts for path in one.files}))
        if files != self._files:
            self._stop()
            self._files = files
            if files:
                self._watch = self._follow(files, self.look)
                self._watch.start()

    def look(self) -> None:
        """Take into use what is new in the files (waits)."""
        for one in self._trusts:
            one.look()

    def close(self) -> None:
        """Watch nothing any more."""
        self._trusts = self._files = ()
        self._stop()

    def _stop(self) -> None:
        if self._watch is not None:
            self._watch.stop()
            self._watch = None
