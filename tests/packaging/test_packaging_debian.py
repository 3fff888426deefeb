"""The Debian package: what is in it, and what it does to a system that is installed, upgraded and removed."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar import __version__
from tests.packaging.conftest import package
from tests.packaging.machine import Machine
from tests.support.live import ROOT, until
from tests.support.programs import program

#: The first test that needs a machine makes its root.
pytestmark = pytest.mark.timeout(300)

SCRIPTS = ("postinst", "prerm", "postrm")
#: What a first drop-in may look like.
HELLO = "[listener public]\nbind = 127.0.0.1:80\n[route hello]\npath = /hello\nrespond = 200 hello\n"


def dpkg_deb(*arguments: str | Path) -> str:
    return subprocess.run(
        [program("dpkg-deb", "dpkg"), *arguments], stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def test_package_has_what_a_service_needs(packages: tuple[Path, Path]) -> None:
    """Every file with its mode, all of them root's."""
    listed = {}
    for line in dpkg_deb("--contents", packages[0]).splitlines():
        mode, owner, _, _, _, path = line.split()
        assert owner == "root/root"
        if not path.endswith("/"):
            listed[path.removeprefix(".")] = mode
    plain = "-rw-r--r--"
    assert listed == {
        "/etc/sidecar/conf.d/README": plain,
        "/usr/bin/sidecar": "-rwxr-xr-x",
        "/usr/lib/systemd/system/sidecar.service": plain,
        "/usr/lib/systemd/system/sidecar.socket": plain,
        "/usr/lib/sysusers.d/sidecar.conf": plain,
        "/usr/share/doc/sidecar/changelog.gz": plain,
        "/usr/share/doc/sidecar/copyright": plain,
        "/usr/share/lintian/overrides/sidecar": plain,
        "/usr/share/man/man8/sidecar.8.gz": plain,
    }


def test_package_says_what_it_is(packages: tuple[Path, Path]) -> None:
    """Its control file names version, machine and the few things it depends on."""
    fields = dict(
        line.split(": ", 1)
        for line in dpkg_deb("--field", packages[0]).splitlines()
        if not line.startswith(" ")
    )
    assert fields["Package"] == "sidecar"
    assert fields["Version"] == "1.0"
    assert fields["Architecture"] == "amd64"
    assert fields["Depends"] == "init-system-helpers (>= 1.52), passwd"
    assert int(fields["Installed-Size"]) >= 8


