"""One descriptor: what is begun is continued, and no file holds half a line of another."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import gevent.threadpool
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.observe import sink as module
from sidecar.observe.sink import Sink, obstacle, open_advice


class Device:
    """os.write as a script says: a number of bytes it takes, or an error; then it takes all."""

    def __init__(self, script: list[int]) -> None:
        self.script = script  # > 0 bytes taken, < 0 an errno
        self.taken = b""

    def write(self, _fd: int, data: Any) -> int:
        step = self.script.pop(0) if self.script else len(data)
        if step < 0:
            raise OSError(-step, os.strerror(-step))
        self.taken += bytes(data[:step])
        return min(step, len(data))


def on(monkeypatch: pytest.MonkeyPatch, *script: int) -> Device:
    device = Device(list(script))
    monkeypatch.setattr(module.os, "write", device.write)
    return device


def test_a_file_is_appended_to_and_made_for_owner_and_group(tmp_path: Path) -> None:
    path = tmp_path / "log"
    old = os.umask(0o022)
    try:
        sink = Sink(str(path))
    finally:
        os.umask(old)
    assert sink.put([b"a\n", b"b\n"]).owed == 0
    sink.close()
    again = Sink(str(path))
    again.put([b"c\n"])
    again.close()
    assert path.read_bytes() == b"a\nb\nc\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_target_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        Sink(str(tmp_path / "missing" / "log"))


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (
            errno.EACCES,
            f"uid {os.geteuid()} may not write it: change the permissions of it or of its directory",
        ),
        (errno.ENOENT, "is in a directory that does not exist: make it first, or name another file"),
        (errno.EROFS, "is on a read-only file system: make that writable, or name another file"),
        (errno.EDQUOT, "has no room: free some on its file system, or name another file"),
        (errno.EIO, "cannot be opened: Input/output error: name another file"),
    ],
)
def test_a_target_that_cannot_be_had_is_told_with_the_remedy(code: int, told: str) -> None:
    assert open_advice(OSError(code, os.strerror(code))) == told


def test_a_look_tells_what_opening_would_and_makes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    for name, code in (
        ("gone/log", errno.ENOENT),
        ("file/log", errno.ENOTDIR),
        ("", errno.EISDIR),
        ("log", 0),
        ("file", 0),
        ("fifo", 0),
    ):
        target = f"{tmp_path}/{name}" if name else str(tmp_path)
        assert obstacle(target) == (open_advice(OSError(code, os.strerror(code))) if code else "")
    assert obstacle("stdout") == ""
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize("name", ["log", "file"])
def test_a_look_sees_rights_and_read_only_mounts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "may not write it" in obstacle(f"{tmp_path}/{name}")
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_flag=os.ST_RDONLY))
    assert "read-only" in obstacle(f"{tmp_path}/{name}")


@pytest.mark.parametrize("is_new", [True, False])
def test_only_an_empty_file_that_was_not_there_goes_when_it_is_not_needed(
    tmp_path: Path, is_new: bool
) -> None:
    path = tmp_path / "log"
    if not is_new:
        path.touch()
    Sink(str(path)).withdraw()
    assert path.exists() != is_new


def test_a_file_that_was_written_or_replaced_stays(tmp_path: Path) -> None:
    path = tmp_path / "log"
    sink = Sink(str(path))
    sink.put([b"a\n"])
    sink.withdraw()
    assert path.read_bytes() == b"a\n"
    path.unlink()
    sink = Sink(str(path))
    path.rename(tmp_path / "log.1")
    path.touch()
    sink.withdraw()
    assert path.exists()


def test_stdout_that_cannot_be_written_is_refused() -> None:
    """What was closed is held by a descriptor that only reads."""
    kept, readable = os.dup(1), os.open(os.devnull, os.O_RDONLY)
    os.dup2(readable, 1)
    try:
        with pytest.raises(OSError) as caught:
            Sink("stdout")
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(readable)
    assert open_advice(caught.value).startswith("is closed: open it")


def test_a_fifo_without_a_reader_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError):
        Sink(str(tmp_path / "fifo"))


def test_stdout_is_never_closed() -> None:
    sink = Sink("stdout")
    assert sink.path is None
    sink.close()
    os.fstat(1)


def test_a_full_disk_keeps_the_lines() -> None:
    sink = Sink("/dev/full")
    outcome = sink.put([b"a\n", b"b\n"])
    assert (outcome.owed, outcome.owed_lines) == (4, 2)
    assert outcome.error.startswith("ENOSPC")
    assert sink.put([b"c\n"]).owed == 6
    sink.close()


def test_a_line_that_was_begun_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = Sink(str(tmp_path / "log"))
    device = on(monkeypatch, 3, -errno.ENOSPC)
    assert sink.put([b"first\n", b"second\n"]).owed_lines == 2
    assert sink.put([b"third\n"]).owed == 0
    assert device.taken == b"first\nsecond\nthird\n"
    sink.close()


def test_a_begun_line_does_not_follow_into_a_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    sink = Sink(str(path))
    device = on(monkeypatch, 3, -errno.ENOSPC)
    sink.put([b"first\n", b"second\n"])
    path.rename(tmp_path / "log.1")
    outcome = sink.put([b"third\n"], reopen=True)
    assert (outcome.reopened, outcome.lost) == (True, 1)
    assert device.taken == b"firsecond\nthird\n"  # "fir" went to the old file
    sink.close()


def test_a_begun_line_goes_on_when_the_file_is_still_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = Sink(str(tmp_path / "log"))
    device = on(monkeypatch, 3, -errno.ENOSPC)
    sink.put([b"first\n"])
    assert sink.put([], reopen=True).lost == 0
    assert device.taken == b"first\n"
    sink.close()


def test_a_file_that_cannot_be_opened_again_leaves_the_old_one(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    sink = Sink(str(folder / "log"))
    folder.rename(tmp_path / "gone")
    outcome = sink.put([b"a\n"], reopen=True)
    assert outcome.refusal.startswith("ENOENT")
    assert not outcome.reopened
    assert (tmp_path / "gone" / "log").read_bytes() == b"a\n"
    sink.close()


def test_a_descriptor_that_would_block_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = Sink(str(tmp_path / "log"))
    device = on(monkeypatch, -errno.EAGAIN, 2, -errno.EAGAIN)
    assert sink.put([b"line\n"]).owed == 0
    assert device.taken == b"line\n"
    sink.close()


@given(
    st.lists(
        st.lists(st.binary(max_size=8).map(lambda b: b.replace(b"\n", b"") + b"\n"), max_size=4), max_size=6
    ),
    st.lists(st.sampled_from([1, 2, 5, -errno.ENOSPC, -errno.EIO, -errno.EPIPE, -errno.EAGAIN])),
)
def test_whatever_the_device_does_lines_arrive_whole_and_in_order(
    batches: list[list[bytes]], script: list[int]
) -> None:
    sink = Sink("/dev/null")
    with pytest.MonkeyPatch.context() as monkeypatch:
        device = on(monkeypatch, *script)
        outcomes = [sink.put(lines) for lines in batches]
        owed = outcomes[-1].owed if outcomes else 0
    sink.close()
    everything = b"".join(line for lines in batches for line in lines)
    assert everything.startswith(device.taken)
    assert len(everything) - len(device.taken) == owed


def test_two_writers_of_one_pipe_do_not_mix_their_lines(tmp_path: Path) -> None:
    path = str(tmp_path / "fifo")
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    sinks = [Sink(path), Sink(path)]
    pool = gevent.threadpool.ThreadPool(3)
    lines = [[bytes([letter]) * 99 + b"\n"] * 2000 for letter in b"ab"]
    puts = [pool.spawn(sink.put, batch) for sink, batch in zip(sinks, lines, strict=True)]
    expected = sum(len(line) for batch in lines for line in batch)

    def read() -> bytes:
        data = b""
        while len(data) < expected:
            data += os.read(reader, 65536)
        return data

    data = pool.spawn(read).get()
    assert sorted(data.splitlines(keepends=True)) == sorted(lines[0] + lines[1])
    assert all(put.get().owed == 0 for put in puts)
    for sink in sinks:
        sink.close()
    os.close(reader)
    pool.kill()


def test_a_forked_process_starts_without_the_locks_of_its_parent() -> None:
    Sink("/dev/null").close()
    assert module._locks
    child = os.fork()
    if not child:
        os._exit(len(module._locks))
    assert os.waitpid(child, 0)[1] == 0
