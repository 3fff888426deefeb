"""The Debian package: `deb.py dist/sidecar` writes dist/sidecar_<version>_amd64.deb, with dpkg-deb alone.

Law: the same binary, sources and SOURCE_DATE_EPOCH give the same package, byte for byte.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Final, NamedTuple

import manpage

from sidecar import __version__

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGING: Final = ROOT / "packaging"

_MAINTAINER: Final = "the sidecar authors <authors@sidecar.example>"
_SCRIPTS: Final = ("postinst", "prerm", "postrm")

_CONTROL: Final = """\
Package: sidecar
Version: {version}
Architecture: amd64
Maintainer: {maintainer}
Installed-Size: {size}
Depends: init-system-helpers (>= 1.52), passwd
Section: httpd
Priority: optional
Description: reverse proxy in one file, configured by INI drop-ins
 Put it beside an app, write small INI files into /etc/sidecar/conf.d, and the
 app has routing, load balancing, strict HTTP, timeouts, rewriting and logs
 that it never had to learn. A change takes effect by itself; an upgrade of the
 package loses no request.
"""


class _Entry(NamedTuple):
    """A file of the package."""

    path: str  # in the root
    content: bytes
    mode: int = 0o644


def build(binary: Path, target: Path, version: str, date: int) -> Path:
    """Write the package of `binary` into the folder `target`; its path. `date`: seconds since 1970."""
    debian = debian_version(version)
    package = target / f"sidecar_{debian}_amd64.deb"
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "root"
        entries = list(_entries(binary, debian, date))
        for entry in [*entries, *_control(entries, debian)]:
            _write(tree, entry)
        _settle(tree, date)
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "--uniform-compression", "-Zgzip", "--build", tree, package],
            env={**os.environ, "SOURCE_DATE_EPOCH": str(date)},
            stdout=subprocess.DEVNULL,
            check=True,
        )
    return package


def debian_version(version: str) -> str:
    """A version as dpkg orders it: 1.0rc1 and 1.0.dev1 come before 1.0."""
    return re.sub(r"\.?(a|b|rc|dev)(\d+)", r"~\1\2", version)


def source_date() -> int:
    """Seconds since 1970: $SOURCE_DATE_EPOCH, else the last commit, else the last change of CHANGELOG.md."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given:
        return int(given)
    try:
        told = subprocess.run(
            ["git", "-C", ROOT, "log", "-1", "--format=%ct"], capture_output=True, text=True, check=True
        )
        return int(told.stdout)
    except (OSError, subprocess.CalledProcessError, ValueError):
        return int((ROOT / "CHANGELOG.md").stat().st_mtime)


def _entries(binary: Path, version: str, date: int) -> Iterator[_Entry]:
    when = datetime.fromtimestamp(date, UTC)
    units = PACKAGING / "systemd"
    documents = "usr/share/doc/sidecar"
    yield _Entry("usr/bin/sidecar", binary.read_bytes(), 0o755)
    for unit in ("sidecar.service", "sidecar.socket"):
        yield _Entry(f"usr/lib/systemd/system/{unit}", (units / unit).read_bytes())
    yield _Entry("usr/lib/sysusers.d/sidecar.conf", (units / "sidecar.sysusers").read_bytes())
    yield _Entry("etc/sidecar/conf.d/README", (PACKAGING / "debian/README").read_bytes())
    yield _Entry("usr/share/man/man8/sidecar.8.gz", _packed(manpage.page(when)))
    yield _Entry("usr/share/lintian/overrides/sidecar", (PACKAGING / "debian/lintian").read_bytes())
    yield _Entry(f"{documents}/copyright", (PACKAGING / "debian/copyright").read_bytes())
    yield _Entry(f"{documents}/changelog.gz", _packed(_changelog(version, when)))


def _changelog(version: str, when: datetime) -> str:
    """The newest section of CHANGELOG.md as dpkg's tools read it."""
    _, _, newest = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").partition("\n## ")
    body = newest.split("\n## ")[0]
    items = [" ".join(item.split()) for item in re.findall(r"^\* (.*(?:\n {2}.*)*)", body, re.MULTILINE)]
    listed = "\n".join(
        textwrap.fill(item, 78, initial_indent="  * ", subsequent_indent="    ", break_long_words=False)
        for item in items
    )
    return (
        f"sidecar ({version}) unstable; urgency=medium\n\n{listed}\n\n"
        f" -- {_MAINTAINER}  {format_datetime(when)}\n"
    )


def _control(entries: list[_Entry], version: str) -> Iterator[_Entry]:
    size = sum((len(entry.content) + 1023) // 1024 for entry in entries)
    control = _CONTROL.format(version=version, maintainer=_MAINTAINER, size=size)
    sums = "".join(
        f"{hashlib.md5(entry.content, usedforsecurity=False).hexdigest()}  {entry.path}\n"
        for entry in entries
        if not entry.path.startswith("etc/")
    )
    conffiles = "".join(f"/{entry.path}\n" for entry in entries if entry.path.startswith("etc/"))
    yield _Entry("DEBIAN/control", control.encode())
    yield _Entry("DEBIAN/md5sums", sums.encode())
    yield _Entry("DEBIAN/conffiles", conffiles.encode())
    for script in _SCRIPTS:
        yield _Entry(f"DEBIAN/{script}", (PACKAGING / "debian" / script).read_bytes(), 0o755)


def _packed(text: str) -> bytes:
    return gzip.compress(text.encode(), 9, mtime=0)


def _write(tree: Path, entry: _Entry) -> None:
    file = tree / entry.path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(entry.content)
    file.chmod(entry.mode)


def _settle(tree: Path, date: int) -> None:
    """Times and modes that do not depend on when and by whom it was built."""
    for path in [tree, *tree.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)
        os.utime(path, (date, date))


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the Debian package.")
    parser.add_argument("binary", type=Path, help="the one-file program, dist/sidecar")
    parser.add_argument("--version", default=__version__, help="of the package (%(default)s)")
    parser.add_argument("--target", type=Path, help="the folder to write to; else that of the binary")
    arguments = parser.parse_args()
    if not arguments.binary.is_file():
        print(f"{arguments.binary} is missing: make binary first", file=sys.stderr)
        return 1
    target = arguments.target or arguments.binary.parent
    print(build(arguments.binary, target, arguments.version, source_date()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
