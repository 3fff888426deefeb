"""An upgrade of the package under load: a real systemd, a real dpkg, and clients that notice nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.packaging.conftest import package
from tests.packaging.machine import Machine
from tests.support.binary import ROOT
from tests.support.live import until

#: The first test that needs a machine makes its root.
pytestmark = pytest.mark.timeout(300)

REQUESTS = 5000

CONF = """\
[sidecar]
access_log = off
drain_timeout = 4s

[listener public]
bind = 127.0.0.1:80

[listener behind]
bind = 127.0.0.1:81

[upstream app]
server.a = 127.0.0.1:81

[route public]
listener = public
upstream = app

[route behind]
listener = behind
respond = 200 hello
"""
WATCHED = "[Service]\nWatchdogSec=2s\nRestartSec=0\n"


class Load:
    """Clients in the machine's network that ask and ask."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._answered = 0
        self._result: dict[str, Any] = {}
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                self._result = json.loads(line)
            else:
                self._answered = int(line)

    def wait_answered(self, count: int) -> None:
        """Return when so many requests more than now were answered."""
        goal = self._answered + count

        def is_done() -> bool:
            assert not self._result, f"the clients gave up: {self._result}"
            return self._answered >= goal

        until(is_done, f"{count} more answers", 30.0)

    def end(self) -> dict[str, Any]:
        """What all of them saw, once they have asked often enough."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(60) == 0
        self._reader.join()
        return self._result

    def stop(self) -> None:
        """End them, however it goes."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()


@contextmanager
def load(systemd: Machine) -> Iterator[Load]:
    """Clients of port 80 until `end`."""
    script = str(ROOT / "tests/packaging/traffic.py")
    process = subprocess.Popen(
        systemd.networked(sys.executable, script, "80", "/", str(REQUESTS)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    clients = Load(process)
    try:
        yield clients
    finally:
        clients.stop()


@contextmanager
def asked_throughout(systemd: Machine) -> Iterator[list[str]]:
    """What systemd says of the service's state meanwhile, asked again and again."""
    told: list[str] = []
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            told.append(systemd.run("systemctl", "is-active", "sidecar.service").stdout.strip())
            is_over.wait(0.05)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield told
    finally:
        is_over.set()
        asking.join()


def prepare(systemd: Machine, first: Path) -> str:
    """Install the first package with something to serve; the pid of the service."""
    systemd.write("/etc/sidecar/conf.d/10-app.ini", CONF)
    systemd.write("/etc/systemd/system/sidecar.service.d/test.conf", WATCHED)
    systemd.install(first)
    assert systemd.asks("/") == "hello"
    return systemd.unit("MainPID")


def test_an_upgrade_of_the_package_loses_no_request(systemd: Machine, packages: tuple[Path, Path]) -> None:
    """The service is another process afterwards, was active all the time, and is still looked after."""
    old = prepare(systemd, packages[0])
    with asked_throughout(systemd) as states, load(systemd) as clients:
        clients.wait_answered(1000)
        said = systemd.install(packages[1])
        clients.wait_answered(1000)
        seen = clients.end()
    assert set(states) == {"active"}
    assert seen["errors"] == []
    assert seen["answered"] >= REQUESTS
    new = systemd.unit("MainPID")
    assert new != old
    assert f"sidecar: process {new} took over from {old}.\n" in said
    assert systemd.must("dpkg-query", "--show", "--showformat=${Version} ${Status}", "sidecar") == (
        "1.1 install ok installed"
    )
    assert systemd.unit("NRestarts") == "0"
    until(lambda: not systemd.path(f"/proc/{old}").exists(), "the old process has ended", 10.0)
    assert_looked_after(systemd, new)


def assert_looked_after(systemd: Machine, new: str) -> None:
    """systemd hears the signs of life of the new process, reloads it, and starts another one when it dies."""
    heard = systemd.unit("WatchdogTimestampMonotonic")
    until(lambda: systemd.unit("WatchdogTimestampMonotonic") != heard, "a sign of life")
    systemd.write("/etc/sidecar/conf.d/20-other.ini", "[route behind]\nrespond = 200 other\n")
    systemd.must("systemctl", "reload", "sidecar.service")
    until(lambda: systemd.asks("/") == "other", "the reload")
    until(lambda: systemd.unit("ActiveState") == "active", "active again")
    assert systemd.unit("MainPID") == new
    systemd.must("systemctl", "kill", "--kill-who=main", "--signal=KILL", "sidecar.service")
    until(lambda: systemd.unit("NRestarts") == "1", "a restart", 15.0)
    until(lambda: systemd.asks("/") == "other", "it serves again", 15.0)


def test_an_upgrade_to_a_program_that_does_not_start_changes_nothing(
    systemd: Machine, packages: tuple[Path, Path], tmp_path: Path
) -> None:
    """The old process goes on, the package says so, and the next upgrade works."""
    old = prepare(systemd, packages[0])
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho cannot start >&2\nexit 3\n")
    said = systemd.install(package(broken, tmp_path, "1.0.1"))
    assert (
        "sidecar: the new version did not take over, process "
        f"{old} goes on: see journalctl -u sidecar" in said
    )
    assert systemd.unit("MainPID") == old
    assert systemd.unit("ActiveState") == "active"
    assert systemd.asks("/") == "hello"
    systemd.install(packages[1])
    assert systemd.unit("MainPID") != old
    assert systemd.asks("/") == "hello"