def test_package_has_the_version_of_the_program(binary: Path, tmp_path: Path) -> None:
    """When nothing else is asked for."""
    done = subprocess.run(
        [sys.executable, ROOT / "packaging/deb.py", binary, "--target", tmp_path],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert Path(done.stdout.strip()) == tmp_path / f"sidecar_{__version__}_amd64.deb"


def test_package_is_the_same_when_built_again(
    packages: tuple[Path, Path], binary: Path, tmp_path: Path
) -> None:
    """Whatever the clock says, whoever owns the files and whatever the umask is."""
    before = os.umask(0o077)
    try:
        again = package(binary, tmp_path, "1.0", TZ="Asia/Tokyo")
    finally:
        os.umask(before)
    assert again.read_bytes() == packages[0].read_bytes()


@pytest.mark.parametrize(
    ("earlier", "later"),
    [("1.0.dev1", "1.0"), ("1.0a1", "1.0b1"), ("1.0rc1", "1.0"), ("1.0", "1.0.1"), ("1.9", "1.10")],
)
def test_versions_are_ordered_as_python_orders_them(
    binary: Path, tmp_path: Path, earlier: str, later: str
) -> None:
    """dpkg must not take a final version for a step back from its candidate."""
    stub = tmp_path / "sidecar"
    stub.write_bytes(b"#!/bin/true\n")
    told = [package(stub, tmp_path, version).name.split("_")[1] for version in (earlier, later)]
    subprocess.run([program("dpkg", "dpkg"), "--compare-versions", told[0], "lt", told[1]], check=True)


def test_a_missing_binary_is_told(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "packaging/deb.py", tmp_path / "sidecar"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == f"{tmp_path}/sidecar is missing: make binary first\n"


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_clean(name: str) -> None:
    """shellcheck finds nothing, and a shell that knows POSIX alone can read them."""
    script = ROOT / "packaging/debian" / name
    assert re.match(r"#!/bin/sh\n# .*\nset -eu\n", script.read_text())
    for command in (["sh", "-n"], [program("shellcheck"), "--shell=sh"]):
        done = subprocess.run([*command, script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, done.stdout


def test_changelog_is_one_that_debian_reads(packages: tuple[Path, Path], tmp_path: Path) -> None:
    """Its newest entry has the version of the package and the sentences of CHANGELOG.md."""
    dpkg_deb("--extract", packages[1], tmp_path)
    text = gzip.decompress((tmp_path / "usr/share/doc/sidecar/changelog.gz").read_bytes()).decode()
    assert text.startswith("sidecar (1.1) unstable; urgency=medium\n\n  * ")
    assert max(map(len, text.splitlines()[:-1])) <= 80
    assert re.search(r"^ -- .+ <.+>  \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d \+0000$", text, re.MULTILINE)


def test_installed_where_no_systemd_runs_it_starts_nothing(
    bare: Machine, packages: tuple[Path, Path]
) -> None:
    """As in the build of an image: files, user and enabled unit are there, and one line says the rest."""
    said = bare.install(packages[0])
    assert "sidecar: systemd does not run here, so nothing was started.\n" in said
    assert bare.must("getent", "passwd", "sidecar").split(":")[5:] == [
        "/var/lib/sidecar",
        "/usr/sbin/nologin\n",
    ]
    assert bare.must("sidecar", "--version") == f"sidecar {__version__}\n"
    assert "/etc/sidecar/conf.d: ok: " in bare.must("sidecar", "check")
    assert bare.must("systemctl", "is-enabled", "sidecar.service") == "enabled\n"
    assert bare.run("systemctl", "is-enabled", "sidecar.socket").stdout == "disabled\n"
    assert bare.must("dpkg", "--verify", "sidecar") == ""
    assert bare.install(packages[1]).count("nothing was started") == 1
    bare.must("dpkg", "--remove", "sidecar")
    assert not bare.path("/usr/bin/sidecar").exists()
    bare.must("dpkg", "--purge", "sidecar")
    assert not bare.path("/etc/sidecar").exists()
    assert bare.run("sh", "-c", "find / -xdev -name '*sidecar*' -not -path '/proc/*'").stdout == ""


def test_life_under_systemd(systemd: Machine, packages: tuple[Path, Path]) -> None:
    """Installed it runs and serves nothing; a drop-in makes it serve; removed it is gone; edits stay."""
    systemd.install(packages[0])
    assert systemd.unit("ActiveState") == "active"
    assert systemd.unit("UnitFileState") == "enabled"
    assert systemd.unit("StatusText") != ""
    systemd.write("/etc/sidecar/conf.d/10-hello.ini", HELLO)
    until(lambda: systemd.asks("/hello") == "hello", "the drop-in is served")
    systemd.write("/var/log/sidecar/access.log", "a line\n")
    systemd.must("dpkg", "--remove", "sidecar")
    assert systemd.unit("ActiveState") == "inactive"
    assert systemd.asks("/hello") == ""
    assert systemd.path("/var/log/sidecar/access.log").exists()
    systemd.must("dpkg", "--purge", "sidecar")
    for folder in ("/var/log/sidecar", "/var/lib/sidecar", "/var/cache/sidecar", "/run/sidecar"):
        assert not systemd.path(folder).exists()
    assert systemd.path("/etc/sidecar/conf.d/10-hello.ini").read_text() == HELLO
    assert systemd.run("systemctl", "is-enabled", "sidecar.service").returncode != 0


def test_an_upgrade_respects_who_stopped_it(systemd: Machine, packages: tuple[Path, Path]) -> None:
    """Disabled and stopped by the administrator it stays so."""
    systemd.install(packages[0])
    systemd.must("systemctl", "disable", "--now", "sidecar.service")
    systemd.install(packages[1])
    assert systemd.unit("ActiveState") == "inactive"
    assert systemd.unit("UnitFileState") == "disabled"
