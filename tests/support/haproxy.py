"""A real HAProxy in front of servers of a test, to compare with; from Debian when it is not there."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.support.live import listening_inode, until
from tests.support.programs import program

_PATIENCE: Final = 10.0

_CONFIG: Final = """\
global
    stats socket {folder}/stats level admin
defaults
    mode http
    timeout connect 1s
    timeout client 20s
    timeout server 20s
    timeout queue 5s
    option redispatch 1
    retries 2
    default-server inter 100ms fastinter 100ms downinter 100ms fall 1 rise 1
listen test
    bind 127.0.0.1:{port}
{lines}
"""


@contextlib.contextmanager
def haproxy(lines: str, port: int, folder: Path) -> Iterator[None]:
    """A running HAProxy with one section of these lines, listening on `port`."""
    file, log = folder / "haproxy.cfg", folder / "haproxy.log"
    file.write_text(_CONFIG.format(folder=folder, port=port, lines=lines))
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [program("haproxy"), "-db", "-f", str(file)],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
        )
    try:
        until(lambda: listening_inode(port) or process.poll() is not None, "HAProxy listens", _PATIENCE)
        assert process.poll() is None, log.read_text(errors="replace")
        yield
    finally:
        process.kill()
        process.wait()
