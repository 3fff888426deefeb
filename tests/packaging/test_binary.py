"""The binary: what is in it, and that it lives where there is nothing else."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.support import empty_root
from tests.support.binary import ROOT, UNPACKED, binary, namespace

#: Versions that a Linux of ten years ago has: kernel 3.10 (RHEL 7), and any x86-64 processor.
OLDEST_KERNEL = (3, 10)
LARGEST = 30_000_000


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of a copy that is running."""
    place = tmp_path_factory.mktemp("unpacked")
    process = subprocess.Popen(
        [binary(), "demo", "--bind", "127.0.0.1:0"], env={"TMPDIR": str(place)}, stderr=subprocess.PIPE
    )
    try:
        assert process.stderr
        assert b"demo" in process.stderr.readline()
        (folder,) = place.glob(UNPACKED)
        yield folder
    finally:
        process.terminate()
        process.communicate(timeout=10)


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What was seen of a sidecar in an empty root."""
    root = tmp_path_factory.mktemp("empty") / "root"
    words = [sys.executable, "-P", empty_root.__file__, str(root), str(binary())]
    done = namespace(shlex.join(words))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# In an empty root ------------------------------------------------------------------------------------------


def test_there_is_nothing_but_the_binary_in_the_root(life: dict[str, Any]):
    assert life["entries"] == ["conf.d", "proc", "sidecar", "tmp"]


def test_it_checks(life: dict[str, Any]):
    assert life["check"] == [0, "/conf.d: ok: 1 listener, 0 certificates, 1 upstream, 1 route\n", ""]


def test_it_serves_an_upstream_that_it_finds_by_dns(life: dict[str, Any]):
    assert life["by name"] == [200, "app"], life["log"]


def test_it_reloads(life: dict[str, Any]):
    assert life["after a reload"] == [200, "Hello"], life["log"]


def test_it_drains_and_leaves_nothing(life: dict[str, Any]):
    assert life["status"] == 0
    assert '"event":"drained"' in life["log"]
    assert life["left"] == []


def test_it_brings_tls_roots(life: dict[str, Any]):
    assert life["about"]["tls_roots"].endswith("/certifi/cacert.pem")
    assert life["about"]["tls_root_certificates"] > 50


def test_it_brings_time_zones(life: dict[str, Any]):
    assert life["about"]["time_zone"] == datetime.now(ZoneInfo("Europe/Berlin")).strftime("%Z %z")


def test_it_asks_this_machine_for_names(life: dict[str, Any]):
    assert life["about"]["name_servers"] == ["127.0.0.1"]


# What is in it ---------------------------------------------------------------------------------------------


def elves(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file() and file.read_bytes()[:4] == b"\x7fELF"]


def readelf(*arguments: str | Path) -> str:
    done = subprocess.run(["readelf", "--wide", *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def test_it_is_small():
    assert binary().stat().st_size <= LARGEST


def test_it_needs_no_library_to_start():
    assert "INTERP" not in readelf("--program-headers", binary())


def test_every_library_that_is_asked_for_is_inside(unpacked: Path):
    there = {file.name for file in (unpacked / "_internal").iterdir()} | {"ld-linux-x86-64.so.2"}
    for file in elves(unpacked):
        asked = set(re.findall(r"\(NEEDED\).*\[(.+)\]", readelf("--dynamic", file)))
        assert asked <= there, file.name


def test_nothing_looks_for_libraries_elsewhere(unpacked: Path):
    paths = {
        (file.name, path)
        for file in elves(unpacked)
        for path in re.findall(r"\((?:RPATH|RUNPATH)\).*\[(.+)\]", readelf("--dynamic", file))
    }
    assert paths == {("sidecar", "$ORIGIN/_internal")}
    assert f"{unpacked}/ld.so]" in readelf("--program-headers", unpacked / "sidecar")


def test_it_runs_on_kernels_and_processors_of_ten_years_ago(unpacked: Path):
    for file in elves(unpacked):
        notes = readelf("--notes", file)
        for found in re.findall(r"OS: Linux, ABI: (\d+)\.(\d+)", notes):
            assert tuple(map(int, found)) <= OLDEST_KERNEL, file.name
        needed = set(re.findall(r"x86 ISA needed: ([^\n]+)", notes))
        assert needed <= {"x86-64-baseline"}, file.name


def test_nothing_inside_has_symbols_for_a_debugger(unpacked: Path):
    large = [file.name for file in elves(unpacked) if ".debug_info" in readelf("--section-headers", file)]
    assert large == []


UNNEEDED = re.compile(
    r"(^|/|\.)(tests?|testing|tkinter|_tkinter|unittest|doctest|pydoc|pdb|idlelib|lib2to3|sqlite3|_sqlite3|curses|"
    r"asyncio|multiprocessing|setuptools|pip|Cython|rich|_multibytecodec|_codecs_(cn|hk|jp|kr|tw|iso2022))(\.|/|$)"
)


def test_nothing_unneeded_is_inside(unpacked: Path):
    files = [file.relative_to(unpacked).as_posix() for file in unpacked.rglob("*")]
    assert [name for name in files if UNNEEDED.search(name)] == []
    listed = subprocess.run(
        [
            sys.executable,
            "-m",
            "PyInstaller.utils.cliutils.archive_viewer",
            "--list",
            "--brief",
            "--recursive",
            unpacked / "sidecar.pkg",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    modules = listed.split()
    assert "sidecar.cli" in modules
    assert [name for name in modules if UNNEEDED.search(name) and name != "structlog.testing"] == []


def test_the_licenses_of_what_is_inside_are_inside(unpacked: Path):
    licensed = {file.parts[-3].partition("-")[0] for file in unpacked.rglob("*.dist-info/licenses/*")}
    assert {"gevent", "greenlet", "structlog"} <= licensed


def test_the_modules_of_every_command_are_inside():
    """A hidden import that is missing shows only when its command runs."""
    conf = ROOT / "conf.d"
    for arguments in (
        ["check"],
        ["show"],
        ["show", "--json"],
        ["explain", "http://x/hello"],
        ["manual"],
        ["about"],
    ):
        where = ["--conf", str(conf)] if arguments[0] in ("check", "show", "explain") else []
        done = subprocess.run([binary(), *arguments, *where], capture_output=True, text=True, timeout=30)
        assert (done.returncode, done.stderr) == (0, ""), arguments
        assert done.stdout
