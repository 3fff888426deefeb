"""Lines leave in batches, wait when they must, and are dropped and counted rather than kept without end."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.observe import sink as sink_module
from sidecar.observe.events import EVENTS
from sidecar.observe.sink import Outcome
from sidecar.observe.writer import Writer


class ByHand:
    """A scheduler whose timer and thread move when the test says."""

    def __init__(self) -> None:
        self.call: Callable[[], None] | None = None
        self.delays: list[float] = []
        self.at_work: tuple[Callable[[], Outcome], Callable[[Outcome | None], None]] | None = None
        self.left_busy: bool | None = None

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        self.call = call
        self.delays.append(seconds)

    def cancel(self) -> None:
        self.call = None

    def run(self, work: Callable[[], Outcome], done: Callable[[Outcome | None], None]) -> None:
        assert self.at_work is None, "two writes in flight"
        self.at_work = work, done

    def close(self, busy: bool) -> None:
        self.left_busy = busy

    def tick(self) -> None:
        """The timer fires."""
        assert self.call is not None
        call, self.call = self.call, None
        call()

    def finish(self) -> None:
        """The thread does its work."""
        assert self.at_work is not None
        (work, done), self.at_work = self.at_work, None
        done(work())

    def settle(self) -> None:
        """Timer and thread until nothing is left to do, or the target refuses."""
        for _ in range(100):
            if self.at_work:
                self.finish()
            elif self.call and self.delays[-1] < 1.0:
                self.tick()


class AtOnce(ByHand):
    """A thread that is done before it is left."""

    def run(self, work: Callable[[], Outcome], done: Callable[[Outcome | None], None]) -> None:
        done(work())


class Problems(list[tuple[str, dict[str, Any]]]):
    """What the writer told about itself."""

    def __call__(self, name: str, /, **fields: object) -> None:
        assert name in EVENTS
        self.append((name, dict(fields)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


@pytest.fixture
def hand() -> ByHand:
    return ByHand()


@pytest.fixture
def told() -> Problems:
    return Problems()


def make(target: Path | str, hand: ByHand, told: Problems, max_pending: int = 1 << 20) -> Writer:
    return Writer(str(target), max_pending=max_pending, interval=0.2, on_problem=told, scheduler=hand)


def test_lines_of_one_interval_leave_as_one_batch(path: Path, hand: ByHand, told: Problems) -> None:
    writer = make(path, hand, told)
    writer.write(b"a\n")
    writer.write(b"b\n")
    assert hand.delays == [0.2]
    assert path.read_bytes() == b""
    hand.tick()
    hand.finish()
    assert path.read_bytes() == b"a\nb\n"
    assert hand.call is None


def test_a_full_batch_does_not_wait_for_the_interval(path: Path, hand: ByHand, told: Problems) -> None:
    writer = make(path, hand, told)
    line = b"x" * 65535 + b"\n"
    for _ in range(5):
        writer.write(line)
    hand.finish()
    assert path.stat().st_size == 5 * len(line)


def test_lines_that_come_during_a_write_make_the_next_batch(path: Path, hand: ByHand, told: Problems) -> None:
    writer = make(path, hand, told)
    writer.write(b"a\n")
    hand.tick()
    writer.write(b"b\n")
    hand.finish()
    assert path.read_bytes() == b"a\n"
    hand.tick()
    hand.finish()
    assert path.read_bytes() == b"a\nb\n"
    assert not told


def test_what_does_not_fit_is_dropped_and_told_once_at_each_end(
    path: Path, hand: ByHand, told: Problems
) -> None:
    writer = make(path, hand, told, max_pending=6)
    writer.write(b"a\n")
    hand.tick()
    for letter in b"bcdef":
        writer.write(bytes([letter]) + b"\n")
    assert writer.dropped == 3
    assert told == [("log_dropped", {"target": str(path), "state": "started", "pending": 6})]
    hand.settle()
    assert path.read_bytes() == b"a\nb\nc\n"
    assert told[1:] == [("log_dropped", {"target": str(path), "state": "ended", "dropped": 3})]


def test_dropping_ends_only_with_a_batch_during_which_none_was_dropped(
    path: Path, hand: ByHand, told: Problems
) -> None:
    writer = make(path, hand, told, max_pending=4)
    for _ in range(5):
        while hand.at_work is None:
            writer.write(b"a\n")
        for _ in range(4):
            writer.write(b"b\n")
        hand.finish()
    assert [fields["state"] for _, fields in told] == ["started"]
    hand.settle()
    writer.write(b"c\n")
    hand.settle()
    assert [fields["state"] for _, fields in told] == ["started", "ended"]
    assert told[-1][1]["dropped"] == writer.dropped


def test_telling_of_a_drop_through_the_same_writer_does_not_recurse(path: Path, hand: ByHand) -> None:
    def tell(name: str, /, **fields: object) -> None:
        writer.write(f"{name} {fields['state']}\n".encode())

    writer = Writer(str(path), max_pending=60, on_problem=tell, scheduler=hand)
    line = b"x" * 20 + b"\n"
    writer.write(line)
    hand.tick()
    writer.write(line)
    writer.write(line)
    assert writer.dropped == 2  # the line, and the event about it
    hand.settle()
    assert path.read_bytes() == line + line + b"log_dropped ended\n"


def test_a_full_disk_is_one_event_and_the_lines_wait(hand: ByHand, told: Problems) -> None:
    writer = make("/dev/full", hand, told, max_pending=8)
    writer.write(b"a\n")
    for _ in range(3):
        hand.tick()
        hand.finish()
        writer.write(b"b\n")
    assert hand.delays == [0.2, 1.0, 2.0, 4.0]
    assert writer.failed == 3
    assert writer.dropped == 0
    assert [name for name, _ in told] == ["log_failed"]
    assert told[0][1]["error"].startswith("ENOSPC")
    writer.write(b"c\n")
    assert writer.dropped == 1


def test_a_disk_with_room_again_gets_the_lines_and_an_event(
    path: Path, hand: ByHand, told: Problems, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = make(path, hand, told)
    with monkeypatch.context() as broken:
        broken.setattr(sink_module.os, "write", refuse(errno.EIO))
        writer.write(b"a\n")
        hand.tick()
        hand.finish()
    writer.write(b"b\n")
    hand.tick()
    hand.finish()
    assert path.read_bytes() == b"a\nb\n"
    assert [name for name, _ in told] == ["log_failed", "log_recovered"]


def test_tries_grow_rarer_up_to_a_bound_and_are_frequent_again_after_a_success(
    path: Path, hand: ByHand, told: Problems, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = make(path, hand, told)
    for expected in ([1.0, 2.0, 4.0, 8.0, 16.0, 16.0], [1.0, 2.0]):
        hand.delays.clear()
        writer.write(b"a\n")
        with monkeypatch.context() as broken:
            broken.setattr(sink_module.os, "write", refuse(errno.ENOSPC))
            for _ in expected:
                hand.tick()
                hand.finish()
        assert hand.delays == [0.2, *expected]
        hand.tick()
        hand.finish()
    assert path.read_bytes() == b"a\na\n"


def test_a_recovery_tells_what_was_lost_since_the_failing_began(
    path: Path, hand: ByHand, told: Problems, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = make(path, hand, told, max_pending=4)
    for lost in (1, 2):
        with monkeypatch.context() as broken:
            broken.setattr(sink_module.os, "write", refuse(errno.ENOSPC))
            writer.write(b"a\n")
            hand.tick()
            hand.finish()
            for _ in range(1 + lost):
                writer.write(b"b\n")
        hand.tick()
        hand.finish()
        (recovered,) = [fields for name, fields in told if name == "log_recovered"]
        assert recovered["dropped"] == lost
        told.clear()


def refuse(number: int) -> Callable[[int, Any], int]:
    def write(_fd: int, _data: Any) -> int:
        raise OSError(number, os.strerror(number))

    return write


def test_a_thread_that_breaks_costs_its_batch_only(path: Path, told: Problems) -> None:
    class Breaking(ByHand):
        def finish(self) -> None:
            assert self.at_work is not None
            (_, done), self.at_work = self.at_work, None
            done(None)

    hand = Breaking()
    writer = make(path, hand, told)
    writer.write(b"a\n")
    hand.tick()
    hand.finish()
    assert (writer.dropped, writer.failed) == (1, 1)
    writer.write(b"b\n")
    hand.tick()
    ByHand.finish(hand)
    assert path.read_bytes() == b"b\n"


def test_a_rotation_puts_what_pends_into_the_new_file(path: Path, hand: ByHand, told: Problems) -> None:
    writer = make(path, hand, told)
    writer.write(b"a\n")
    hand.tick()
    hand.finish()
    path.rename(path.with_suffix(".1"))
    writer.write(b"b\n")
    writer.reopen()
    hand.finish()
    assert path.with_suffix(".1").read_bytes() == b"a\n"
    assert path.read_bytes() == b"b\n"
    assert [name for name, _ in told] == ["log_reopened"]


def test_a_rotation_during_a_write_waits_for_it(path: Path, hand: ByHand, told: Problems) -> None:
    writer = make(path, hand, told)
    writer.write(b"a\n")
    hand.tick()
    path.rename(path.with_suffix(".1"))
    writer.reopen()
    writer.write(b"b\n")
    hand.finish()
    hand.finish()
    assert path.with_suffix(".1").read_bytes() == b"a\n"
    assert path.read_bytes() == b"b\n"


def test_a_rotation_that_fails_is_told_and_the_old_file_goes_on(
    tmp_path: Path, hand: ByHand, told: Problems
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    writer = make(folder / "log", hand, told)
    folder.rename(tmp_path / "gone")
    writer.write(b"a\n")
    writer.reopen()
    hand.finish()
    assert (tmp_path / "gone" / "log").read_bytes() == b"a\n"
    assert [(name, fields["doing"]) for name, fields in told] == [("log_failed", "reopen")]


def test_stdout_is_not_opened_again(hand: ByHand, told: Problems) -> None:
    make("stdout", hand, told).reopen()
    assert hand.at_work is None


def test_the_end_writes_what_pends_and_takes_no_more(path: Path, told: Problems) -> None:
    hand = AtOnce()
    writer = make(path, hand, told)
    writer.write(b"a\n")
    assert writer.close(1.0)
    assert path.read_bytes() == b"a\n"
    assert hand.left_busy is False
    writer.write(b"late\n")
    assert writer.dropped == 1
    assert writer.close(1.0)
    assert not told


def test_the_end_tries_a_failing_target_once(told: Problems) -> None:
    writer = make("/dev/full", AtOnce(), told)
    writer.write(b"a\n")
    writer.write(b"b\n")
    assert not writer.close(1.0)
    assert (writer.failed, writer.dropped) == (1, 2)
    assert told[-1] == ("log_dropped", {"target": "/dev/full", "state": "ended", "dropped": 2})


def test_the_end_counts_what_was_dropped_before_it(path: Path, hand: ByHand, told: Problems) -> None:
    writer = make(path, hand, told, max_pending=4)
    writer.write(b"a\n")
    hand.tick()
    for _ in range(2):
        writer.write(b"b\n")
    assert not writer.close(0.0)
    first, last = (fields for _, fields in told)
    assert first["state"] == "started"
    assert (last["state"], last["dropped"]) == ("ended", 3)


def test_a_log_that_was_opened_in_vain_leaves_no_file(path: Path, hand: ByHand, told: Problems) -> None:
    writer = make(path, hand, told)
    writer.withdraw()
    assert not path.exists()
    assert hand.left_busy is False
    writer.write(b"late\n")
    assert writer.dropped == 1
    writer.withdraw()


def test_a_log_with_lines_is_not_withdrawn_but_closed(path: Path, told: Problems) -> None:
    writer = make(path, AtOnce(), told)
    writer.write(b"a\n")
    writer.withdraw()
    assert path.read_bytes() == b"a\n"


def test_the_end_does_not_wait_for_a_stuck_target(path: Path, hand: ByHand, told: Problems) -> None:
    writer = make(path, hand, told)
    writer.write(b"a\n")
    hand.tick()
    writer.write(b"b\n")
    assert not writer.close(0.0)
    assert hand.left_busy
    assert writer.dropped == 2


@given(st.lists(st.one_of(st.integers(1, 40), st.sampled_from(["tick", "finish"])), max_size=80))
def test_every_line_arrives_whole_and_in_order_or_is_counted(steps: list[Any]) -> None:
    hand, taken = ByHand(), b""

    def write(_fd: int, data: Any) -> int:
        nonlocal taken
        piece = bytes(data[:7])
        taken += piece
        return len(piece)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(sink_module.os, "write", write)
        writer = make("/dev/null", hand, Problems(), max_pending=100)
        given_lines = []
        for number, step in enumerate(steps):
            if step == "tick":
                hand.call and hand.tick()
            elif step == "finish":
                hand.at_work and hand.finish()
            else:
                given_lines.append(f"{number:04d}".encode() + b"x" * step + b"\n")
                writer.write(given_lines[-1])
        hand.settle()
    arrived = taken.splitlines(keepends=True)
    assert len(arrived) + writer.dropped == len(given_lines)
    remaining = iter(given_lines)
    assert all(line in remaining for line in arrived)


def test_a_pipe_that_nobody_reads_stops_neither_the_hub_nor_the_end(path: Path, told: Problems) -> None:
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = Writer(str(path), max_pending=1 << 20, interval=0.0, on_problem=told)
    line = b"x" * 1023 + b"\n"
    for _ in range(2000):
        writer.write(line)
    gevent.idle()
    assert writer.dropped == 2000 - 1024
    assert not writer.close(0.01)
    assert told[0][0] == "log_dropped"
    os.close(reader)


def test_with_the_real_loop_the_timer_and_the_thread_deliver(path: Path) -> None:
    done = gevent.event.Event()

    def tell(name: str, /, **fields: object) -> None:
        done.set()

    writer = Writer(str(path), interval=0.001, on_problem=tell)
    writer.write(b"a\n")
    writer.reopen()
    assert done.wait(30)
    writer.write(b"b\n")
    assert writer.close(30)
    assert path.read_bytes() == b"a\nb\n"


def test_a_process_with_a_stuck_stdout_still_ends() -> None:
    program = (
        "from gevent import monkey; monkey.patch_all()\n"
        "from sidecar.observe.writer import Writer\n"
        "writer = Writer('stdout', on_problem=lambda name, **fields: None)\n"
        "for _ in range(1000): writer.write(b'x' * 1023 + b'\\n')\n"
        "raise SystemExit(3 if writer.close(0.01) else 4)\n"
    )
    reader, stdout = os.pipe()
    try:
        ended = subprocess.run([sys.executable, "-c", program], stdout=stdout, timeout=60, check=False)
    finally:
        os.close(stdout)
        os.close(reader)
    assert ended.returncode == 4
