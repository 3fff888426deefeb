"""The units: verified, confined, and run by a real systemd."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.packaging.machine import Machine
from tests.support.binary import ROOT
from tests.support.live import until
from tests.support.programs import program

#: The first test that needs a machine makes its root.
pytestmark = pytest.mark.timeout(300)

FOLDER = ROOT / "packaging/systemd"
UNITS = ("sidecar.service", "sidecar.socket")
#: Tenths of what `systemd-analyze security` gives to a service that is not confined at all: 96.
EXPOSURE = 16

HELLO = "[listener public]\nbind = {bind}\n[route hello]\nlistener = public\nrespond = 200 hello\n"
#: systemd's number of the capability to bind ports below 1024.
NET_BIND_SERVICE = f"{1 << 10:016x}"


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units with a program that is there, as systemd-analyze looks for it."""
    for unit in UNITS:
        text = (FOLDER / unit).read_text()
        (tmp_path / unit).write_text(text.replace("/usr/bin/sidecar", shutil.which("true") or "/bin/true"))
    return tmp_path


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [program("systemd-analyze", "systemd"), *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)


def test_units_are_verified(units: Path) -> None:
    """No unknown key, no value that is ignored."""
    done = analyze("verify", "--man=no", *(units / unit for unit in UNITS))
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("line", ["ProtectSystems=strict", "WatchdogSec=often", "KillMode=mixd"])
def test_a_broken_unit_is_refused(units: Path, line: str) -> None:
    """So that the test above can fail."""
    unit = units / "sidecar.service"
    unit.write_text(unit.read_text().replace("[Install]", f"{line}\n[Install]"))
    assert analyze("verify", "--man=no", unit).stdout != ""


def test_service_is_confined(units: Path) -> None:
    """As far as a proxy can be that listens where it is told to."""
    unit = units / "sidecar.service"
    done = analyze("security", "--offline=yes", "--no-pager", f"--threshold={EXPOSURE}", unit)
    assert done.returncode == 0, done.stdout.splitlines()[-1]


def test_service_has_time_to_drain() -> None:
    """systemd waits longer than drain_timeout lasts by default; for more the process asks."""
    text = (FOLDER / "sidecar.service").read_text()
    found = re.search(r"^TimeoutStopSec=(\d+)s$", text, re.MULTILINE)
    assert found
    assert int(found[1]) >= 30 + 10


def test_sockets_have_a_name_for_drop_ins() -> None:
    """The one that the comment in the unit tells."""
    unit = configparser.ConfigParser()
    text = (FOLDER / "sidecar.socket").read_text()
    unit.read_string(text)
    assert f"bind = fd:{unit['Socket']['FileDescriptorName']}" in text


def status_of(machine: Machine) -> str:
    return machine.path(f"/proc/{machine.unit('MainPID')}/status").read_text()


def test_service_runs_confined(systemd: Machine, packages: tuple[Path, Path]) -> None:
    """Not as root, on a port below 1024, with one capability; it writes to its folders and nowhere else."""
    systemd.write("/etc/sidecar/conf.d/10-hello.ini", HELLO.format(bind="127.0.0.1:80"))
    systemd.install(packages[0])
    assert systemd.asks("/") == "hello"
    assert systemd.unit("StatusText") == "serving 127.0.0.1:80"
    status = status_of(systemd)
    uid = systemd.must("id", "-u", "sidecar").strip()
    assert f"\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n" in status
    for field, value in (
        ("CapEff", NET_BIND_SERVICE),
        ("CapPrm", NET_BIND_SERVICE),
        ("CapBnd", NET_BIND_SERVICE),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ):
        assert f"\n{field}:\t{value}\n" in status
    inside = ["nsenter", f"--target={systemd.unit('MainPID')}", "--mount", f"--setuid={uid}", "--setgid=0"]
    for folder in ("/run/sidecar", "/var/lib/sidecar", "/var/cache/sidecar", "/var/log/sidecar", "/tmp"):
        systemd.must(*inside, "touch", f"{folder}/file")
    for folder in ("/etc/sidecar", "/usr", "/var/lib", "/run", "/home", "/root"):
        assert systemd.run(*inside, "touch", f"{folder}/file").returncode != 0


