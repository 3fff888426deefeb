"""The whole manual: options, events and metrics as they are declared."""

from __future__ import annotations

from sidecar.manual import manual
from sidecar.observe.events import EVENTS
from sidecar.observe.metrics import METRICS


def test_options_events_and_metrics_are_there() -> None:
    text = manual()
    assert [line for line in text.splitlines() if line.startswith("# ")] == [
        "# Configuration",
        "# Events",
        "# Metrics",
    ]
    assert "| `header_timeout` | duration | `15s` |" in text
    for name, declared in EVENTS.items():
        assert f"| `{name}` | {declared.level} | {declared.meaning} |\n" in text
    for metric, (kind, labels, meaning) in METRICS.items():
        assert f"| `{metric}` | {kind} | {', '.join(labels)} | {meaning} |\n" in text
