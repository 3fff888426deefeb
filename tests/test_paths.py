"""What paths depend on, and what stands in the files: directories, links, and what is not there."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from sidecar import paths as module
from sidecar.paths import DropIns, Files


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    directory = tmp_path / "etc" / "conf.d"
    directory.mkdir(parents=True)
    (directory / "a.ini").write_text("one")
    return directory


def refuse(*_: Any) -> int:
    raise OSError(errno.EACCES, os.strerror(errno.EACCES))


def test_a_directory_that_cannot_be_listed_is_watched(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.os, "listdir", refuse)
    scan = DropIns(conf).scan()
    assert (scan.home, str(conf) in scan.vital) == (str(conf), True)


def test_links_that_climb_are_followed(conf: Path) -> None:
    (conf / "b.ini").symlink_to("./../../store/b.conf")
    scan = DropIns(conf).scan()
    root = conf.parent.parent
    assert "store" in scan.names[str(root)]
    (root / "store").mkdir()
    assert DropIns(conf).scan().names[str(root / "store")] == {"b.conf"}


def test_comparing_does_not_use_up_descriptors(conf: Path) -> None:
    (conf / "no.ini").mkdir()
    os.mkfifo(conf / "fifo.ini")
    DropIns(conf).contents()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        DropIns(conf).contents()
    assert len(os.listdir("/proc/self/fd")) == before


def test_files_depend_on_their_directories_and_on_the_links_to_them(tmp_path: Path) -> None:
    (tmp_path / "live").mkdir()
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "key1.pem").write_text("1")
    link = tmp_path / "live" / "key.pem"
    link.symlink_to("../archive/key1.pem")
    scan = Files([str(link), str(tmp_path / "none" / "ca.pem")], "certificates").scan()
    assert scan.names[str(tmp_path / "live")] == {"key.pem"}
    assert scan.names[str(tmp_path / "archive")] == {"key1.pem"}
    assert scan.names[str(tmp_path)] >= {"live", "archive", "none"}
    assert {str(tmp_path), str(tmp_path / "live"), str(tmp_path / "archive")} <= scan.vital
    assert scan.home == ""


def test_contents_of_files_differ_when_one_changes_or_goes(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    files = Files([str(file)], "certificates")
    seen = [files.contents()]
    file.write_text("1")
    seen.append(files.contents())
    file.write_text("2")
    seen.append(files.contents())
    assert len(set(seen)) == 3
    file.write_text("1")
    assert files.contents() == seen[1]


def test_mounted_file_systems_are_known_by_their_devices() -> None:
    proc = os.stat("/proc").st_dev
    assert module._file_systems()[proc] == "proc"


def test_where_nobody_tells_what_is_mounted_the_kernel_is_trusted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "Path", lambda _: tmp_path / "none")
    assert module._blind([str(tmp_path), str(tmp_path / "gone")]) == ""
