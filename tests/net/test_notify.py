"""Messages to the service manager: what they say, and that nothing depends on who listens."""

from __future__ import annotations

import socket as plain
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.net import notify
from sidecar.net.notify import Notify
from tests.support.streams import now, outcome, start

pytestmark = pytest.mark.usefixtures("no_leaks")

PID = 77


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[plain.socket]:
    with plain.socket(plain.AF_UNIX, plain.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        yield sock


def line(manager: plain.socket, **environ: str) -> Notify:
    return Notify({"NOTIFY_SOCKET": manager.getsockname(), **environ}, PID)


def read(manager: plain.socket) -> list[str]:
    return manager.recv(65536).decode().split("\n")


def is_silent(manager: plain.socket) -> bool:
    try:
        return not manager.recv(65536)
    except BlockingIOError:
        return True


def test_what_is_said(manager: plain.socket) -> None:
    told = line(manager)
    told.ready("serving")
    told.status("a\nb  c")
    told.reloading(12.5)
    told.stopping(1.5, "ends")
    told.ping()
    assert [read(manager) for _ in range(5)] == [
        ["READY=1", "STATUS=serving"],
        ["STATUS=a b c"],
        ["RELOADING=1", "MONOTONIC_USEC=12500000"],
        ["STOPPING=1", "EXTEND_TIMEOUT_USEC=1500000", "STATUS=ends"],
        ["WATCHDOG=1"],
    ]


def test_who_has_handed_over_says_nothing_more(manager: plain.socket) -> None:
    told = line(manager, WATCHDOG_USEC="1000000")
    told.hand_over(99)
    assert read(manager) == ["MAINPID=99", "WATCHDOG=1"]
    told.ready("x")
    told.stopping(1, "x")
    told.ping()
    assert is_silent(manager)
    assert told.interval == 0


def test_an_abstract_address_is_reached() -> None:
    with plain.socket(plain.AF_UNIX, plain.SOCK_DGRAM) as sock:
        sock.bind("")  # the kernel chooses an abstract one
        Notify({"NOTIFY_SOCKET": "@" + sock.getsockname()[1:].decode()}, PID).ready("x")
        assert sock.recv(100) == b"READY=1\nSTATUS=x"


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "relative/path", "/nowhere/notify", "/" + "x" * 200])
def test_without_a_manager_nothing_happens(address: str) -> None:
    Notify({"NOTIFY_SOCKET": address} if address else {}, PID).ready("x")


def test_a_manager_that_reads_nothing_is_given_up(
    manager: plain.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "_PATIENCE", 0.02)
    told = line(manager)
    with plain.socket(plain.AF_UNIX, plain.SOCK_DGRAM) as other:
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                other.sendto(b"x", manager.getsockname())
    before = now()
    outcome(start(told.ready, "x"))
    assert 0.01 < now() - before < 5


def test_a_message_waits_for_room_and_for_the_one_before_it(manager: plain.socket) -> None:
    told = line(manager)
    count = 0
    with plain.socket(plain.AF_UNIX, plain.SOCK_DGRAM) as other:
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                other.sendto(b"x", manager.getsockname())
                count += 1
    sent = [start(told.status, "first"), start(told.status, "second")]
    for _ in range(count):
        assert read(manager) == ["x"]
    for each in sent:
        outcome(each)
    assert [read(manager), read(manager)] == [["STATUS=first"], ["STATUS=second"]]


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({}, 0),
        ({"WATCHDOG_USEC": "3000000"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "77"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "78"}, 0),
        ({"WATCHDOG_USEC": "-3"}, 0),
        ({"WATCHDOG_USEC": "soon"}, 0),
        ({"WATCHDOG_USEC": "²"}, 0),
    ],
)
def test_the_watchdog_is_pinged_twice_in_its_time(
    manager: plain.socket, environ: dict[str, str], interval: float
) -> None:
    assert line(manager, **environ).interval == interval
    assert Notify(environ, PID).interval == 0
