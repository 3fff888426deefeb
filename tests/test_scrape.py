"""What a scrape finds: the process, its connections and its servers."""

from __future__ import annotations

import os
from typing import Any

import gevent
import pytest
from prometheus_client import ProcessCollector

from sidecar import __version__
from sidecar import scrape as module
from sidecar.net.connections import Connections
from sidecar.observe.metrics import Counters, Page
from sidecar.scrape import scrape
from tests.support.metrics import Numbers, parse
from tests.support.upstreams import server


class Group:
    """An upstream as it is looked at."""

    def __init__(self, name: str, *servers: Any) -> None:
        self.name = name
        self.servers = servers


def found(*upstreams: Any, connections: Connections | None = None) -> Numbers:
    return parse(
        scrape(Page(), Counters(), connections or Connections(7, lambda _: None), upstreams).decode()
    )


def test_the_process_goes_by_the_names_that_all_have_and_by_their_meaning() -> None:
    page = found()
    assert page["sidecar_build_info", __version__] == 1
    theirs = {family.name: family.samples[0].value for family in ProcessCollector(registry=None).collect()}
    assert page["process_start_time_seconds",] == pytest.approx(
        theirs["process_start_time_seconds"], abs=0.02
    )
    assert page["process_max_fds",] == theirs["process_max_fds"]
    assert page["process_open_fds",] == pytest.approx(theirs["process_open_fds"], abs=1)
    assert page["process_resident_memory_bytes",] == pytest.approx(
        theirs["process_resident_memory_bytes"], rel=0.05
    )
    assert 0 < page["process_cpu_seconds_total",] <= theirs["process_cpu_seconds"] + 0.02


@pytest.mark.parametrize("tells_size", [True, False])
def test_open_descriptors_are_counted_on_old_kernels_too(
    monkeypatch: pytest.MonkeyPatch, tells_size: bool
) -> None:
    if not tells_size:
        seen = os.stat_result([0] * 10)
        monkeypatch.setattr(module.os, "stat", lambda _: seen)
    before = found()["process_open_fds",]
    pair = os.pipe()
    assert found()["process_open_fds",] == before + 2
    for descriptor in pair:
        os.close(descriptor)


def test_a_sandbox_without_proc_has_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(module, "_open_descriptors", lambda: missing(""))
    page = found()
    assert ("process_open_fds",) not in page
    assert page["process_cpu_seconds_total",] > 0


def test_connections_and_their_bound() -> None:
    connections = Connections(7, lambda _: None)
    waiting = gevent.event.Event()
    connections.spawn(waiting.wait)
    page = found(connections=connections)
    assert (page["sidecar_connections",], page["sidecar_connections_max",]) == (1, 7)
    waiting.set()
    connections.join()


def test_servers_say_what_they_do_and_whether_they_would_do() -> None:
    busy, down = server("127.0.0.1:1"), server("127.0.0.1:2", down=True)
    busy.take(1.0)
    page = found(Group("app", busy, down), Group("other", server("127.0.0.1:1")))
    name = "sidecar_upstream_server_active"
    assert page[name, "app", "127.0.0.1:1"] == 1
    assert page[name, "app", "127.0.0.1:2"] == page[name, "other", "127.0.0.1:1"] == 0
    name = "sidecar_upstream_server_usable"
    assert page[name, "app", "127.0.0.1:1"] == page[name, "other", "127.0.0.1:1"] == 1
    assert page[name, "app", "127.0.0.1:2"] == 0


def test_servers_that_have_a_name_in_common_are_told_together() -> None:
    """Of one with several addresses the first is the name."""
    one, other = server("127.0.0.1:1"), server("127.0.0.1:1", down=True)
    one.take(1.0)
    other.take(1.0)
    page = found(Group("app", one, other))
    assert page["sidecar_upstream_server_active", "app", "127.0.0.1:1"] == 2
    assert page["sidecar_upstream_server_usable", "app", "127.0.0.1:1"] == 1


def test_what_may_happen_at_an_upstream_is_counted_from_0() -> None:
    assert found(Group("app"))["sidecar_circuit_opened_total", "app"] == 0


def test_very_many_servers_keep_nobody_waiting() -> None:
    """Others have their turn between; they may even change what is looked at."""
    many = [Group(f"u{number}", *(server(f"s{at}") for at in range(50))) for number in range(20)]
    turns: list[float] = []

    def other() -> None:
        while True:
            turns.append(1)
            many[-1].servers = ()
            gevent.sleep(0)

    beside = gevent.spawn(other)
    page = found(*many)
    beside.kill()
    assert len(turns) >= 30  # also while the page is written
    assert page["sidecar_upstream_server_usable", "u0", "s49"] == 1
    assert ("sidecar_upstream_server_usable", "u19", "s0") not in page