def test_service_runs_where_tmp_is_noexec(systemd: Machine, packages: tuple[Path, Path]) -> None:
    """As on systems that were hardened; and nothing of it is left when it has stopped."""
    systemd.must("mount", "-o", "remount,noexec", "/tmp")
    systemd.write("/etc/sidecar/conf.d/10-hello.ini", HELLO.format(bind="127.0.0.1:80"))
    systemd.install(packages[0])
    assert systemd.asks("/") == "hello"
    executable = systemd.must("readlink", f"/proc/{systemd.unit('MainPID')}/exe")
    assert executable.startswith("/tmp/sidecar-")
    systemd.must("systemctl", "stop", "sidecar.service")
    assert systemd.unit("Result") == "success"
    assert [path.name for path in systemd.path("/tmp").glob("*sidecar*/**/sidecar-*")] == []


def test_reload_waits_for_nothing_and_changes_what_is_served(
    systemd: Machine, packages: tuple[Path, Path]
) -> None:
    """Applied or refused, the service stays active; `systemctl status` tells which it was."""
    systemd.write("/etc/sidecar/conf.d/10-hello.ini", HELLO.format(bind="127.0.0.1:80"))
    systemd.install(packages[0])
    pid = systemd.unit("MainPID")
    systemd.write("/etc/sidecar/conf.d/20-other.ini", "[route hello]\nrespond = 200 other\n")
    systemd.must("systemctl", "reload", "sidecar.service")
    until(lambda: systemd.asks("/") == "other", "the new answer")
    until(lambda: systemd.unit("ActiveState") == "active", "active again")
    systemd.write("/etc/sidecar/conf.d/20-other.ini", "[route hello]\nrespond = nonsense\n")
    systemd.must("systemctl", "reload", "sidecar.service")
    refused = "reload refused: /etc/sidecar/conf.d/20-other.ini:2: "
    until(lambda: systemd.unit("StatusText").startswith(refused), "the refusal is told")
    until(lambda: systemd.unit("ActiveState") == "active", "active still")
    assert systemd.asks("/") == "other"
    assert systemd.unit("MainPID") == pid


def test_a_stuck_service_is_restarted(systemd: Machine, packages: tuple[Path, Path]) -> None:
    """The watchdog hears nothing from a process that is stopped."""
    systemd.write("/etc/sidecar/conf.d/10-hello.ini", HELLO.format(bind="127.0.0.1:80"))
    systemd.write(
        "/etc/systemd/system/sidecar.service.d/test.conf", "[Service]\nWatchdogSec=1s\nRestartSec=0\n"
    )
    systemd.install(packages[0])
    pid = systemd.unit("MainPID")
    systemd.must("systemctl", "kill", "--kill-who=main", "--signal=STOP", "sidecar.service")
    until(lambda: systemd.unit("MainPID") not in ("0", pid), "another process", 15.0)
    until(lambda: systemd.asks("/") == "hello", "it serves again", 15.0)
    assert systemd.unit("NRestarts") == "1"


def test_sockets_of_systemd_outlast_restart_and_upgrade(
    systemd: Machine, packages: tuple[Path, Path]
) -> None:
    """systemd listens; the service takes the socket by its name, and the first client starts it."""
    systemd.write("/etc/sidecar/conf.d/10-hello.ini", HELLO.format(bind="fd:public"))
    systemd.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n")  # nothing is started by dpkg
    systemd.path("/usr/sbin/policy-rc.d").chmod(0o755)
    systemd.install(packages[0])
    assert systemd.unit("ActiveState") == "inactive"
    systemd.must("systemctl", "start", "sidecar.socket")
    assert systemd.asks("/") == "hello"
    assert systemd.unit("ActiveState") == "active"
    inode = listening(systemd)
    systemd.must("systemctl", "restart", "sidecar.service")
    assert systemd.asks("/") == "hello"
    assert listening(systemd) == inode
    pid = systemd.unit("MainPID")
    systemd.install(packages[1])
    assert systemd.unit("MainPID") != pid
    assert systemd.asks("/") == "hello"
    assert listening(systemd) == inode
    systemd.must("systemctl", "stop", "sidecar.socket", "sidecar.service")
    assert systemd.asks("/") == ""


def listening(machine: Machine) -> list[str]:
    """The inodes of the sockets that listen on port 80."""
    lines = machine.path("/proc/1/net/tcp6").read_text().splitlines()[1:]
    return [
        line.split()[9] for line in lines if line.split()[3] == "0A" and line.split()[1].endswith(":0050")
    ]
