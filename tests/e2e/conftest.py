"""A sidecar for each test: a folder of drop-ins, a port, and the log when the test fails."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.support.command import told
from tests.support.live import Live, Sidecar

_STARTED: pytest.StashKey[list[Sidecar]] = pytest.StashKey()


def pytest_report_collectionfinish() -> str:
    """Say what is tested: the header would be silent with -q."""
    return f"end to end: {told()}"


@pytest.fixture
def live(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Live]:
    """Sidecars of this test; they end with it."""
    started = request.node.stash.setdefault(_STARTED, [])
    yield Live(tmp_path, started)
    for sidecar in started:
        sidecar.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the sidecars of a failed test wrote."""
    report = yield
    if report.failed:
        for sidecar in item.stash.get(_STARTED, []):
            report.sections.append((f"sidecar {sidecar.process.pid}", sidecar.log()))
    return report
