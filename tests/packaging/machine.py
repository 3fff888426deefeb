"""A throwaway Debian: a root of its own with its own processes, mounts, network and control groups.

Law: the host does not notice. What a machine writes is in its memory and ends with it, the kernel's settings
are read-only to it, and its first process is the only thing that must be ended.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.support.live import ROOT, until
from tests.support.programs import one_at_a_time, program, require_root

#: The first process of a machine that has systemd, and of one that has nothing.
SYSTEMD: Final = ("/lib/systemd/systemd",)
IDLE: Final = ("/bin/sleep", "infinity")

_SUITE: Final = "bookworm"
_INCLUDED: Final = "systemd"
_BOOT: Final = 20.0  # seconds
_BUILD: Final = 220.0

_ENVIRONMENT: Final = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
    "TERM": "dumb",
    "container": "test",  # systemd leaves alone what belongs to the host
}

#: $1: the root that is kept, $2: an empty folder; what follows is the first process.
_OUTSIDE: Final = """
lower=$1 folder=$2
shift 2
mount --make-rprivate /
mount -t tmpfs tmpfs "$folder"
cd "$folder"
mkdir groups upper work root
mount -t overlay overlay -o "lowerdir=$lower,upperdir=upper,workdir=work" root
mount -t cgroup2 cgroup2 groups
own=groups/sidecar-test-$$
mkdir "$own"
echo 0 > "$own/cgroup.procs"
status=0
unshare --cgroup --mount --pid --fork --kill-child sh -euc "$INSIDE" sh "$@" || status=$?
echo 0 > groups/cgroup.procs
find "$own" -depth -type d -exec rmdir {} ';' || true
exit $status
"""

_INSIDE: Final = """
cd root
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
for name in null zero full random urandom tty; do
    : > dev/$name
    mount --bind /dev/$name dev/$name
done
mkdir dev/shm dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
pivot_root . mnt
exec chroot . /bin/sh -euc 'umount -l /mnt; exec setpriv --bounding-set "$DROPPED" "$@"' sh "$@"
"""

_ASK: Final = """
import sys, urllib.request
sys.stdout.buffer.write(urllib.request.urlopen(sys.argv[1], timeout=5).read())
"""

_DROPPED: Final = "-sys_module,-sys_boot,-sys_time,-sys_rawio,-syslog"


class Machine:
    """A running one."""

    def __init__(self, pid: int) -> None:
        self._pid = pid  # of its first process, as the host counts

    def path(self, path: str) -> Path:
        """A file of the machine as the host reaches it."""
        return Path(f"/proc/{self._pid}/root{path}")

    def write(self, path: str, text: str) -> None:
        """Write a file, and the folders it needs."""
        file = self.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def entered(self, *command: str) -> list[str]:
        """What runs `command` in the machine."""
        return [program("nsenter", "util-linux"), "--target", str(self._pid), "--all", *command]

    def networked(self, *command: str) -> list[str]:
        """What runs `command` of the host in the machine's network."""
        return [program("nsenter", "util-linux"), "--target", str(self._pid), "--net", *command]

    def run(self, *command: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a command in the machine to its end; its output is text, errors included."""
        return subprocess.run(
            self.entered(*command),
            env=_ENVIRONMENT,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )

    def must(self, *command: str, timeout: float = 60.0) -> str:
        """The output of a command that must succeed."""
        done = self.run(*command, timeout=timeout)
        assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}"
        return done.stdout

    def install(self, package: Path) -> str:
        """Install a package of the host with dpkg; what was said."""
        inside = f"/tmp/{package.name}"
        self.path(inside).write_bytes(package.read_bytes())
        return self.must("dpkg", "--install", inside)

    def unit(self, name: str, unit: str = "sidecar.service") -> str:
        """A property of a unit."""
        return self.must("systemctl", "show", f"--property={name}", "--value", unit).strip()

    def asks(self, path: str, port: int = 80) -> str:
        """The body that a port of the machine answers with; empty when there is no good answer."""
        url = f"http://127.0.0.1:{port}{path}"
        done = subprocess.run(
            self.networked(sys.executable, "-c", _ASK, url), stdin=subprocess.DEVNULL, capture_output=True
        )
        return done.stdout.decode()

    def journal(self) -> str:
        """What the service told."""
        return self.must("journalctl", "--no-pager", "--output=cat", "--unit=sidecar.service")


@contextmanager
def machine(folder: Path, first: Sequence[str]) -> Iterator[Machine]:
    """A machine with `first` as its first process; `folder` is where the host keeps nothing of it."""
    require_root("a machine of its own")
    lower = debian()
    log = folder / "machine.log"
    place = folder / "machine"
    place.mkdir()
    environment = {**_ENVIRONMENT, "INSIDE": _INSIDE, "DROPPED": _DROPPED}
    with log.open("wb") as sink:
        outer = subprocess.Popen(
            [program("unshare", "util-linux"), "--mount", "--net", "--uts", "--ipc"]
            + ["sh", "-euc", _OUTSIDE, "sh", str(lower), str(place), *first],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
        )
    pid = 0
    try:
        pid = _first(outer, first[0], log)
        booted = Machine(pid)
        if first == SYSTEMD:
            _await_boot(booted)
        yield booted
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
        else:
            outer.kill()
        outer.wait(_BOOT)


def _first(outer: subprocess.Popen[bytes], name: str, log: Path) -> int:
    """The pid of the first process, once it is what it shall be."""
    wanted = Path(name).name.encode()

    def found() -> int:
        assert outer.poll() is None, f"the machine did not start:\n{log.read_text()}"
        for child in children(outer.pid):
            for inner in children(child):
                if Path(f"/proc/{inner}/comm").read_bytes().strip() == wanted:
                    return inner
        return 0

    return until(found, f"{name} runs", _BOOT)


def children(pid: int) -> list[int]:
    """The processes that a process has started and not yet buried."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _await_boot(booted: Machine) -> None:
    def has_booted() -> bool:
        # Degraded: something of the suite's own that a kernel or container does not allow.
        return booted.run("systemctl", "is-system-running").stdout.strip() in ("running", "degraded")

    until(has_booted, "systemd has booted", _BOOT)


def debian() -> Path:
    """A Debian root with systemd, made at first and kept under build/."""
    require_root("debootstrap")
    recipe = hashlib.sha256(f"{_SUITE} {_INCLUDED} 1".encode()).hexdigest()[:8]
    root = ROOT / "build" / f"debian-{_SUITE}-{recipe}"
    if not root.is_dir():
        command = [program("unshare", "util-linux"), "--mount", "--propagation", "private"]
        command += [program("debootstrap", "debootstrap", "debian-archive-keyring"), "--variant=minbase"]
        command += [f"--include={_INCLUDED}", _SUITE]
        with one_at_a_time():
            # Who waited here may find it done.
            if not root.is_dir():
                _make(root, command)
    return root


def _make(root: Path, command: list[str]) -> None:
    made = root.with_name(f"{root.name}.{os.getpid()}")
    done = subprocess.run(
        [*command, str(made)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_BUILD
    )
    assert done.returncode == 0, f"debootstrap failed:\n{(done.stdout + done.stderr)[-3000:]}"
    for package in (made / "var/cache/apt/archives").glob("*.deb"):
        package.unlink()
    made.rename(root)
