"""The life of the process: start, reload, rotate, hand over, drain, end."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import gevent
from gevent.event import Event

from . import __version__
from .app import Application, Prepared, prepare
from .collector import settle, undisturbed
from .config.merge import Configuration, load
from .errors import ConfigurationError
from .init import Init
from .net.inherit import Heritage, Inherited, receive
from .net.notify import Notify
from .observe.access import AccessLog
from .observe.events import Events
from .observe.metrics import Counters
from .observe.sink import open_advice
from .observe.sparing import Sparing
from .observe.writer import Writer
from .packed import leave
from .paths import DropIns
from .places import LAST_CALL
from .reload import HUP, WATCH, Reloader, later
from .runtime import Random, SystemClock, Tasks, World
from .settings import SECTIONS, SidecarSettings
from .upgrade import Upgrade
from .watch import Watch

if TYPE_CHECKING:
    from .demo import DemoServer
    from .net.certificate_check import Known

#: Seconds the logs get to write what pends when the process ends.
_LAST_LINES: Final = 2.0
_POLL: Final = 0.02

_DEMO: Final = "127.0.0.1:8000"
_DEMO_KEY: Final = f"demo {_DEMO}"

#: Held back by whoever started this process until it listens to them.
_WORDS: Final = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def run(directory: Path, with_demo: bool) -> int:
    """Serve `directory` until told to stop; the exit status. Raises ConfigurationError before serving."""
    inherited = receive(os.environ)
    server = None
    if with_demo:
        from . import demo

        server = demo.start(_DEMO, inherited.take(_DEMO_KEY))
    try:
        prepared = _prepared(directory, os.environ)
        process = Process(directory, prepared.configuration, inherited, server)
        status = process.run(prepared)
    finally:
        if server is not None:
            server.stop()
    return process.remain() if process.is_process_1 and process.has_handed_over else status


class Process:
    """The running sidecar: its logs, its application and its signals."""

    def __init__(
        self,
        directory: Path,
        configuration: Configuration,
        inherited: Inherited | None = None,
        demo: DemoServer | None = None,
    ) -> None:
        self._directory = directory
        self._clock = SystemClock()
        self._settings = configuration.only(SidecarSettings)
        self._counters = Counters()
        self._tell = Sparing(self._log_event, self._clock.monotonic)
        self._writers: dict[str, Writer] = {}
        self._events = self._open_events(self._settings)
        self._access = self._open_access(configuration)
        self._tasks = Tasks(lambda task, error: self._event("task_died", task=task, exc_info=error))
        self._inherited = inherited or Inherited()
        self._demo = demo
        world = World(self._tasks, self._clock, Random(), self._event)
        self._application = Application(world, lambda: self._access, self._inherited, self._counters)
        self._notify = Notify(os.environ, os.getpid())
        self._stop = Event()
        self._stops = 0
        self._init = Init() if os.getpid() == 1 else None
        reaped = self._init.status_of if self._init is not None else None
        self._upgrade = Upgrade(self._event, self._tasks, self._heritage, self._stop.set, reaped)
        self.has_handed_over = False

    @property
    def is_process_1(self) -> bool:
        """Whether the others end when this one does: it is the first of a container."""
        return self._init is not None

    def _event(self, name: str, /, **fields: Any) -> None:
        self._counters.event(name, fields)
        self._tell(name, **fields)

    def _log_event(self, name: str, /, **fields: Any) -> None:
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
            advice = f"{settings.access_log}: {open_advice(error)}"
            mistake = configuration.mistake("sidecar", "", "access_log", advice)
            raise ConfigurationError([mistake]) from error
        return AccessLog(writer, self._format(settings, writer), self._clock)

    # -- life

    def run(self, prepared: Prepared) -> int:
        """Serve what was prepared, and what replaces it, until a signal says otherwise."""
        limit = self._raise_descriptors()
        try:
            self._application.apply(prepared)
        except BaseException:
            # A start that fails leaves no new file behind.
            for writer in self._writers.values():
                writer.withdraw()
            raise
        settle()
        reloader = Reloader(self._load, self._apply, self._on_reloaded, self._clock, later(self._tasks))
        reloader.fingerprint = prepared.fingerprint
        del prepared  # a reload replaces it, and this call lasts
        watch = Watch(DropIns(self._directory), lambda: reloader.request(WATCH), self._event)
        watch.start()
        self._handle_signals(reloader)
        self._event(
            "started", version=__version__, pid=os.getpid(), conf=str(self._directory), descriptors=limit
        )
        self._inherited.serves(self._sockets())
        if self._inherited.is_heir:
            self._tasks.spawn("announce", self._announce)
        else:
            self._announce()
        self._stop.wait()
        watch.stop()
        reloader.stop()
        if self._upgrade.pid and not self._stops:
            self._hand_over()
        else:
            self._drain()
        return self._end()

    def _announce(self) -> None:
        """Tell the service manager: of a process that took over, it hears nothing before it knows it."""
        self._inherited.wait_left()
        if not self._stops:
            self._notify.ready(self._serving())
            if self._notify.interval:
                self._tasks.spawn("watchdog", self._watchdog)

    def _watchdog(self) -> None:
        while self._notify.interval:
            self._notify.ping()
            gevent.sleep(self._notify.interval)

    def _serving(self) -> str:
        found = [str(address) for some in self._application.addresses().values() for address in some]
        unknown = self._application.unknown_names()
        lacking = f"; not resolved yet: {', '.join(unknown)}" if unknown else ""
        return f"serving {', '.join(found)}{lacking}" if found else "no listener is configured"

    def _sockets(self) -> list[str]:
        return [*self._application.places(), *([_DEMO_KEY] if self._demo is not None else [])]

    def _heritage(self) -> Heritage:
        placed = self._application.descriptors()
        if self._demo is not None:
            placed[_DEMO_KEY] = self._demo.descriptor
        return Heritage(self._inherited.named(), placed)

    def _load(self) -> Prepared:
        # A process that starts for an upgrade reads the same change; both would bind what is new.
        self._upgrade.wait_settled()
        # Disk, and much work when there are very many routes: not in the hub's thread.
        pool = gevent.get_hub().threadpool
        known = self._application.known_certificates()
        prepared = pool.apply(_prepared_or_mistakes, (self._directory, dict(os.environ), known))
        self._upgrade.wait_settled()
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

    def _on_reloaded(self, name: str, **fields: Any) -> None:
        """A reload is over: the event, and what the service manager is told."""
        self._event(name, **fields)
        self._application.readiness.refused = fields.get("mistakes", ())
        status = self._serving()
        if name == "reload_refused":
            mistakes = fields["mistakes"]
            more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
            status = f"reload refused: {mistakes[0]}{more}"
        elif name == "reload_unchanged":
            status = f"reload: nothing has changed, {status}"
        if HUP in fields["reason"].split(", "):
            self._notify.ready(status)
        else:
            self._notify.status(status)

    # -- signals

    def _handle_signals(self, reloader: Reloader) -> None:
        for number, act in (
            (signal.SIGTERM, self._on_stop),
            (signal.SIGINT, self._on_stop),
            (signal.SIGHUP, partial(self._on_hup, reloader)),
            (signal.SIGUSR1, self._reopen),
            (signal.SIGUSR2, self._upgrade.request),
        ):
            gevent.signal_handler(number, self._on_signal, number, act)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WORDS)

    def _on_signal(self, number: signal.Signals, act: Callable[[], None]) -> None:
        if self._init is not None and self.has_handed_over:
            self._init.pass_on(number)
            if number == signal.SIGUSR2:
                return
        act()

    def _on_hup(self, reloader: Reloader) -> None:
        if not self._stop.is_set():
            self._notify.reloading(self._clock.monotonic())
            reloader.request(HUP)
            # Their files are no part of what a reload compares.
            self._tasks.spawn("certificates", self._application.look_at_certificates)

    def _on_stop(self) -> None:
        self._stops += 1
        self._application.readiness.is_draining = True
        if self._stops > 1 and not (self.is_process_1 and self.has_handed_over):
            self._upgrade.kill()
            leave(1)
        self._stop.set()

    def _reopen(self) -> None:
        for target, writer in self._writers.items():
            # A log that an earlier configuration named gets the last lines of its exchanges, no new file.
            if target == self._settings.access_log:
                writer.reopen()

    # -- the end

    def _drain(self) -> None:
        delay, timeout = self._settings.drain_delay, self._settings.drain_timeout
        self._upgrade.cancel()
        self._notify.stopping(delay + timeout + _LAST_LINES, "finishing what is in flight")
        self._event("draining", delay=delay, timeout=timeout)
        gevent.sleep(delay)
        self._application.drain()
        # A client that is just sending its next request shall hear of the end in the answer to it.
        self._finish(min(LAST_CALL, timeout / 2))

    def _hand_over(self) -> None:
        """Leave the listening sockets, with all who wait there, to the process that has taken over."""
        timeout = self._settings.drain_timeout
        self.has_handed_over = True
        self._notify.hand_over(self._upgrade.pid)
        self._event("upgrade_applied", pid=self._upgrade.pid)
        self._event("draining", delay=0.0, timeout=timeout)
        self._application.drain(self._upgrade.places)
        if self._demo is not None:
            self._tasks.spawn("demo", self._demo.leave)
        self._upgrade.release()
        # There is no hurry: whoever asks once more in that time meets no closed connection.
        self._finish(max(timeout - LAST_CALL, timeout / 2))

    def _finish(self, patience: float) -> None:
        """Wait until nothing is in flight. Idle connections end after `patience` seconds, or a signal."""
        begun, stops = self._clock.monotonic(), self._stops
        has_retired = False
        while self._application.open_sessions or self._upgrade.is_ending:
            passed = self._clock.monotonic() - begun
            if passed >= self._settings.drain_timeout or self._stops > 1:
                break
            if not has_retired and (passed >= patience or self._stops > stops):
                self._application.retire()
                has_retired = True
            gevent.sleep(_POLL)

    def _end(self) -> int:
        self._event("drained", cut_off=self._application.open_sessions)
        self._application.close()
        self._upgrade.end()
        self._tasks.stop()
        events = self._writer("stderr")
        for writer in self._writers.values():
            if writer is not events:
                # Lines that are lost by that are told of.
                writer.close(_LAST_LINES)
        if self.is_process_1 and self.has_handed_over:
            self._event("became_init", pid=os.getpid(), successor=self._upgrade.pid)
        else:
            self._event("stopped", pid=os.getpid())
        events.close(_LAST_LINES)
        return 0

    def remain(self) -> int:
        """As process 1, after handing over: stay until the others have ended; the status of the last one."""
        assert self._init is not None
        return self._init.run()


def _prepared_or_mistakes(
    directory: Path, environ: dict[str, str], known: Known
) -> Prepared | ConfigurationError:
    """For a thread, whose exceptions would be printed before anybody can catch them."""
    try:
        return _prepared(directory, environ, known)
    except ConfigurationError as error:
        return error


def _prepared(directory: Path, environ: Mapping[str, str], known: Known = frozenset()) -> Prepared:
    with undisturbed():
        return prepare(load(directory, SECTIONS, environ), known)
