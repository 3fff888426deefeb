"""What the tests of packages share: the binary, packages of it, and machines to install them on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.packaging.machine import IDLE, SYSTEMD, Machine, machine
from tests.support.binary import ROOT
from tests.support.binary import binary as built
from tests.support.programs import program

#: SOURCE_DATE_EPOCH: what is packed must not depend on the clock.
DATE = "1700000000"

_BOOTED: pytest.StashKey[list[Machine]] = pytest.StashKey()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the service of a failed test told."""
    report = yield
    if report.failed and call.when == "call":
        for booted in item.stash.get(_BOOTED, []):
            report.sections.append(("journal", booted.journal()[-8000:]))
    return report


@pytest.fixture(scope="session")
def binary() -> Path:
    """The one-file program: $SIDECAR_BINARY, else dist/sidecar."""
    given = os.environ.get("SIDECAR_BINARY")
    path = Path(given) if given else built()
    assert path.is_file(), f"{path} is missing: run make binary"
    return path


def package(binary: Path, target: Path, version: str, **environment: str) -> Path:
    """Build the Debian package of `binary` as `make deb` does."""
    program("dpkg-deb", "dpkg")
    done = subprocess.run(
        [sys.executable, ROOT / "packaging/deb.py", binary, "--version", version, "--target", target],
        env={**os.environ, "PYTHONPATH": str(ROOT), "SOURCE_DATE_EPOCH": DATE, **environment},
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    return Path(done.stdout.strip())


@pytest.fixture(scope="session")
def packages(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two versions of the package with the same program in it."""
    target = tmp_path_factory.mktemp("packages")
    return package(binary, target, "1.0"), package(binary, target, "1.1")


@pytest.fixture
def boot(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[[bool], Machine]]:
    """Start a machine, with systemd or without; it ends with the test."""
    booted = request.node.stash.setdefault(_BOOTED, [])
    with ExitStack() as machines:
        count = 0

        def start(with_systemd: bool) -> Machine:
            nonlocal count
            count += 1
            folder = tmp_path / f"machine{count}"
            folder.mkdir()
            started = machines.enter_context(machine(folder, SYSTEMD if with_systemd else IDLE))
            if with_systemd:
                booted.append(started)
            return started

        yield start


@pytest.fixture
def systemd(boot: Callable[[bool], Machine]) -> Machine:
    """A machine that systemd has booted."""
    return boot(True)


@pytest.fixture
def bare(boot: Callable[[bool], Machine]) -> Machine:
    """A machine without a service manager, as images are built in."""
    return boot(False)
