"""The life of the process: start, reload, rotate, drain, end."""

from __future__ import annotations

import gc
import os
import resource
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import gevent
from gevent.event import Event

from . import __version__
from .app import Application, Prepared, prepare
from .config.merge import Configuration, load
from .errors import ConfigurationError
from .observe.access import AccessLog
from .observe.events import Events
from .observe.writer import Writer
from .reload import HUP, WATCH, Reloader, later
from .runtime import SystemClock, Tasks
from .settings import SECTIONS, SidecarSettings
from .watch import Watch

#: Seconds the logs get to write what pends when the process ends.
_LAST_LINES = 2.0


def run(directory: Path, with_demo: bool) -> int:
    """Serve `directory` until told to stop; the exit status. Raises ConfigurationError before serving."""
    if with_demo:
        from . import demo

        server = demo.start("127.0.0.1:8000")
    prepared = _prepared(directory, os.environ)
    process = Process(directory, prepared.configuration)
    try:
        return process.run(prepared)
    finally:
        if with_demo:
            server.stop()


class Process:
    """The running sidecar: its logs, its application and its signals."""

    def __init__(self, directory: Path, configuration: Configuration) -> None:
        self._directory = directory
        self._clock = SystemClock()
        self._settings = configuration.only(SidecarSettings)
        self._writers: dict[str, Writer] = {}
        self._events = self._open_events(self._settings)
        self._access = self._open_access(configuration)
        self._tasks = Tasks(lambda task, error: self._events.task_died(task, error))
        self._application = Application(self._event, lambda: self._access, self._clock.monotonic)
        self._stop = Event()
        self._stops = 0

    def _event(self, name: str, **fields: Any) -> None:
        self._events.event(name, **fields)

    # -- logs

    def _writer(self, target: str) -> Writer:
        writer = self._writers.get(target)
        if writer is None:
            writer = Writer(target, on_problem=self._on_log_problem)
            self._writers[target] = writer
        return writer

    def _on_log_problem(self, name: str, /, **fields: object) -> None:
        if hasattr(self, "_events"):
            self._event(name, **fields)

    def _format(self, settings: SidecarSettings, writer: Writer) -> Literal["json", "console"]:
        if settings.log_format == "auto":
            return "console" if writer.is_terminal else "json"
        return "console" if settings.log_format == "console" else "json"

    def _open_events(self, settings: SidecarSettings) -> Events:
        writer = self._writer("stderr")
        return Events(writer, self._format(settings, writer), settings.log_level, self._clock)  # type: ignore[arg-type]

    def _open_access(self, configuration: Configuration) -> Any:
        settings = configuration.only(SidecarSettings)
        if settings.access_log == "off":
            return None
        try:
            writer = self._writer(settings.access_log)
        except OSError as error:
            advice = f"{settings.access_log}: {error.strerror}: make it writable, or name another"
            mistake = configuration.mistake("sidecar", "", "access_log", advice)
            raise ConfigurationError([mistake]) from error
        return AccessLog(writer, self._format(settings, writer), self._clock)

    # -- life

    def run(self, prepared: Prepared) -> int:
        """Serve what was prepared, and what replaces it, until a signal says otherwise."""
        limit = self._raise_descriptors()
        self._application.apply(prepared)
        # What is here now stays for long; the collector need not look through it again and again.
        gc.collect()
        gc.freeze()
        reloader = Reloader(self._load, self._apply, self._event, self._clock, later(self._tasks))
        reloader.fingerprint = prepared.fingerprint
        del prepared  # a reload replaces it, and this call lasts
        watch = Watch(self._directory, lambda: reloader.request(WATCH), self._event)
        watch.start()
        self._handle_signals(reloader)
        self._event(
            "started", version=__version__, pid=os.getpid(), conf=str(self._directory), descriptors=limit
        )
        self._stop.wait()
        watch.stop()
        reloader.stop()
        return self._drain()

    def _load(self) -> Prepared:
        # Disk, and much work when there are very many routes: not in the hub's thread.
        pool = gevent.get_hub().threadpool
        prepared = pool.apply(_prepared_or_mistakes, (self._directory, dict(os.environ)))
        if isinstance(prepared, ConfigurationError):
            raise prepared
        return cast(Prepared, prepared)

    def _apply(self, prepared: Prepared) -> None:
        if self._stops:
            # It was read while the process was told to end; its listeners would outlive the drain.
            raise ConfigurationError(["the process ends: nothing new is served"])
        configuration = prepared.configuration
        settings = configuration.only(SidecarSettings)
        access, events = self._access, self._events
        try:
            self._events = self._open_events(settings)
            self._access = self._open_access(configuration)
            self._application.apply(prepared)
        except BaseException:
            self._access, self._events = access, events
            raise
        self._settings = settings

    def _raise_descriptors(self) -> int:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            self._event("descriptors_raised", soft=soft, hard=hard)
        return hard

    def _handle_signals(self, reloader: Reloader) -> None:
        gevent.signal_handler(signal.SIGTERM, self._on_stop)
        gevent.signal_handler(signal.SIGINT, self._on_stop)
        gevent.signal_handler(signal.SIGHUP, reloader.request, HUP)
        gevent.signal_handler(signal.SIGUSR1, self._reopen)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    def _on_stop(self) -> None:
        self._stops += 1
        if self._stops > 1:
            os._exit(1)
        self._stop.set()

    def _reopen(self) -> None:
        for target, writer in self._writers.items():
            # A log that an earlier configuration named gets the last lines of its exchanges, no new file.
            if target == self._settings.access_log:
                writer.reopen()

    def _drain(self) -> int:
        settings = self._settings
        self._event("draining", delay=settings.drain_delay, timeout=settings.drain_timeout)
        gevent.sleep(settings.drain_delay)
        self._application.drain()
        until = self._clock.monotonic() + settings.drain_timeout
        while self._application.open_sessions and self._clock.monotonic() < until:
            gevent.sleep(0.02)
        left = self._application.open_sessions
        self._event("drained", cut_off=left)
        self._application.close()
        self._tasks.stop()
        self._event("stopped", pid=os.getpid())
        for writer in self._writers.values():
            writer.close(_LAST_LINES)
        return 0


def _prepared_or_mistakes(directory: Path, environ: dict[str, str]) -> Prepared | ConfigurationError:
    """For a thread, whose exceptions would be printed before anybody can catch them."""
    try:
        return _prepared(directory, environ)
    except ConfigurationError as error:
        return error


def _prepared(directory: Path, environ: Mapping[str, str]) -> Prepared:
    with _uncollected():
        return prepare(load(directory, SECTIONS, environ))


@contextmanager
def _uncollected() -> Iterator[None]:
    """No garbage is collected meanwhile: what is made stays.

    With ten thousand routes a collection stops all threads for a fifth of a second; a load causes several.
    """
    gc.disable()
    try:
        yield
    finally:
        # All that is young becomes old without being looked through.
        gc.freeze()
        gc.unfreeze()
        gc.enable()
