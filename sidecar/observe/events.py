"""What happened to the process: events with stable names, through structlog, one line each.

People alert on the names: add, never rename. Whatever a field holds, an event is one line of JSON, or one
line for a person whose continuation (a traceback) is indented.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Final, Literal, NamedTuple, Protocol

from ..runtime import Clock
from .text import fit, shown, time_text


@contextmanager
def _without(*names: str) -> Iterator[None]:
    """Import as if these modules were empty."""
    absent = [name for name in names if name not in sys.modules]
    sys.modules.update((name, ModuleType(name)) for name in absent)
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


# structlog imports asyncio, and rich where it is installed: megabytes that a sidecar pays for and never uses.
with _without("asyncio", "rich"):
    import structlog

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["json", "console"]

_MAX_TEXT: Final = 4096  # characters of one field
_MAX_TRACEBACK: Final = 16384
_MAX_ITEMS: Final = 64  # of a list or mapping in a field
_MAX_DEPTH: Final = 4
_MARK: Final = "…"
_NUMBERS: Final[dict[str, int]] = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_COLOURS: Final[dict[str, str]] = {"debug": "2", "info": "32", "warning": "33", "error": "31;1"}


class Declared(NamedTuple):
    """What a name stands for."""

    level: Level
    meaning: str  # a sentence for the manual
    is_spared: bool = False  # strangers can cause it at will: of many some are told (`sparing`)


#: name → level and meaning. The manual's table of events is made from it.
EVENTS: Final[dict[str, Declared]] = {
    "started": Declared("info", "The process serves its listeners."),
    "stopped": Declared("info", "The process ends; nothing is in flight."),
    "draining": Declared(
        "info", "The process ends: after `drain_delay` it takes no connection, what is in flight may finish."
    ),
    "drained": Declared("info", "Draining is over: everything finished, or its time was up."),
    "reload_applied": Declared("info", "A new configuration serves from now on."),
    "reload_refused": Declared("error", "A new configuration has mistakes; the old one goes on."),
    "reload_unchanged": Declared("info", "The configuration was read again and says the same."),
    "upgrade_started": Declared("info", "A new process starts on the listening sockets of this one."),
    "upgrade_applied": Declared("info", "The new process serves; this one takes no connections and ends."),
    "upgrade_failed": Declared("error", "The new process does not serve; this one goes on."),
    "upgrade_ignored": Declared("warning", "An upgrade was asked for at a moment when none can begin."),
    "became_init": Declared(
        "info", "The process has handed over and is process 1: it stays until the others have ended."
    ),
    "listener_bound": Declared("info", "A listener takes connections."),
    "listener_closed": Declared("info", "A listener takes no more connections."),
    "listener_failed": Declared(
        "error", "A listener lost its address to another process as a reload failed."
    ),
    "accept_paused": Declared("warning", "Descriptors or connections are used up; new clients wait."),
    "proxy_header_refused": Declared(
        "warning", "A connection does not begin with the PROXY header it needs.", is_spared=True
    ),
    "tls_handshake_failed": Declared(
        "info",
        "A client did not come to terms: its TLS handshake failed, took too long or was given up.",
        is_spared=True,
    ),
    "tls_handshake_abandoned": Declared(
        "debug", "A client of a TLS listener left without a word.", is_spared=True
    ),
    "http2_refused": Declared(
        "warning",
        "An HTTP/2 connection was ended because its client broke a rule, which is named.",
        is_spared=True,
    ),
    "accept_resumed": Declared("info", "New connections are taken again."),
    "descriptors_raised": Declared("info", "The soft limit of open files was raised to the hard one."),
    "watch_degraded": Declared(
        "warning", "Changes are looked for every few seconds: the kernel does not report all."
    ),
    "log_dropped": Declared("warning", "A log does not keep up: lines are dropped, or were until now."),
    "log_failed": Declared("error", "A log cannot be written or opened again; lines wait in memory."),
    "log_recovered": Declared("info", "A log that failed is written again."),
    "log_reopened": Declared("info", "A log file was opened anew after a rotation."),
    "task_died": Declared("error", "A background task ended with an exception."),
    "exchange_failed": Declared("error", "An exchange met an error of the proxy itself (internal_error)."),
    "upstream_added": Declared("info", "An upstream has new servers."),
    "upstream_removed": Declared("info", "Servers of an upstream are gone."),
    "server_down": Declared("warning", "A server failed its health checks and is not asked any more."),
    "server_up": Declared("info", "A server passes its health checks again, or for the first time."),
    "server_ejected": Declared("warning", "A server did worse than the others and rests for a while."),
    "server_returned": Declared("info", "A server that rested may be asked again."),
    "circuit_opened": Declared("warning", "An upstream failed too often: requests are refused for a while."),
    "circuit_half_open": Declared("info", "A few requests try an upstream whose circuit was open."),
    "circuit_closed": Declared("info", "An upstream answers again: requests go to it as before."),
    "dns_failed": Declared("warning", "A name does not resolve; its last addresses are kept."),
    "dns_recovered": Declared("info", "A name resolves again."),
    "dns_changed": Declared("info", "A name has other addresses than before."),
    "certificate_renewed": Declared("info", "The files of a certificate are new: it serves with them."),
    "certificate_refused": Declared(
        "error", "The new files of a certificate cannot be used; the old ones serve on."
    ),
    "upstream_tls_renewed": Declared(
        "info", "The files an upstream believes servers by are new: connections are made with them."
    ),
    "upstream_tls_refused": Declared(
        "error", "The new files of an upstream's TLS cannot be used; the old ones stay."
    ),
    "certificate_expires": Declared(
        "warning", "A certificate, or its list of revoked ones, expires in so many days, or has expired."
    ),
}

_OWN: Final = frozenset({"time", "level", "event"})


class Output(Protocol):
    """Where lines go; a Writer."""

    is_terminal: bool

    def write(self, line: bytes) -> None:
        """Take one complete line."""


class Events:
    """The events of this process, from `level` up, as `fmt` to `output`."""

    __slots__ = ("_log",)

    def __init__(self, output: Output, fmt: Format, level: Level, clock: Clock) -> None:
        render = _render_json if fmt == "json" else _render_console(output.is_terminal)
        self._log: Any = structlog.wrap_logger(
            _Sending(output.write),
            processors=[structlog.processors.format_exc_info, _ordered(clock), render],
            wrapper_class=structlog.make_filtering_bound_logger(_NUMBERS[level]),
            cache_logger_on_first_use=True,
        )

    def event(self, name: str, /, **fields: object) -> None:
        """Log what is declared as `name`. A field `exc_info` (an exception) becomes its traceback.

        Raises LookupError for a name that is not declared and ValueError for a field every event has.
        """
        if not _OWN.isdisjoint(fields):
            raise ValueError(f"fields that every event has: {sorted(_OWN & fields.keys())}")
        self._log.log(_NUMBERS[EVENTS[name].level], name, **fields)


class _Sending:
    """The end of structlog's chain: takes the rendered line."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self.debug = self.info = self.warning = self.error = write


