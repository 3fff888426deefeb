"""A start that cannot succeed: one line with the thing and the remedy, status 1, and nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.command import ROOT, command
from tests.support.confined import confined
from tests.support.live import END, START, Live, tell, until
from tests.support.peers import ask

HELLO = "[route hello]\npath = /hello\nrespond = 200 hello\n"
USER = f"uid {os.geteuid()}"
NOT_READ = f"{USER} may not read it: change the permissions of the file or of its directory"


def refused(live: Live, config: str = "", *, conf: Path | None = None, without: tuple[str, ...] = ()) -> str:
    """The one line of a start that fails."""
    sidecar = live.launch(conf=conf, config=config, without=without)
    assert sidecar.wait_exit(START) == 1
    (line,) = sidecar.complaints()
    assert {event["event"] for event in sidecar.events()} <= {"descriptors_raised"}
    assert sidecar.exchanges() == []
    return line


class Folder(NamedTuple):
    """A directory of drop-ins that cannot be read: how it is made, and what is told of it."""

    name: str
    make: Callable[[Path], object]
    told: str
    without: tuple[str, ...] = ()


def _denied(path: Path, mode: int) -> None:
    path.mkdir()
    (path / "a.ini").write_text(HELLO)
    path.chmod(mode)


def _with_file(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def make_both(path: Path) -> None:
        path.mkdir()
        make(path / "a.ini")

    return make_both


FOLDERS = [
    Folder("missing", lambda path: None, ": there is no such directory: create it, or name another with"),
    Folder(
        "link to nowhere", lambda path: path.symlink_to("gone"), ": there is no such directory: create it"
    ),
    Folder(
        "file", Path.touch, ": is not a directory: name the one that holds the .ini files with --conf DIR"
    ),
    Folder(
        "not readable",
        lambda path: _denied(path, 0),
        f": {USER} may not list it: change its permissions, or name another with --conf DIR",
        ("powerless",),
    ),
    Folder(
        "not searchable",
        lambda path: _denied(path, 0o600),
        rf"/a\.ini: {NOT_READ}",
        ("powerless",),
    ),
    Folder(
        "file not readable",
        _with_file(lambda file: file.touch(0)),
        rf"/a\.ini: {NOT_READ}",
        ("powerless",),
    ),
    Folder(
        "file is a link to nowhere",
        _with_file(lambda file: file.symlink_to("gone")),
        r"/a\.ini: is a link to gone, which does not exist: make that, or remove the link",
    ),
    Folder(
        "file is a link to itself",
        _with_file(lambda file: file.symlink_to("a.ini")),
        r"/a\.ini: is a link that leads back to itself: remove it",
    ),
    Folder("file is a folder", _with_file(Path.mkdir), r"/a\.ini: is not a file: move it away, or rename it"),
]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_folder_that_cannot_be_read_is_named_with_the_remedy(live: Live, folder: Folder) -> None:
    """`run` and `check` say the same."""
    path = live.folder / "given"
    folder.make(path)
    line = refused(live, conf=path, without=folder.without)
    assert re.match(re.escape(str(path)) + folder.told, line)
    checked = tell("check", "--conf", str(path), without=folder.without)
    assert (checked.returncode, checked.stdout, checked.stderr) == (1, "", f"{line}\n")


@pytest.mark.parametrize("verb", ["run", "check", "show"])
def test_empty_name_of_a_folder_is_wrong_usage(verb: str) -> None:
    """An unset variable in a script does not serve whatever lies in the working directory."""
    told = tell(verb, "--conf", "")
    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr.splitlines()[-1].endswith(
        "--conf: it is empty: name a directory, or leave the option out"
    )


class Place(NamedTuple):
    """An address or a log that cannot be had. `{}` in `value` is a folder of the test, made by `make`."""

    name: str
    value: str
    told: str
    make: Callable[[Path], object] = lambda folder: None
    without: tuple[str, ...] = ()


ADDRESSES = [
    Place(
        "port that needs a right",
        "0.0.0.0:80",
        "needs a permission this process does not have: choose a port from 1024 on, or grant",
        without=("network", "powerless"),
    ),
    Place(
        "address of another machine", "192.0.2.1:20000", "is not an address of this machine: write 0.0.0.0"
    ),
    Place("folder missing", "unix:{}/gone/s", "is in a directory that does not exist: make it first"),
    Place(
        "folder not writable",
        "unix:{}/s",
        f"{USER} may not make it: change the permissions of its directory, or choose another path",
        lambda folder: folder.chmod(0o555),
        ("powerless",),
    ),
    Place(
        "below a file",
        "unix:{}/file/s",
        "is below something that is not a directory: choose another path",
        lambda folder: (folder / "file").touch(),
    ),
    Place(
        "held by a file",
        "unix:{}/file",
        "is a file and no socket: remove it, or choose another path",
        lambda folder: (folder / "file").touch(),
    ),
]


@pytest.mark.parametrize("place", ADDRESSES, ids=lambda place: place.name)
def test_address_that_cannot_be_bound_is_named_with_file_line_and_remedy(live: Live, place: Place) -> None:
    """The drop-in is sound, so `check` says nothing: it may be another machine that serves."""
    folder = live.folder / "place"
    folder.mkdir()
    place.make(folder)
    before = sorted(folder.iterdir())
    address = place.value.format(folder)
    line = refused(live, f"[listener a]\nbind = {address}\n", without=place.without)
    assert line.startswith(f"{live.conf.path}/10-test.ini:2: [listener a] bind: {address}: {place.told}")
    assert sorted(folder.iterdir()) == before
    assert tell("check", "--conf", str(live.conf.path)).returncode == 0


def test_socket_of_a_living_process_is_left_to_it(live: Live) -> None:
    """Its file stays, and who asks there is still heard by the other."""
    path = live.folder / "s"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        line = refused(live, f"[listener a]\nbind = unix:{path}\n")
        assert f"unix:{path}: is in use by another process: stop it, or choose another path" in line
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


LOGS = [
    Place("folder missing", "{}/gone/log", "is in a directory that does not exist: make it first"),
    Place(
        "folder not writable",
        "{}/log",
        f"{USER} may not write it: change the permissions of it or of its directory",
        lambda folder: folder.chmod(0o555),
        ("powerless",),
    ),
    Place(
        "not writable",
        "{}/log",
        f"{USER} may not write it: change the permissions of it or of its directory",
        lambda folder: (folder / "log").touch(0o444),
        ("powerless",),
    ),
    Place("a folder", "{}", "is a directory: name a file in it"),
    Place(
        "below a file",
        "{}/file/log",
        "is below something that is not a directory: name another file",
        lambda folder: (folder / "file").touch(),
    ),
]


@pytest.mark.parametrize("place", LOGS, ids=lambda place: place.name)
def test_log_that_cannot_be_opened_is_named_with_file_line_and_remedy(live: Live, place: Place) -> None:
    """`run` refuses; `check` warns, for it may be another user that serves."""
    folder = live.folder / "place"
    folder.mkdir()
    place.make(folder)
    target = place.value.format(folder)
    live.listen()
    line = refused(live, f"[sidecar]\n\naccess_log = {target}\n", without=place.without)
    assert line.startswith(f"{live.conf.path}/10-test.ini:3: [sidecar] access_log: {target}: {place.told}")
    checked = tell("check", "--conf", str(live.conf.path), without=place.without)
    assert (checked.returncode, checked.stderr) == (0, f"warning: {line}\n")


def test_log_on_a_disk_without_room_for_another_file_is_named(live: Live) -> None:
    """No file can be made: there is nothing to wait for."""
    folder = live.folder / "place"
    folder.mkdir()
    live.listen()
    line = refused(live, f"[sidecar]\naccess_log = {folder}/log\n", without=(f"files={folder}",))
    assert f"{folder}/log: has no room: free some on its file system, or name another file" in line


def test_fifo_that_nobody_reads_is_no_log(live: Live) -> None:
    """It is not waited for."""
    os.mkfifo(live.folder / "fifo")
    live.listen()
    line = refused(live, f"[sidecar]\naccess_log = {live.folder}/fifo\n")
    assert "is a FIFO or socket that nobody reads: start its reader first" in line


def test_closed_stdout_is_no_log(live: Live) -> None:
    """Who closed it meant something else, and no socket gets the lines in its place."""
    live.listen()
    line = refused(live, HELLO, without=("closed=1",))
    assert "[sidecar] access_log: stdout: is closed: open it" in line


def test_closed_stderr_and_stdin_do_not_matter(live: Live) -> None:
    """What is served is served, and nothing is written into the sockets that come first."""
    live.listen()
    sidecar = live.launch(config=HELLO, without=("closed=0", "closed=2"))
    until(lambda: sidecar.process.poll() is not None or _answers(live), "it answers", START)
    with socket.create_connection(("127.0.0.1", live.port)) as client:
        client.sendall(b"GET /hello HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\nhello")
    sidecar.process.terminate()
    assert sidecar.wait_exit() == 0


def _answers(live: Live) -> bool:
    try:
        return ask(live.port, "/hello").status == 200
    except OSError:
        return False


@pytest.mark.parametrize("verb", ["check", "show", "manual", "--help"])
def test_output_that_cannot_be_written_is_one_line(live: Live, verb: str) -> None:
    """A full disk, a closed stdout: told on stderr, with the status of a failure."""
    live.listen()
    arguments = [verb, "--conf", str(live.conf.path)] if verb in ("check", "show") else [verb]
    closed = tell(*arguments, without=("closed=1",))
    assert (closed.returncode, closed.stderr) == (1, "stdout: is closed: open it\n")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*command(), *arguments], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (1, "stdout: cannot be written: No space left on device\n")


def test_reader_that_has_seen_enough_is_no_mistake_to_tell(live: Live) -> None:
    """`sidecar show | head` ends quietly."""
    live.listen()
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*command(), "show", "--conf", str(live.conf.path)],
        cwd=ROOT,
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def test_check_does_without_stderr(live: Live) -> None:
    """Its status is what counts."""
    live.listen()
    path = str(live.conf.path)
    assert tell("check", "--conf", path, without=("closed=2",)).returncode == 0
    live.conf.write("20-bad.ini", "nonsense")
    assert tell("check", "--conf", path, without=("closed=2",)).returncode == 1


def test_too_few_descriptors_are_told_with_the_number_that_is_needed(live: Live) -> None:
    """Instead of a process that answers nobody."""
    live.listen()
    line = refused(live, HELLO, without=("descriptors=16",))
    assert line == (
        "16 descriptors are too few to serve anybody: raise the limit of open files to 32 or, better, some"
        " thousands"
    )


def test_failed_start_leaves_nothing(live: Live) -> None:
    """The last of several things fails: the socket file and the log of those before it are gone again."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        folder = live.folder / "place"
        folder.mkdir()
        (folder / "old.log").write_text("of another day\n")
        for log in ("new.log", "old.log"):
            line = refused(
                live,
                f"[sidecar]\naccess_log = {folder}/{log}\n"
                f"[listener a]\nbind = unix:{folder}/s\n"
                f"[listener b]\nbind = 127.0.0.1:{taken}\n",
            )
            assert f"127.0.0.1:{taken}: is in use by another process" in line
    assert [file.name for file in folder.iterdir()] == ["old.log"]
    assert (folder / "old.log").read_text() == "of another day\n"


def test_process_that_was_started_is_the_one_that_serves(live: Live) -> None:
    """Packed or not: its number is the one that signals and service managers know."""
    sidecar = live.start(HELLO)
    assert sidecar.events("started")[0]["pid"] == sidecar.process.pid


def test_reader_of_stderr_that_goes_away_ends_nothing(live: Live) -> None:
    """A supervisor restarts its log collector: requests are served, and TERM still drains."""
    live.listen()
    live.conf.write("10-test.ini", HELLO)
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [*confined(), *command(), "run", "--conf", str(live.conf.path)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=writer,
    )
    os.close(writer)
    try:
        with os.fdopen(reader, "rb") as lines:
            assert any(b'"started"' in line for line in lines)
        live.conf.write("20-bad.ini", "nonsense")
        process.send_signal(signal.SIGHUP)
        assert all(ask(live.port, "/hello").status == 200 for _ in range(20))
        process.terminate()
        assert process.wait(END) == 0
    finally:
        process.kill()
        process.wait()
