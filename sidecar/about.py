"""What this program is made of and what it found on this machine: the first page of a report of a problem."""

from __future__ import annotations

import os
import platform
import ssl
import time
from pathlib import Path
from typing import Any, Final

import gevent

from . import __version__, packed

_RESOLVER: Final = Path("/etc/resolv.conf")


def about() -> dict[str, Any]:
    """Name → value: a text, a number, a list of texts, or None for what there is not."""
    folder = packed.directory()
    roots, certificates = _roots()
    return {
        "version": __version__,
        "command": " ".join(packed.command()),
        "unpacked_in": str(folder) if folder else None,
        "python": platform.python_version(),
        "gevent": gevent.__version__,
        "openssl": ssl.OPENSSL_VERSION,
        "tls_roots": roots,
        "tls_root_certificates": certificates,
        "name_servers": _name_servers(),
        "time_zone": time.strftime("%Z %z"),
        "kernel": f"{os.uname().sysname} {os.uname().release} {os.uname().machine}",
    }


def as_text(facts: dict[str, Any]) -> str:
    """One line for each fact."""
    width = max(map(len, facts)) + 1
    return "".join(f"{name + ':':{width}} {_shown(value)}\n" for name, value in facts.items())


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "-"
    return "-" if value is None else str(value)


def _roots() -> tuple[str | None, int]:
    """(the file or directory that OpenSSL reads, how many roots a connection would trust)."""
    paths = ssl.get_default_verify_paths()
    context = ssl.create_default_context()
    return paths.cafile or paths.capath, context.cert_store_stats()["x509_ca"]


def _name_servers() -> list[str]:
    try:
        lines = _RESOLVER.read_text(errors="replace").splitlines()
    except OSError:
        # What the C library asks when nobody says otherwise.
        return ["127.0.0.1"]
    words = [line.split() for line in lines]
    return [line[1] for line in words if len(line) > 1 and line[0] == "nameserver"] or ["127.0.0.1"]
