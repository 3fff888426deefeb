"""Process 1 of a container, which cannot end before the others: what an upgrade leaves of it."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.heirs import Line, Load, is_alive
from tests.support.live import Live, listening_inode, until
from tests.support.peers import ask

CONFIG = "[sidecar]\ndrain_timeout = 1s\n[route hello]\npath = /hello\nrespond = 200 hello\n"
CONTAINER = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


class Container(Line):
    """A sidecar that is process 1; `process` is the one that waits for it, and exits as it does."""

    def __init__(self, live: Live) -> None:
        tried = subprocess.run([*CONTAINER, "true"], capture_output=True, text=True, check=False)
        assert tried.returncode == 0, f"this test must make a PID namespace; run it as root: {tried.stderr}"
        live.conf.write("10-test.ini", CONFIG)
        live.listen()
        super().__init__(live, prefix=CONTAINER)
        assert self.serving() == 1

    def outside(self, inner: int) -> int:
        """The number here of the process that has the number `inner` in there."""
        here = os.readlink(f"/proc/{self.process.pid}/ns/pid_for_children")
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                text, its = status.read_text(), os.readlink(status.with_name("ns") / "pid")
            except OSError:
                continue
            numbers = next(line.split() for line in text.splitlines() if line.startswith("NSpid:"))
            if its == here and int(numbers[-1]) == inner:
                return int(numbers[1])
        raise LookupError(f"no process {inner}")

    def inside(self) -> list[int]:
        """The numbers in there of all that are there, also of those that nobody has waited for."""
        here = os.readlink(f"/proc/{self.process.pid}/ns/pid_for_children")
        found = []
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                text = status.read_text()
            except OSError:
                continue
            numbers = next(line.split() for line in text.splitlines() if line.startswith("NSpid:"))
            # Of one that has ended the namespace cannot be read any more; its parent's can.
            if len(numbers) == 3 and (self._is_here(status.parent, here) or "\nState:\tZ" in text):
                found.append(int(numbers[2]))
        return sorted(found)

    @staticmethod
    def _is_here(process: Path, here: str) -> bool:
        try:
            return os.readlink(process / "ns" / "pid") == here
        except OSError:
            return False

    def tell(self, number: signal.Signals, inner: int = 1) -> None:
        """Send a signal to one of those inside."""
        os.kill(self.outside(inner), number)

    def stop(self) -> None:
        """End all of it: nothing in there outlives process 1."""
        self.process.kill()
        self.process.wait()


@pytest.fixture
def container(live: Live) -> Container:
    """One that serves."""
    return Container(live)


def test_process_1_stays_until_its_successors_have_ended(container: Container, live: Live) -> None:
    """Signals to it reach the newest; no request is lost; its end is that of the last one."""
    load = Load(live.port, kept=2, single=2)
    try:
        load.wait(100)
        container.tell(signal.SIGUSR2)
        second = container.serving(2)
        container.seen("became_init")
        assert container.process.poll() is None
        load.wait(load.done + 100)
        # From process 1 to the newest: it starts the third, and ends as any other.
        container.tell(signal.SIGUSR2)
        third = container.serving(3)
        until(lambda: len(container.events("stopped")) == 1, "the second has ended")
        load.wait(load.done + 100)
    finally:
        load.stop()
    assert load.errors == []
    assert len({1, second, third}) == 3
    live.conf.write("20-bye.ini", "[route bye]\npath = /bye\nrespond = 200 bye\n")
    container.seen("reload_applied")
    container.tell(signal.SIGHUP)
    container.seen("reload_unchanged")
    assert ask(live.port, "/bye").body == b"bye"
    container.tell(signal.SIGTERM)
    assert container.wait_exit() == 0
    assert [event["pid"] for event in container.events("stopped")] == [second, third]
    assert not listening_inode(live.port)


def test_process_1_ends_with_the_status_of_the_last_one(container: Container) -> None:
    container.tell(signal.SIGUSR2)
    second = container.serving(2)
    container.seen("became_init")
    container.tell(signal.SIGKILL, second)
    assert container.wait_exit() == 128 + signal.SIGKILL


def test_process_1_does_not_stay_for_strangers_and_buries_orphans(container: Container) -> None:
    """What somebody runs in the container is not of this program; when it loses its parent it is reaped."""
    enter = ["nsenter", "--target", str(container.outside(1)), "--pid", "--mount", "setsid", "--fork"]
    subprocess.run([*enter, "sh", "-c", "sleep 0.1 & exec true"], check=True)
    until(lambda: container.inside() == [1], "the orphan has ended and is reaped")
    container.tell(signal.SIGUSR2)
    second = container.serving(2)
    container.seen("became_init")
    with subprocess.Popen([*enter[:-2], "setsid", "sleep", "60"]) as stranger:
        container.tell(signal.SIGTERM)
        assert container.wait_exit() == 0
        stranger.wait(10)
    assert second in [event["pid"] for event in container.events("stopped")]


def test_process_1_serves_on_when_its_successor_fails(container: Container, live: Live) -> None:
    live.conf.write("20-bad.ini", "[nonsense]\n")
    container.seen("reload_refused")
    container.tell(signal.SIGUSR2)
    (failed,) = container.seen("upgrade_failed")
    assert failed["reason"] == "the new process exited with status 1 before it served"
    assert ask(live.port, "/hello").body == b"hello"
    one = container.outside(1)
    container.tell(signal.SIGTERM)
    assert container.wait_exit() == 0
    assert not is_alive(one)


def test_a_stop_of_process_1_during_an_upgrade_ends_both(container: Container, live: Live) -> None:
    container.tell(signal.SIGUSR2)
    container.seen("upgrade_started")
    container.tell(signal.SIGTERM)
    assert container.wait_exit() == 0
    assert not listening_inode(live.port)
    assert container.events("upgrade_applied") == []
