"""What the binary does before all else, on a made-up directory; the real one is tested in tests/packaging."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest

from sidecar import packed

ROOT = Path(__file__).parents[1]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A process that looks like one unpacked into this directory."""
    folder = tmp_path / "sidecar-0123456789abcdef"
    (folder / "_internal" / "certifi").mkdir(parents=True)
    (folder / "_internal" / "certifi" / "cacert.pem").touch()
    with ZipFile(folder / "_internal" / "tzdata.zip", "w") as archive:
        archive.writestr("tzdata/zoneinfo/Europe/Berlin", Path("/usr/share/zoneinfo/UTC").read_bytes())
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(sys, "executable", str(folder / "sidecar"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(packed, "_binary", "")
    monkeypatch.setattr(packed, "_given", {})
    monkeypatch.setattr(packed.atexit, "register", lambda *_: None)
    monkeypatch.setattr(packed, "_ZONES", tmp_path / "no zones")
    monkeypatch.setattr(packed, "_NAMES", tmp_path / "nsswitch.conf")
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "TZ", "TZDIR", "LD_LIBRARY_PATH", "LD_LIBRARY_PATH_ORIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SIDECAR_EXECUTABLE", "/usr/bin/sidecar")
    before = dict(os.environ)
    yield folder
    os.environ.clear()
    os.environ.update(before)


def test_an_installed_command_is_let_alone():
    before = dict(os.environ)
    packed.settle()
    assert dict(os.environ) == before
    assert packed.directory() is None
    assert packed.command() == [sys.executable, "-m", "sidecar"]
    assert packed.environment() == before


def test_a_program_that_somebody_else_packed_is_let_alone(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Its directory is not ours to remove."""
    monkeypatch.setattr(sys, "executable", "/opt/app/sidecar")
    packed.settle()
    assert packed.directory() is None


def test_the_binary_knows_what_starts_it_anew(folder: Path):
    packed.settle()
    assert packed.directory() == folder
    assert packed.command() == ["/usr/bin/sidecar"]


def test_a_new_version_gets_the_environment_that_was_given(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("_PYI_ARCHIVE_FILE", "x")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(folder))
    monkeypatch.setenv("LD_LIBRARY_PATH_ORIG", "/opt/lib")
    monkeypatch.setenv("APP", "1")
    packed.settle()
    given = packed.environment()
    assert given["LD_LIBRARY_PATH"] == os.environ["LD_LIBRARY_PATH"] == "/opt/lib"
    assert given["APP"] == "1"
    assert not {"_PYI_ARCHIVE_FILE", "LD_LIBRARY_PATH_ORIG", "SIDECAR_EXECUTABLE"} & {*given, *os.environ}
    assert "SSL_CERT_FILE" not in given


def test_a_search_path_that_only_the_loader_set_is_gone(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", str(folder))
    packed.settle()
    assert "LD_LIBRARY_PATH" not in os.environ


# TLS roots -------------------------------------------------------------------------------------------------


def test_the_roots_of_the_system_go_first(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    system = tmp_path / "roots.pem"
    system.touch()
    monkeypatch.setattr(packed, "_ROOTS", ("/nowhere", str(system)))
    packed.settle()
    assert os.environ["SSL_CERT_FILE"] == str(system)


def test_without_any_the_ones_inside_are_taken(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packed, "_ROOTS", ("/nowhere",))
    packed.settle()
    assert os.environ["SSL_CERT_FILE"] == str(folder / "_internal" / "certifi" / "cacert.pem")


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_roots_that_somebody_chose_stay(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setenv(name, "/chosen")
    packed.settle()
    assert {os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")} == {"/chosen", None}


# Time zones ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zone", ["Europe/Berlin", ":Europe/Berlin"])
def test_a_zone_that_the_system_has_not_is_unpacked(folder: Path, monkeypatch: pytest.MonkeyPatch, zone: str):
    monkeypatch.setenv("TZ", zone)
    packed.settle()
    monkeypatch.undo()
    time.tzset()
    assert os.environ["TZDIR"] == str(folder / "zoneinfo")
    assert (folder / "zoneinfo" / "Europe" / "Berlin").exists()


@pytest.mark.parametrize(
    "zone", ["", "CET-1CEST", "../../etc/passwd", "/etc/localtime", "Nowhere/City", "a//b"]
)
def test_what_is_no_zone_inside_makes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch, zone: str):
    monkeypatch.setenv("TZ", zone)
    packed.settle()
    assert "TZDIR" not in os.environ
    assert not (folder / "zoneinfo").exists()


def test_zones_of_the_system_go_first(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packed, "_ZONES", tmp_path)
    monkeypatch.setenv("TZ", "Europe/Berlin")
    packed.settle()
    assert "TZDIR" not in os.environ


# Names -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "is_ours"),
    [
        ("hosts: files dns", False),
        ("hosts: dns [!UNAVAIL=return] files", False),
        ("hosts:  files mdns4_minimal [NOTFOUND=return] dns  # comment", True),
        ("hosts: mymachines resolve files myhostname dns", True),
        ("passwd: files systemd", False),
        ("", False),
    ],
)
def test_modules_of_the_system_are_not_loaded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, is_ours: bool
):
    (tmp_path / "nsswitch.conf").write_text(f"# hosts: resolve\n{line}\n")
    asked = []

    class Library:
        def __init__(self, name: None) -> None:
            pass

        def __nss_configure_lookup(self, *arguments: bytes) -> int:
            asked.append(arguments)
            return 0

    setattr(Library, "__nss_configure_lookup", Library.__dict__["_Library__nss_configure_lookup"])
    monkeypatch.setattr(ctypes, "CDLL", Library)
    packed.settle()
    assert asked == ([(b"hosts", b"files dns")] if is_ours else [])


# The end ---------------------------------------------------------------------------------------------------

ENDING = """
import os, sys
sys.frozen, sys.executable = True, sys.argv[1] + "/sidecar"
from sidecar import packed
packed.settle()
if sys.argv[2] == "fork" and os.fork() == 0:
    sys.exit(0)
if sys.argv[2] == "fork":
    os.wait()
    print(os.path.exists(sys.argv[1]))
if sys.argv[2] == "leave":
    packed.leave(7)
if sys.argv[2] == "die":
    raise ValueError
"""


@pytest.mark.parametrize(("how", "status"), [("end", 0), ("leave", 7), ("die", 1), ("fork", 0)])
def test_the_directory_goes_with_the_process_and_not_with_one_it_forked(
    tmp_path: Path, how: str, status: int
):
    folder = tmp_path / "sidecar-0123456789abcdef"
    (folder / "_internal" / "deep").mkdir(parents=True)
    (folder / "_internal" / "deep" / "file").touch()
    (folder / "_internal" / "tzdata.zip").touch()
    done = subprocess.run(
        [sys.executable, "-c", ENDING, folder, how], cwd=ROOT, capture_output=True, text=True, timeout=20
    )
    assert done.returncode == status
    assert not folder.exists()
    if how == "fork":
        assert done.stdout == "True\n"
