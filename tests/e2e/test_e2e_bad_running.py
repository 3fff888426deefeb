"""What goes wrong while it serves: an event, a count, another try; requests are served as before."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.confined import inside
from tests.support.live import Live, Sidecar, until
from tests.support.peers import Stream, ask

HELLO = "[route hello]\npath = /hello\nrespond = 200 hello\n"
#: A line of the log is longer than this many bytes; a disk of the tests has 64 KiB.
LINE = 150


def logging_to(live: Live, folder: Path, word: str) -> tuple[Sidecar, Path]:
    """A sidecar whose access log is on a disk of its own, and the log as we see it."""
    folder.mkdir()
    config = f"[sidecar]\naccess_log = {folder}/log\n{HELLO}"
    sidecar = live.start(config, without=(f"{word}={folder}",))
    return sidecar, Path(inside(sidecar.pid, folder / "log"))


def paths(log: Path) -> list[str]:
    """What was asked for, by the whole lines of a log."""
    return [
        json.loads(line)["path"] for line in log.read_bytes().splitlines(keepends=True) if line[-1:] == b"\n"
    ]


def asked(live: Live, first: int, count: int) -> list[str]:
    """Ask so often; what for."""
    targets = [f"/hello?{number}" for number in range(first, first + count)]
    with Stream.connect(live.port) as client:
        for target in targets:
            assert client.ask("GET", target).status == 200
    return targets


def names(events: list[dict[str, Any]]) -> list[str]:
    """Their names, those about a log only."""
    return [event["event"] for event in events if event["event"].startswith("log_")]


def test_log_on_a_disk_that_runs_full_waits_and_loses_nothing(live: Live) -> None:
    """One event when it begins and one when it is over; meanwhile every request is answered."""
    folder = live.folder / "disk"
    sidecar, log = logging_to(live, folder, "disk")
    first = asked(live, 0, 10)
    until(lambda: len(paths(log)) == 10, "the first lines")
    filler = Path(inside(sidecar.pid, folder / "filler"))
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(bytes(512))
    # More than what is left of the page that the log has.
    later = asked(live, 10, 4096 // LINE + 1)
    (failed,) = sidecar.wait_event("log_failed")
    assert (failed["target"], failed["doing"]) == (str(folder / "log"), "write")
    assert failed["error"].startswith("ENOSPC")
    later += asked(live, 100, 10)
    filler.unlink()
    (recovered,) = sidecar.wait_event("log_recovered", timeout=20.0)
    assert recovered["dropped"] == 0
    assert until(lambda: paths(log)[-1] == later[-1], "the last line")
    assert paths(log) == first + later
    assert names(sidecar.events()) == ["log_failed", "log_recovered"]


def test_full_disk_at_the_start_keeps_nobody_from_serving(live: Live) -> None:
    """The file can be made, so the process serves and says that the log cannot be written."""
    folder = live.folder / "disk"
    sidecar, log = logging_to(live, folder, "full")
    targets = asked(live, 0, 5)
    sidecar.wait_event("log_failed")
    Path(inside(sidecar.pid, folder / "filler")).unlink()
    sidecar.wait_event("log_recovered", timeout=20.0)
    assert paths(log) == targets


def test_lines_that_are_lost_at_the_end_are_counted(live: Live) -> None:
    """The disk is still full when the process has to end: the events say how many lines nobody will see."""
    sidecar, _ = logging_to(live, live.folder / "disk", "full")
    asked(live, 0, 5)
    sidecar.wait_event("log_failed")
    sidecar.process.terminate()
    assert sidecar.wait_exit() == 0
    (dropped,) = sidecar.events("log_dropped")
    assert (dropped["state"], dropped["dropped"]) == ("ended", 5)
    assert [event["event"] for event in sidecar.events()][-2:] == ["log_dropped", "stopped"]


def test_reader_of_a_log_may_go_and_come_back(live: Live) -> None:
    """A broken pipe is a log that fails: lines wait for the next reader."""
    fifo = live.folder / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    sidecar = live.start(f"[sidecar]\naccess_log = {fifo}\n{HELLO}")
    os.close(reader)
    targets = asked(live, 0, 3)
    (failed,) = sidecar.wait_event("log_failed")
    assert failed["error"].startswith("EPIPE")
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        sidecar.wait_event("log_recovered", timeout=20.0)
        lines = os.read(reader, 65536).splitlines()
    finally:
        os.close(reader)
    assert [json.loads(line)["path"] for line in lines] == targets


@pytest.mark.parametrize(
    ("word", "cause"),
    [("watches", "fs.inotify.max_user_watches"), ("instances", "fs.inotify.max_user_instances")],
)
def test_kernel_without_watches_left_is_told_and_changes_are_still_seen(
    live: Live, word: str, cause: str
) -> None:
    """The limit that has to be raised is named; until then the files are compared."""
    sidecar = live.start(HELLO, without=(word,))
    (degraded,) = sidecar.wait_event("watch_degraded")
    assert cause in degraded["cause"]
    live.conf.write("20-more.ini", "[route more]\npath = /more\nrespond = 201 more\n")
    sidecar.wait_event("reload_applied", timeout=3 * degraded["interval"])
    assert ask(live.port, "/more").status == 201


def test_folder_that_goes_away_is_told_and_serves_on(live: Live) -> None:
    """The old configuration holds, and what comes back in its place is read."""
    sidecar = live.start(HELLO)
    away = live.folder / "away"
    live.conf.path.rename(away)
    (refused,) = sidecar.wait_event("reload_refused")
    assert refused["mistakes"] == [
        f"{live.conf.path}: there is no such directory: create it, or name another with --conf DIR"
    ]
    assert ask(live.port, "/hello").body == b"hello"
    away.rename(live.conf.path)
    sidecar.wait_event("reload_unchanged")
    live.conf.write("20-more.ini", "[route more]\npath = /more\nrespond = 201 more\n")
    sidecar.wait_event("reload_applied")
    assert ask(live.port, "/more").status == 201


def test_drop_in_that_cannot_be_read_any_more_changes_nothing(live: Live) -> None:
    """The reload is refused with the name of the file; with its rights back nothing has changed."""
    file = live.conf.write("20-more.ini", "[route more]\npath = /more\nrespond = 201 more\n")
    sidecar = live.start(HELLO, without=("powerless",))
    file.chmod(0)
    (refused,) = sidecar.wait_event("reload_refused")
    assert refused["mistakes"][0].startswith(f"{file}: uid {os.geteuid()} may not read it: ")
    assert ask(live.port, "/more").status == 201
    file.chmod(0o644)
    sidecar.wait_event("reload_unchanged")
