"""The launcher of the binary: where it unpacks, what it says when it cannot, and what it leaves behind."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.binary import UNPACKED, binary, namespace, run
from tests.support.live import free_port, until


def left(place: Path) -> list[Path]:
    return sorted(place.glob(UNPACKED))


def stale(place: Path) -> Path:
    """A directory as a killed copy leaves it."""
    folder = place / "sidecar-0123456789abcdef"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "lib.so").write_bytes(b"x")
    return folder


@pytest.fixture
def serving(tmp_path: Path) -> Path:
    """A folder of drop-ins that serve on a port of their own."""
    folder = tmp_path / "conf.d"
    folder.mkdir()
    (folder / "10.ini").write_text(
        f"[listener a]\nbind = 127.0.0.1:{free_port()}\n[route r]\npath = /\nrespond = 200 ok\n"
    )
    return folder


def start(conf: Path, place: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [str(binary()), "run", "--conf", str(conf)],
        env={**os.environ, "TMPDIR": str(place)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr
    for line in process.stderr:
        if b'"started"' in line:
            return process
    raise AssertionError("it did not start")


def end(process: subprocess.Popen[bytes], number: signal.Signals = signal.SIGTERM) -> int:
    process.send_signal(number)
    process.communicate(timeout=10)
    return process.returncode


def test_it_unpacks_where_tmpdir_says_and_leaves_nothing(tmp_path: Path, serving: Path):
    place = tmp_path / "place"
    place.mkdir()
    process = start(serving, place)
    assert len(left(place)) == 1
    assert left(place)[0].stat().st_mode & 0o777 == 0o700
    assert end(process) == 0
    assert left(place) == []


def test_the_program_is_the_process_that_was_started(tmp_path: Path, serving: Path):
    process = start(serving, tmp_path)
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        assert children == ""
        assert Path(f"/proc/{process.pid}/comm").read_text() == "sidecar\n"
    finally:
        end(process)


@pytest.mark.parametrize(
    "arguments", [["check", "--conf", "/nowhere"], ["--version"], ["unknown"], ["run", "--conf", "/nowhere"]]
)
def test_a_command_that_ends_leaves_nothing(tmp_path: Path, arguments: list[str]):
    done = run(*arguments, environment={"TMPDIR": str(tmp_path)})
    assert done.returncode == {"--version": 0, "unknown": 2}.get(arguments[0], 1)
    assert left(tmp_path) == []


def test_a_second_term_that_cuts_off_leaves_nothing(tmp_path: Path, serving: Path):
    (serving / "20.ini").write_text("[sidecar]\ndrain_delay = 60s\n")
    process = start(serving, tmp_path)
    process.send_signal(signal.SIGTERM)
    assert process.stderr
    until(lambda: b'"draining"' in (process.stderr.readline() if process.stderr else b""), "it drains")
    assert end(process) == 1
    assert left(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_copy_that_is_ended_while_it_starts_leaves_nothing(
    tmp_path: Path, serving: Path, number: signal.Signals
):
    place = tmp_path / "place"
    place.mkdir()
    environment = {**os.environ, "TMPDIR": str(place)}
    process = subprocess.Popen([binary(), "run", "--conf", serving], env=environment, stderr=subprocess.PIPE)
    until(lambda: left(place), "it unpacks")
    assert end(process, number) == 0
    assert left(place) == []


def test_two_copies_do_not_disturb_each_other(tmp_path: Path):
    processes = [
        subprocess.Popen(
            [str(binary()), "--version"], env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.communicate(timeout=20)[0].startswith(b"sidecar ")
        assert process.returncode == 0
    assert left(tmp_path) == []


def test_a_killed_copy_serves_no_longer_and_the_next_start_removes_its_files(tmp_path: Path, serving: Path):
    assert end(start(serving, tmp_path), signal.SIGKILL) == -signal.SIGKILL
    (killed,) = left(tmp_path)
    process = start(serving, tmp_path)  # its port is free
    assert len(left(tmp_path)) == 1
    assert not killed.exists()
    assert end(process) == 0


def test_a_directory_that_is_in_use_is_not_removed(tmp_path: Path):
    folder = stale(tmp_path)
    fd = os.open(folder, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        run("--version", environment={"TMPDIR": str(tmp_path)})
        assert (folder / "inner" / "lib.so").exists()
    finally:
        os.close(fd)


def test_a_directory_that_is_just_being_made_is_not_removed(tmp_path: Path):
    folder = tmp_path / "sidecar-0123456789abcdef"
    folder.mkdir()
    run("--version", environment={"TMPDIR": str(tmp_path)})
    assert folder.exists()


def test_what_is_not_ours_is_not_removed(tmp_path: Path):
    """Another user's directory, another name, a link."""
    others, named = stale(tmp_path), tmp_path / "sidecar-notes"
    os.chown(others, 1234, 1234)
    named.mkdir()
    (named / "notes").touch()
    target = tmp_path / "target"
    target.mkdir()
    (target / "file").touch()
    (tmp_path / "sidecar-fedcba9876543210").symlink_to(target)
    run("--version", environment={"TMPDIR": str(tmp_path)})
    assert (others / "inner").exists()
    assert (named / "notes").exists()
    assert (target / "file").exists()


