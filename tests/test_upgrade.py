"""Upgrades with real processes that behave well, badly, or not at all."""

from __future__ import annotations

import json
import os
import signal
import socket as plain
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from sidecar import upgrade
from sidecar.net.inherit import Heritage
from sidecar.runtime import Tasks
from sidecar.upgrade import Upgrade
from tests.support.streams import settle, wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")

#: What the programs below have in common: `control`, as the new process finds it.
PROLOGUE = """
import json, os, signal, socket, sys, time
sockets = json.loads(os.environ["SIDECAR_SOCKETS"])
control = socket.socket(fileno=sockets["control"])
control.setblocking(True)
"""
SERVES = 'control.sendall(json.dumps([place for place, _ in sockets["placed"]]).encode() + b"\\n")\n'
WAITS = "control.recv(1)\n"
LOOKS = """
found = {
    "open": sorted(int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")),
    "names": list(os.environ),
    "blocked": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))),
    "control": control.fileno(),
}
control.sendall(json.dumps([json.dumps(found)]).encode() + b"\\n")
"""


class World:
    """A process that may be upgraded to a program of the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.died: list[str] = []
        self.served = 0
        self.tasks = Tasks(lambda _, error: self.died.append(repr(error)))
        self.sock = plain.create_server(("127.0.0.1", 0))
        self.upgrade = Upgrade(self._event, self.tasks, self._gather, self._on_served)
        monkeypatch.setattr(upgrade, "_END_WITHIN", 0.2)
        monkeypatch.setattr(upgrade, "SERVE_WITHIN", 5.0)

    def _event(self, name: str, **fields: Any) -> None:
        self.events.append((name, fields))

    def _gather(self) -> Heritage:
        return Heritage([], {"a": self.sock.fileno()})

    def _on_served(self) -> None:
        self.served += 1

    def program(self, code: str) -> None:
        words = [sys.executable, "-S", "-c", PROLOGUE + code]
        self._monkeypatch.setattr(upgrade, "command", lambda: words)

    def told(self, name: str) -> list[dict[str, Any]]:
        return [fields for event, fields in self.events if event == name]

    def failure(self) -> str:
        """Why an upgrade to the program fails; it leaves no process behind."""
        self.upgrade.request()
        wait_until(lambda: self.told("upgrade_failed"))
        for fields in self.told("upgrade_started"):
            assert is_gone(fields["pid"])
        return str(self.told("upgrade_failed")[0]["reason"])

    def close(self) -> None:
        self.upgrade.kill()
        self.upgrade.release()
        for fields in self.told("upgrade_started"):
            wait_until(lambda pid=fields["pid"]: is_gone(pid))
        self.tasks.stop()
        self.sock.close()
        assert self.died == []


def is_gone(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World(monkeypatch)
    yield world
    world.close()


def test_a_process_that_serves_takes_over_and_hears_when_it_is_alone(world: World) -> None:
    world.program(SERVES + WAITS + "sys.exit(7)")
    world.upgrade.request()
    wait_until(lambda: world.served)
    (started,) = world.told("upgrade_started")
    assert world.upgrade.pid == started["pid"]
    assert world.upgrade.places == {"a"}
    world.upgrade.release()
    assert os.waitstatus_to_exitcode(os.waitpid(started["pid"], 0)[1]) == 7
    world.upgrade.request()
    assert world.told("upgrade_ignored") == [{"reason": f"process {started['pid']} has taken over"}]
    # It is a process of its own now.
    world.upgrade.cancel()
    world.upgrade.end()
    world.upgrade.kill()


def test_what_waits_for_the_end_of_an_upgrade_that_succeeded_waits_for_ever(world: World) -> None:
    world.program(SERVES + WAITS)
    passed: list[int] = []
    world.upgrade.wait_settled()
    world.upgrade.request()
    world.tasks.spawn("reload", lambda: (world.upgrade.wait_settled(), passed.append(1)))
    wait_until(lambda: world.served)
    settle()
    assert passed == []
    world.upgrade.release()
    wait_until(lambda: is_gone(world.upgrade.pid))


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("sys.exit(3)", "the new process exited with status 3 before it served"),
        ("os.kill(os.getpid(), 9)", "the new process was killed by signal 9 before it served"),
        (
            'control.sendall(b"hello\\n")\nsys.exit(4)',
            "the new process exited with status 4 before it served",
        ),
        ("control.close()\ntime.sleep(60)", "the new process was killed by signal 15 before it served"),
        (
            "signal.signal(15, signal.SIG_IGN)\ncontrol.close()\ntime.sleep(60)",
            "the new process was killed by signal 9 before it served",
        ),
    ],
)
def test_a_process_that_does_not_serve_is_ended_and_told(world: World, code: str, reason: str) -> None:
    world.program(code)
    assert world.failure() == reason
    assert world.served == 0
    world.upgrade.wait_settled()


def test_a_process_that_takes_too_long_is_ended(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrade, "SERVE_WITHIN", 0.05)
    world.program("time.sleep(60)")
    assert world.failure() == "the new process did not serve within 0.05 s"


def test_a_program_that_is_not_there_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrade, "command", lambda: ["/nowhere/sidecar"])
    assert world.failure() == "/nowhere/sidecar cannot be started: No such file or directory"


def test_a_process_without_descriptors_left_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted() -> Heritage:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(world.upgrade, "_gather", exhausted)
    assert "Too many open files" in world.failure()
    world.upgrade.wait_settled()


def test_after_a_failure_another_one_may_begin(world: World) -> None:
    world.program("sys.exit(1)")
    world.failure()
    world.program(SERVES + WAITS)
    world.upgrade.request()
    wait_until(lambda: world.served)


def test_one_at_a_time(world: World) -> None:
    world.program(SERVES + WAITS)
    world.upgrade.request()
    world.upgrade.request()
    assert world.told("upgrade_ignored") == [{"reason": "another upgrade is in progress"}]
    wait_until(lambda: world.served)
    assert len(world.told("upgrade_started")) == 1


def test_a_cancelled_upgrade_ends_its_process(world: World) -> None:
    world.program("time.sleep(60)")
    world.upgrade.request()
    wait_until(lambda: world.told("upgrade_started"))
    world.upgrade.cancel()
    assert world.upgrade.is_ending
    wait_until(lambda: world.told("upgrade_failed"))
    assert world.told("upgrade_failed") == [{"reason": "the process was told to end"}]
    assert not world.upgrade.is_ending
    world.upgrade.request()
    assert world.told("upgrade_ignored") == [{"reason": "the process ends"}]


def test_one_that_does_not_want_to_end_is_killed(world: World) -> None:
    """Also when it serves by now: nobody has handed anything over to it."""
    world.program("signal.signal(15, signal.SIG_IGN)\n" + SERVES + "time.sleep(60)")
    world.upgrade.request()
    wait_until(lambda: world.told("upgrade_started"))
    world.upgrade._is_cancelled = True
    wait_until(lambda: not world.tasks._group)
    assert world.upgrade.is_ending
    world.upgrade.cancel()
    world.upgrade.end()
    assert not world.upgrade.is_ending
    assert world.served == 0


def test_the_new_process_finds_what_it_needs_and_nothing_else(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {
        "KEPT": "yes",
        "LISTEN_PID": "1",
        "LISTEN_FDS": "1",
        "WATCHDOG_PID": "1",
        "WATCHDOG_USEC": "5",
        "SIDECAR_SOCKETS": "old",
    }
    monkeypatch.setattr(upgrade, "environment", lambda: given)
    with plain.socket() as stray:
        stray.set_inheritable(True)
        world.program(LOOKS + WAITS)
        world.upgrade.request()
        wait_until(lambda: world.served)
    found = json.loads(*world.upgrade.places)
    assert found["open"] == sorted([0, 1, 2, world.sock.fileno(), found["control"]])
    assert set(found["names"]) - {"LC_CTYPE"} == {"KEPT", "SIDECAR_SOCKETS", "WATCHDOG_USEC"}
    assert found["blocked"] == sorted(upgrade._WORDS)
    assert not world.sock.get_inheritable()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []).isdisjoint(upgrade._WORDS)
