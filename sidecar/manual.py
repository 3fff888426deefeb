"""The manual: the reference of every option, event and metric, from what declares them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .config import manual as options
from .observe.events import EVENTS
from .observe.metrics import METRICS
from .settings import SECTIONS

_EVENTS: Final = """\
# Events

What happens to the process is an event with a name, a level and fields of its own, a line each. Of those
that strangers can cause at will ten are told in ten seconds; the next one says in `left_out` how many were
not.

| event | level | meaning |
| --- | --- | --- |"""

_METRICS: Final = """\
# Metrics

`/metrics` at the address of `admin`, in the text format of Prometheus.

| metric | kind | labels | meaning |
| --- | --- | --- | --- |"""


def manual() -> str:
    """All of it in Markdown."""
    return "\n".join([options.manual(SECTIONS), *_events(), "", *_metrics(), ""])


def _events() -> Iterator[str]:
    yield _EVENTS
    for name, declared in EVENTS.items():
        yield f"| `{name}` | {declared.level} | {declared.meaning} |"


def _metrics() -> Iterator[str]:
    yield _METRICS
    for name, declared in sorted(METRICS.items()):
        yield f"| `{name}` | {declared.kind} | {', '.join(declared.labels)} | {declared.meaning} |"
