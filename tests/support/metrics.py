"""A page of metrics as Prometheus reads it."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from sidecar.observe.metrics import METRICS, Page

#: (name, values of its labels in the order they are declared) → value
Numbers = dict[tuple[str, ...], float]


def parse(text: str) -> Numbers:
    """Fails when a sample is there twice, which Prometheus refuses, or is not declared."""
    found: Numbers = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, *(sample.labels[label] for label in METRICS[sample.name].labels))
            assert key not in found, key
            found[key] = sample.value
    return found


def read(page: Page) -> Numbers:
    """What is on a page."""
    return parse(b"".join(page.lines()).decode())
