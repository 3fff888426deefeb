"""The last duty of process 1, played by a process that is told to care for orphans as process 1 must."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.live import until

#: It starts a child for each argument; a line on stdin is a signal to pass on, or `run`.
PROGRAM = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
import gevent
from gevent.fileobject import FileObject
from sidecar.init import Init
init = Init()
for code in sys.argv[1:]:
    pid = os.posix_spawn(sys.executable, [sys.executable, "-S", "-c", code], os.environ)
    print(pid, flush=True)
def listen():
    for line in FileObject(sys.stdin.buffer):
        init.pass_on(signal.Signals(int(line)))
gevent.spawn(listen)
sys.exit(init.run())
"""
#: Ends with status 5 on TERM and tells of HUP.
CHILD = """
import os, signal, sys
def tell(number, frame):
    os.write(1, b"%d got %d\\n" % (os.getpid(), number))  # one write: two of them share the pipe
    if number == 15:
        os._exit(5)
for number in (1, 15):
    signal.signal(number, tell)
os.write(1, b"ready\\n")
while True:
    signal.pause()
"""
#: Ends at once and leaves a child behind.
PARENT = f"import os\nif os.fork() == 0:\n    exec({CHILD!r})\n"
#: One that is not of the group.
STRANGER = "import os, signal\nos.setsid()\nos.write(1, b'ready\\n')\nsignal.pause()\n"


class Playing:
    """The process, and what it and its children say."""

    def __init__(self, *children: str, ready: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *children],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        lines = [self.read() for _ in range(len(children) + ready)]
        self.children = [int(line) for line in lines if line.isdigit()]
        assert lines.count("ready") == ready

    def read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, number: signal.Signals) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{int(number)}\n")
        self.process.stdin.flush()

    def close(self) -> None:
        for pid in self.children:
            if self.process.poll() is None:
                os.kill(pid, signal.SIGKILL)
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.communicate()


@pytest.fixture
def playing() -> Iterator[list[Playing]]:
    made: list[Playing] = []
    yield made
    for one in made:
        one.close()


def play(made: list[Playing], *children: str, ready: int) -> Playing:
    made.append(Playing(*children, ready=ready))
    return made[-1]


def test_it_ends_with_the_status_of_the_last_one(playing: list[Playing]) -> None:
    one = play(playing, CHILD, "import sys; sys.exit(3)", ready=1)
    until(lambda: not Path(f"/proc/{one.children[1]}").exists(), "the first one has ended and is reaped")
    assert one.process.poll() is None
    one.tell(signal.SIGTERM)
    assert one.read() == f"{one.children[0]} got 15"
    assert one.process.wait(10) == 5


def test_one_that_was_killed_has_the_status_of_shells(playing: list[Playing]) -> None:
    one = play(playing, CHILD, ready=1)
    os.kill(one.children[0], signal.SIGKILL)
    assert one.process.wait(10) == 128 + signal.SIGKILL


def test_a_stop_is_for_all_and_the_rest_for_the_newest(playing: list[Playing]) -> None:
    one = play(playing, CHILD, CHILD, ready=2)
    one.tell(signal.SIGHUP)
    assert one.read() == f"{one.children[1]} got 1"
    one.tell(signal.SIGTERM)
    assert {one.read(), one.read()} == {f"{pid} got 15" for pid in one.children}
    assert one.process.wait(10) == 5


def test_those_that_lose_their_parent_are_waited_for(playing: list[Playing]) -> None:
    one = play(playing, PARENT, ready=1)
    until(lambda: not Path(f"/proc/{one.children[0]}").exists(), "the parent is reaped")
    assert one.process.poll() is None
    one.tell(signal.SIGTERM)
    assert one.read().endswith("got 15")
    assert one.process.wait(10) == 5


def test_strangers_keep_nobody(playing: list[Playing]) -> None:
    one = play(playing, STRANGER, CHILD, ready=2)
    one.tell(signal.SIGTERM)
    assert one.process.wait(10) == 5
    os.kill(one.children[0], signal.SIGKILL)


def test_nobody_else_is_there(playing: list[Playing]) -> None:
    assert play(playing, ready=0).process.wait(10) == 0
