"""The page of metrics, as Prometheus reads it, and the counters behind it."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.observe.events import EVENTS
from sidecar.observe.metrics import METRICS, Counters, Page
from tests.support.metrics import Numbers, read

ACTIVE = "sidecar_upstream_server_active"


def test_a_page_as_it_is_written() -> None:
    page = Page()
    page.add("sidecar_ready", True)
    page.add(ACTIVE, 2, "app", "127.0.0.1:80")
    page.add("process_cpu_seconds_total", 0.25)
    page.add(ACTIVE, 3, "app", "127.0.0.1:81")
    assert b"".join(page.lines()).decode() == (
        "# HELP process_cpu_seconds_total CPU time of the process, user and system.\n"
        "# TYPE process_cpu_seconds_total counter\n"
        "process_cpu_seconds_total 0.25\n"
        "# HELP sidecar_ready 1 when `/readyz` says 200, else 0.\n"
        "# TYPE sidecar_ready gauge\n"
        "sidecar_ready 1\n"
        "# HELP sidecar_upstream_server_active Attempts in progress at a server, tunnels included.\n"
        "# TYPE sidecar_upstream_server_active gauge\n"
        'sidecar_upstream_server_active{upstream="app",server="127.0.0.1:80"} 2\n'
        'sidecar_upstream_server_active{upstream="app",server="127.0.0.1:81"} 3\n'
    )


def test_a_sample_is_there_once() -> None:
    """Prometheus takes nothing of a page that has one twice."""
    page = Page()
    page.add(ACTIVE, 1, "app", "a")
    page.add(ACTIVE, 2, "app", "a")
    assert read(page) == {(ACTIVE, "app", "a"): 2}


@given(st.text(), st.text())
def test_any_name_can_be_a_label(upstream: str, server: str) -> None:
    page = Page()
    page.add(ACTIVE, 1, upstream, server)
    page.add(ACTIVE, 2, "app", "a")
    assert b"".join(page.lines()).count(b"\n") == 4
    if "\r" not in upstream + server:  # the reader's lines end there, too; those of the format do not
        shown = [text.encode("utf-8", "backslashreplace").decode() for text in (upstream, server)]
        assert read(page)[(ACTIVE, *shown)] in (1, 2)


def test_a_name_that_is_no_text_is_spelled_out() -> None:
    page = Page()
    page.add(ACTIVE, 1, "\udcff", "a")
    assert b'upstream="\\\\udcff"' in b"".join(page.lines())
    assert read(page) == {(ACTIVE, "\\udcff", "a"): 1}


def test_counters_of_one_label_begin_at_0() -> None:
    page, counters = Page(), Counters()
    counters.event("circuit_opened", {"upstream": "app"})
    for name in ("app", "other"):
        page.start("upstream", name)
    counters.add_to(page)
    found = read(page)
    assert found["sidecar_circuit_opened_total", "app"] == 1
    assert found["sidecar_circuit_opened_total", "other"] == 0
    assert found["sidecar_server_down_total", "app"] == 0
    assert not any(name == "sidecar_certificate_refused_total" for name, *_ in found)


@pytest.mark.parametrize("value", [0, 1, 1e15, 0.1, 1_700_000_000.5, math.inf, -math.inf, math.nan])
def test_numbers_come_as_they_are(value: float) -> None:
    page = Page()
    page.add("sidecar_ready", value)
    (found,) = read(page).values()
    assert found == value or (math.isnan(found) and math.isnan(value))


def test_what_is_not_declared_is_a_mistake_of_ours() -> None:
    with pytest.raises(LookupError):
        Page().add("sidecar_nothing", 1)
    with pytest.raises(ValueError, match="argument"):
        Page().add(ACTIVE, 1, "app")


@pytest.mark.parametrize("name", METRICS)
def test_a_declaration_follows_the_customs(name: str) -> None:
    """Those of prometheus.io/docs/practices/naming; a meaning is one line."""
    kind, labels, meaning = METRICS[name]
    assert re.fullmatch(r"(?:sidecar|process)_[a-z0-9_]+", name)
    assert name.endswith("_total") == (kind == "counter")
    assert all(re.fullmatch("[a-z]+", label) for label in labels)
    assert re.fullmatch(r"[A-Z0-9][^\n\\]*\.", meaning)


# -- counters


def counted(*events: tuple[str, dict[str, object]]) -> Numbers:
    counters = Counters()
    for name, fields in events:
        counters.event(name, fields)
    page = Page()
    counters.add_to(page)
    return read(page)


def test_every_event_has_a_count_from_the_start() -> None:
    assert counted() == {("sidecar_events_total", name): 0 for name in EVENTS}


def test_events_are_counted_by_what_they_are_about() -> None:
    refused = {"listener": "public", "rule": "rapid_reset", "peer": "192.0.2.1"}
    found = counted(
        ("http2_refused", refused),
        ("http2_refused", {**refused, "peer": "192.0.2.2"}),
        ("http2_refused", {**refused, "rule": "settings_flood"}),
        ("started", {"pid": 1}),
    )
    assert found["sidecar_http2_refused_total", "public", "rapid_reset"] == 2
    assert found["sidecar_http2_refused_total", "public", "settings_flood"] == 1
    assert found["sidecar_events_total", "http2_refused"] == 3
    assert found["sidecar_events_total", "started"] == 1


def test_an_event_without_a_field_is_counted_all_the_same() -> None:
    assert counted(("server_down", {}))["sidecar_server_down_total", ""] == 1


def test_an_event_that_is_not_declared_is_a_mistake_of_ours() -> None:
    with pytest.raises(LookupError):
        counted(("nothing", {}))
