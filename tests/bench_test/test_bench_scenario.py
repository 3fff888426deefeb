"""Who cannot take part in a row is told with the reason, and stops nobody else."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.bench.certificate import make_certificate
from tests.bench.process import Server
from tests.bench.proxy import Launch, Place, Proxy
from tests.bench.rows import ROWS, LoadRow, Wire
from tests.bench.scenario import Bench
from tests.bench.upstream import Upstream

TLS = next(row for row in ROWS if row.name == "tls-small")


class Broken(Proxy):
    """A proxy that does not start."""

    name = "broken"

    def launch(self, place: Place) -> Launch:
        """It says what it does not like, and ends."""
        return Launch([sys.executable, "-c", "import sys; sys.exit('tls: unknown')"], place.access_log)


class Old(Broken):
    """A proxy that never learned it."""

    name = "old"

    def unable(self, wire: Wire) -> str | None:
        """The reason."""
        return "it is from 1996" if wire.tls else None


@pytest.fixture
def how(tmp_path: Path) -> Bench:
    """A benchmark of one round; its upstream is not asked."""
    core = min(os.sched_getaffinity(0))
    certificate = make_certificate(tmp_path / "certificate")
    nobody = Upstream(Server.__new__(Server), 1, 2, 3)
    return Bench(1, 1, core, core, nobody, certificate, tmp_path, 1024, lambda text: None)


def test_who_cannot_be_made_ready_is_told_with_what_it_said(how: Bench):
    assert isinstance(TLS, LoadRow)
    result = how.measure(TLS, [Broken(), Old()])
    assert result.samples == {}
    assert result.unable == {"old": "it is from 1996"}
    assert "broken exited with 1:\ntls: unknown" in result.failed["broken"]
    assert not (how.folder / "broken").exists()


def test_the_upstream_is_asked_on_the_port_of_the_wire(how: Bench):
    assert how.upstream.port_for(Wire(tls=True, http2=True)) == 1
    assert how.upstream.port_for(Wire(upstream_tls=True)) == 2
    assert how.upstream.port_for(Wire(upstream_http2=True)) == 3
