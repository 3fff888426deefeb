"""Numbers about the process in the text format of Prometheus, version 0.0.4.

Law: a name is declared once, with its labels; people alert on both: add, never rename. What is not counted
anyway is counted by its event (`Counters`), so nothing of this costs a request.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Final, Literal, NamedTuple

from .events import EVENTS

#: How a page is named to who asks for it.
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Kind = Literal["counter", "gauge"]


class Declared(NamedTuple):
    """What a name stands for."""

    kind: Kind
    labels: tuple[str, ...]
    meaning: str  # a sentence for the manual and the page


#: Events that have a counter of their own → the fields that tell its counts apart: names of a configuration,
#: and of rules. No addresses: there is no end to those.
_COUNTED: Final[dict[str, tuple[str, ...]]] = {
    "certificate_renewed": ("certificate",),
    "certificate_refused": ("certificate",),
    "circuit_opened": ("upstream",),
    "http2_refused": ("listener", "rule"),
    "proxy_header_refused": ("listener", "rule"),
    "server_down": ("upstream",),
    "server_ejected": ("upstream",),
    "tls_handshake_abandoned": ("listener",),
    "tls_handshake_failed": ("listener",),
    "upstream_tls_renewed": ("upstream",),
    "upstream_tls_refused": ("upstream",),
}

#: name → kind, labels and meaning. The manual's table of metrics is made from it.
METRICS: Final[dict[str, Declared]] = {
    "process_cpu_seconds_total": Declared("counter", (), "CPU time of the process, user and system."),
    "process_max_fds": Declared("gauge", (), "File descriptors that the process may have."),
    "process_open_fds": Declared("gauge", (), "File descriptors that it has."),
    "process_resident_memory_bytes": Declared("gauge", (), "Memory of the process, what it shares included."),
    "process_start_time_seconds": Declared("gauge", (), "When the process started, in seconds since 1970."),
    "sidecar_build_info": Declared("gauge", ("version",), "1; the version is in the label."),
    "sidecar_certificate_crl_expiry_timestamp_seconds": Declared(
        "gauge", ("certificate", "issuer"), "When a list of revoked client certificates expires."
    ),
    "sidecar_certificate_expiry_timestamp_seconds": Declared(
        "gauge", ("certificate", "file"), "When a certificate that serves expires, in seconds since 1970."
    ),
    "sidecar_configuration_last_reload_successful": Declared(
        "gauge", (), "1, or 0 while the last change of the configuration is refused."
    ),
    "sidecar_connections": Declared("gauge", (), "Connections of clients."),
    "sidecar_connections_max": Declared("gauge", (), "How many there may be: `max_connections`."),
    "sidecar_events_total": Declared(
        "counter", ("event",), "Events of each name, those not logged included."
    ),
    "sidecar_ready": Declared("gauge", (), "1 when `/readyz` says 200, else 0."),
    "sidecar_upstream_server_active": Declared(
        "gauge", ("upstream", "server"), "Attempts in progress at a server, tunnels included."
    ),
    "sidecar_upstream_server_usable": Declared(
        "gauge", ("upstream", "server"), "1 when requests may be sent to a server, else 0."
    ),
    **{
        f"sidecar_{event}_total": Declared("counter", labels, EVENTS[event].meaning)
        for event, labels in _COUNTED.items()
    },
}

_UNFIT: Final = re.compile(r'[\\"\n]')
_ESCAPES: Final = {"\\": "\\\\", '"': '\\"', "\n": "\\n"}


class Page:
    """What one answer says. Samples of a name stay together, in whatever order they are added."""

    def __init__(self) -> None:
        self._samples: dict[str, dict[str, float]] = {}  # name → labels as they are written → value
        self.size = 0  # how many were added

    def add(self, name: str, value: float, *labels: str) -> None:
        """A sample of what is declared as `name`, with the values of its labels; the last one counts.

        Raises LookupError when it is not declared and ValueError when its labels are others.
        """
        declared = METRICS[name]
        pairs = zip(declared.labels, labels, strict=True)
        text = ",".join(f'{label}="{_escaped(of)}"' for label, of in pairs)
        self._samples.setdefault(name, {})[text] = value
        self.size += 1

    def start(self, label: str, value: str) -> None:
        """Counters that have this label alone begin at 0, so that the first of a kind is an increase."""
        for event, labels in _COUNTED.items():
            if labels == (label,):
                self.add(f"sidecar_{event}_total", 0, value)

    def lines(self) -> Iterator[bytes]:
        """The page, names in order."""
        for name, samples in sorted(self._samples.items()):
            declared = METRICS[name]
            yield f"# HELP {name} {declared.meaning}\n# TYPE {name} {declared.kind}\n".encode()
            for labels, value in samples.items():
                yield (f"{name}{{{labels}}} " if labels else f"{name} ").encode() + _number(value)


def _escaped(text: str) -> str:
    # A file may have a name that is no text.
    text = text.encode("utf-8", "backslashreplace").decode()
    return _UNFIT.sub(lambda found: _ESCAPES[found[0]], text)


def _number(value: float) -> bytes:
    if math.isfinite(value):
        return b"%d\n" % value if value == int(value) else f"{value!r}\n".encode()
    return b"NaN\n" if math.isnan(value) else b"+Inf\n" if value > 0 else b"-Inf\n"


class Counters:
    """How often each event came since the process began."""

    __slots__ = ("_counts", "_events")

    def __init__(self) -> None:
        # From 0 on, so that the first of a kind is an increase.
        self._events = dict.fromkeys(EVENTS, 0)
        self._counts: dict[tuple[str, ...], int] = {}  # event and the values of its labels → count

    def event(self, name: str, fields: Mapping[str, object]) -> None:
        """One more. Raises LookupError for a name that is not declared."""
        self._events[name] += 1
        labels = _COUNTED.get(name)
        if labels is not None:
            key = (name, *(str(fields.get(label, "")) for label in labels))
            self._counts[key] = self._counts.get(key, 0) + 1

    def add_to(self, page: Page) -> None:
        """All counts."""
        for name, count in self._events.items():
            page.add("sidecar_events_total", count, name)
        for (name, *labels), count in self._counts.items():
            page.add(f"sidecar_{name}_total", count, *labels)
