"""The one-file binary: what it must do that an installed command need not, and how either is started anew.

Law: where nothing is packed, nothing here does anything. The launcher (packaging/launcher.c) has unpacked the
program into a directory of its own, which is removed when the process ends.
"""

from __future__ import annotations

import atexit
import os
import re
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn

#: The path by which the binary was started; the launcher sets it.
_EXECUTABLE: Final = "SIDECAR_EXECUTABLE"
_UNPACKED: Final = re.compile(r"sidecar-[0-9a-f]{16}")
#: What the loader of the program leaves in the environment.
_LOADER: Final = "_PYI_"
_LIBRARY_PATH: Final = "LD_LIBRARY_PATH"

#: Where distributions keep the TLS roots: Debian, Fedora, openSUSE, Alpine.
_ROOTS: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
_ZONES: Final = Path("/usr/share/zoneinfo")
_ZONE: Final = re.compile(r":?([A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*)")
_NAMES: Final = Path("/etc/nsswitch.conf")
_HOSTS: Final = re.compile(r"^\s*hosts:([^#\n]*)", re.MULTILINE)

#: As the one who started us gave it: what a new version gets.
_given: dict[str, str] = {}
_binary: str = ""


def directory() -> Path | None:
    """What the binary was unpacked into; None for an installed command."""
    if not getattr(sys, "frozen", False):
        return None
    folder = Path(sys.executable).parent
    return folder if _UNPACKED.fullmatch(folder.name) else None


def settle() -> None:
    """What comes before anything else in the binary: the environment in order, the end prepared."""
    global _binary
    folder = directory()
    if folder is None:
        return
    _binary = os.environ.pop(_EXECUTABLE, "")
    _forget_loader()
    _given.update(os.environ)
    atexit.register(_remove, folder, os.getpid())
    contents = folder / "_internal"
    _find_roots(contents)
    _find_zone(contents, folder)
    _resolve_alone()


def command() -> list[str]:
    """What starts this program anew, without its arguments: in the version that is installed by then."""
    return [_binary] if _binary else [sys.executable, "-m", "sidecar"]


def environment() -> dict[str, str]:
    """The environment that a new version gets: what this one was given, nothing it made for itself."""
    return dict(_given or os.environ)


def leave(status: int) -> NoReturn:
    """End at once, without what Python does at the end, and leave nothing behind."""
    folder = directory()
    if folder is not None:
        _remove(folder, os.getpid())
    os._exit(status)


def _forget_loader() -> None:
    for name in [name for name in os.environ if name.startswith(_LOADER)]:
        del os.environ[name]
    before = os.environ.pop(f"{_LIBRARY_PATH}_ORIG", None)
    os.environ.pop(_LIBRARY_PATH, None)
    if before is not None:
        os.environ[_LIBRARY_PATH] = before


def _remove(folder: Path, owner: int) -> None:
    # A forked process ends too, and is not the one whose directory it is.
    if os.getpid() != owner:
        return
    for place, folders, files in os.walk(folder, topdown=False):
        for name in files:
            with suppress(OSError):
                os.unlink(os.path.join(place, name))
        for name in folders:
            with suppress(OSError):
                os.rmdir(os.path.join(place, name))
    with suppress(OSError):
        folder.rmdir()


def _find_roots(contents: Path) -> None:
    """Let OpenSSL find the TLS roots: it was built for another distribution, and there may be none here."""
    if "SSL_CERT_FILE" in os.environ or "SSL_CERT_DIR" in os.environ:
        return
    found = [path for path in _ROOTS if os.access(path, os.R_OK)]
    os.environ["SSL_CERT_FILE"] = found[0] if found else str(contents / "certifi" / "cacert.pem")


def _find_zone(contents: Path, folder: Path) -> None:
    """Let the C library know the zone that TZ names where the system has no time zones."""
    if _ZONES.is_dir():
        return
    packed = contents / "tzdata.zip"
    sys.path.append(str(packed))  # for zoneinfo, which looks for a package
    name = _ZONE.fullmatch(os.environ.get("TZ", ""))
    if name is None or "TZDIR" in os.environ:
        return
    from zipfile import ZipFile

    with ZipFile(packed) as archive, suppress(KeyError):
        content = archive.read(f"tzdata/zoneinfo/{name[1]}")
        zone = folder / "zoneinfo" / name[1]
        zone.parent.mkdir(parents=True)
        zone.write_bytes(content)
        os.environ["TZDIR"] = str(folder / "zoneinfo")
        # The C library looks again only when TZ is another.
        given = os.environ.pop("TZ")
        time.tzset()
        os.environ["TZ"] = given
        time.tzset()


def _resolve_alone() -> None:
    """Resolve names by files and DNS only.

    Whatever else the system is configured for would be loaded into our C library and was built for its own.
    """
    try:
        hosts = _HOSTS.search(_NAMES.read_text(errors="replace"))
    except OSError:
        return
    services = re.sub(r"\[[^]]*\]", " ", hosts[1]).split() if hosts else []
    if set(services) <= {"files", "dns"}:
        return
    import ctypes

    ctypes.CDLL(None).__nss_configure_lookup(b"hosts", b"files dns")