def _ordered(clock: Clock) -> Callable[[Any, str, Any], Any]:
    """A processor: time, level and event first, every value plain."""

    def order(_logger: Any, level: str, fields: dict[str, Any]) -> dict[str, Any]:
        name = fields.pop("event")
        line = {"time": time_text(clock.time()), "level": level, "event": name}
        for key, value in fields.items():
            line[key] = _tail(value) if key == "exception" else _plain(value, _MAX_DEPTH)
        return line

    return order


def _render_json(_logger: Any, _level: str, line: Mapping[str, Any]) -> bytes:
    return json.dumps(line, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def _render_console(colour: bool) -> Callable[[Any, str, Any], bytes]:
    """A processor: `time level event key=value …`, then the traceback, indented."""

    def render(_logger: Any, level: str, line: dict[str, Any]) -> bytes:
        traceback = line.pop("exception", "")
        parts = [line.pop("time"), f"{line.pop('level'):7}", line.pop("event")]
        if colour:
            parts[1] = f"\x1b[{_COLOURS[level]}m{parts[1]}\x1b[0m"
        parts += [f"{key}={_shown(value)}" for key, value in line.items()]
        text = " ".join(parts)
        for row in traceback.splitlines():
            text += f"\n    {_printable(row)}"
        return text.encode() + b"\n"

    return render


def _shown(value: Any) -> str:
    return shown(value) if isinstance(value, str) else json.dumps(value)


def _printable(row: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in row)


def _plain(value: Any, depth: int) -> Any:
    """The value in the terms of JSON, bounded."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes | bytearray):
        return fit(bytes(value), _MAX_TEXT)
    if depth and isinstance(value, Mapping):
        return {
            fit(str(key), _MAX_TEXT): _plain(each, depth - 1)
            for key, each in list(value.items())[:_MAX_ITEMS]
        }
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [_plain(each, depth - 1) for each in list(value)[:_MAX_ITEMS]]
    return fit(str(value), _MAX_TEXT)


def _tail(traceback: str) -> str:
    """The end of a traceback tells most."""
    tail = traceback[-_MAX_TRACEBACK:]
    return fit(tail if tail == traceback else f"{_MARK}\n{tail}", 2 * _MAX_TRACEBACK)