# Places that will not do -----------------------------------------------------------------------------------

READ_ONLY = "mount -t tmpfs -o ro none {}"
NO_EXEC = "mount -t tmpfs -o noexec none {}"
FULL = "mount -t tmpfs -o size=4m none {}"


def in_places(
    mounts: dict[str, str], environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `--version` where each place is spoiled by its mount; then tell what is left in them."""
    remains = " ".join(f"{place}/sidecar-*" for place in mounts)
    script = "\n".join(
        [
            "mount -t tmpfs none /mnt",
            f"cp {binary()} /mnt/sidecar",
            *(mount.format(place) for place, mount in mounts.items()),
            f"/mnt/sidecar --version && echo left: $(ls -d {remains} 2>/dev/null)",
        ]
    )
    return namespace(script, environment={"TMPDIR": "", "XDG_RUNTIME_DIR": "", **(environment or {})})


@pytest.mark.parametrize("mount", [READ_ONLY, NO_EXEC, FULL], ids=["read-only", "noexec", "full"])
def test_another_place_is_taken_where_tmp_will_not_do(mount: str):
    done = in_places({"/tmp": mount})
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1] == "left:"
    assert done.stderr == ""


def test_run_is_the_last_place(tmp_path: Path):
    done = in_places({"/tmp": READ_ONLY, "/dev/shm": NO_EXEC})
    assert done.returncode == 0, done.stderr


def test_tmpdir_that_will_not_do_is_passed_over():
    assert in_places({}, {"TMPDIR": "/nowhere"}).returncode == 0
    assert in_places({}, {"TMPDIR": "relative"}).returncode == 0


def test_no_place_at_all_is_one_line_that_says_what_to_mount():
    done = in_places({"/tmp": READ_ONLY, "/dev/shm": NO_EXEC, "/run": FULL}, {"TMPDIR": "/nowhere"})
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("sidecar: no place to unpack ")
    assert "/nowhere does not exist, /tmp is read-only, /dev/shm is mounted noexec, /run is full: " in line
    assert line.endswith("mount a writable tmpfs without noexec at /tmp, or name a directory in TMPDIR")


def test_a_stranger_without_a_place_of_his_own_is_told(tmp_path: Path):
    """Not root: directories that others may not write to."""
    done = namespace(
        f"mount -t tmpfs none /mnt\ncp {binary()} /mnt/sidecar\n"
        "for place in /tmp /dev/shm /run; do mount -t tmpfs -o mode=755 none $place; done\n"
        "setpriv --reuid=1234 --regid=1234 --clear-groups /mnt/sidecar --version",
        environment={"TMPDIR": "", "XDG_RUNTIME_DIR": ""},
    )
    assert done.returncode == 1
    assert (
        "/tmp may not be written to, /dev/shm may not be written to, /run may not be written to"
        in done.stderr
    )


# A file that is not whole ----------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.9999], ids=str)
def test_a_torn_file_is_told(tmp_path: Path, keep: float):
    torn = tmp_path / "torn"
    whole = binary().read_bytes()
    torn.write_bytes(whole[: int(len(whole) * keep)])
    torn.chmod(0o755)
    done = subprocess.run([torn, "--version"], capture_output=True, text=True, timeout=10)
    assert done.returncode == 1
    assert done.stderr == "sidecar: this file is damaged: copy it here again\n"


@pytest.mark.parametrize("at", [0.2, 0.5, 0.8], ids=str)
def test_a_changed_byte_is_told_and_nothing_is_left(tmp_path: Path, at: float):
    changed = tmp_path / "changed"
    content = bytearray(binary().read_bytes())
    content[int(len(content) * at)] ^= 0x55
    changed.write_bytes(content)
    changed.chmod(0o755)
    place = tmp_path / "place"
    place.mkdir()
    environment = {**os.environ, "TMPDIR": str(place)}
    done = subprocess.run([changed, "--version"], capture_output=True, text=True, timeout=10, env=environment)
    assert done.returncode == 1
    assert done.stderr == "sidecar: this file is damaged: copy it here again\n"
    assert left(place) == []
